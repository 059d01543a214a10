"""Workers that stand still are found, dumped, killed and replaced; those that only look so are left alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from fastsmtp.server.children import Child, Phase
from fastsmtp.server.columns import STAMP
from fastsmtp.server.scoreboard import Scoreboard
from fastsmtp.server.watchdog import Watchdog
from loadtest.chaos.hanging import WAYS, fail_to_load, hang, never_return
from tests.server.processes import is_alive, is_stopped
from tests.server.running import running
from tests.server.waiting import until


@pytest.mark.parametrize(
    ("way", "signal_name", "dump"),
    [
        ("SIGSTOP", "SIGKILL", None),  # it cannot write
        ("GIL held in C", "SIGABRT", "in noop"),
        ("loop blocked", "SIGABRT", "in noop"),
    ],
)
def test_a_worker_that_hangs_is_replaced(tmp_path: Path, way: str, signal_name: str, dump: str | None) -> None:
    assert way in WAYS
    took, failed, log = hang(tmp_path, way, sessions=8)
    assert took < 15
    # Sessions that the worker had, and those that it had accepted without a word; never one of the other worker.
    assert len({worker for worker, _ in failed} - {""}) <= 1
    assert len(failed) <= 8
    assert "hangs: its event loop has not turned for" in log
    assert f"died (signal {signal_name})" in log
    if dump:
        assert "Current thread" in log
        assert dump in log


def test_a_hook_that_never_returns_costs_a_thread(tmp_path: Path) -> None:
    """standards.md T16, E9."""
    took, _ = never_return(tmp_path)
    assert took < 5


def test_an_application_that_fails_on_reload_changes_nothing(tmp_path: Path) -> None:
    failed, log = fail_to_load(tmp_path, sessions=8)
    assert failed == []
    assert "RuntimeError: half a deployment" in log


def test_a_worker_that_leaves_is_watched_too(tmp_path: Path) -> None:
    with running(tmp_path, "loadtest.chaos.apps:Hanging", "--watchdog-timeout=1") as server:
        old = server.worker
        with server.greeted():
            server.send_signal(signal.SIGHUP)
            server.wait_for_log("took over")
            os.kill(old, signal.SIGSTOP)
            server.wait_for_log(rf"worker 0 \(pid {old}\) died \(signal SIGKILL\) while it left", 20)
        assert not is_alive(old)
        server.greeted().deliver()
        assert len(server.workers) == 1


SLOW = """
import asyncio
from contextlib import asynccontextmanager
from fastsmtp import Handler

class App(Handler):
    @classmethod
    @asynccontextmanager
    async def lifespan(cls, worker):
        yield
        await asyncio.sleep(4)
        print("ended in its own time", flush=True)
"""


def test_a_worker_whose_application_ends_slowly_is_left_alone(tmp_path: Path) -> None:
    """Its loop turns: whoever looks sees that, long after the last session."""
    (tmp_path / "app.py").write_text(SLOW)
    with running(tmp_path, "app:App", "--watchdog-timeout=1", "--store=discard:") as server:
        old = server.worker
        server.send_signal(signal.SIGHUP)
        server.wait_for_log(rf"worker 0 \(pid {old}\) has left", 20)
        assert "hangs" not in server.log
        assert "ended in its own time" in server.access_log


def test_a_server_that_was_suspended_as_a_whole_goes_on(tmp_path: Path) -> None:
    """A frozen cgroup, a suspended machine, Ctrl-Z: stamps are old, and nobody is to blame."""
    with running(tmp_path, "tests.server.apps:Pids", "--watchdog-timeout=1") as server:
        worker, client = server.worker, server.greeted()
        for pid in (server.pid, worker):
            os.kill(pid, signal.SIGSTOP)
            until(lambda pid=pid: is_stopped(pid), "it stands still")  # type: ignore[misc]
        time.sleep(6)  # longer than the watchdog takes for an absence of its own: that is the case
        for pid in (server.pid, worker):
            os.kill(pid, signal.SIGCONT)
        client.ask("NOOP", "250")
        client.deliver()
        assert server.worker == worker
        assert "hangs" not in server.log


class _Process:
    """A process that only signals can end."""

    def __init__(self) -> None:
        self.pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})

    def end(self) -> int:
        """The signal that it died of."""
        _, status = os.waitpid(self.pid, 0)
        return os.WTERMSIG(status)


def test_when_it_acts() -> None:
    """By a clock of the test's own, with a real process."""
    process, board = _Process(), Scoreboard(1)
    row = board.take(0)
    dog = Watchdog(board, 100.0)
    child = Child(process.pid, 0, row.number, -1, started=100.0, phase=Phase.READY)

    def look(now: float) -> int:
        return dog.look([child], 10.0, now)

    assert [look(100.0 + second) for second in range(10)] == [0] * 10
    row.cells[STAMP] = 109_000
    assert [look(110.0 + second) for second in range(9)] == [0] * 9
    assert not dog.is_stalled(child, 111.0)
    assert dog.is_stalled(child, 113.0)
    assert look(119.0) == 1
    assert process.end() == signal.SIGABRT
    assert look(120.0) == 0  # once is enough


def test_its_own_absence_is_forgiven() -> None:
    board = Scoreboard(1)
    row = board.take(0)
    dog = Watchdog(board, 100.0)
    child = Child(2**30, 0, row.number, -1, started=100.0, phase=Phase.READY)  # no such process
    assert dog.look([child], 10.0, 500.0) == 0
    assert [dog.look([child], 10.0, 500.0 + second) for second in range(1, 10)] == [0] * 9
    assert dog.look([child], 10.0, 510.0) == 1
