"""How child processes end, as the master says it, and that they do not outlive it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fastsmtp.server.children import die_with_master, how_it_ended
from tests.server.processes import children_of, is_alive
from tests.server.running import running
from tests.server.waiting import until


@pytest.mark.parametrize(
    ("code", "says"), [(0, "exit code 0"), (3, "exit code 3"), (-signal.SIGKILL, "signal SIGKILL"), (-40, "signal 40")]
)
def test_how_it_ended(code: int, says: str) -> None:
    assert how_it_ended(code) == says


def test_a_worker_that_a_real_time_signal_ends_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:") as server:
        os.kill(server.worker, 40)
        server.wait_for_log(r"died \(signal 40\); its successor starts")
        server.greeted().deliver()


def test_a_child_whose_master_died_before_it_could_say_so_ends() -> None:
    """The kernel sends nothing any more: the child has another parent by now, and finds out by itself."""
    master = _fork_and_end()
    pid = os.fork()
    if pid == 0:
        die_with_master(master)  # our parent is not the one of before the fork
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_a_child_whose_master_lives_goes_on() -> None:
    for master in (os.getpid(), None):
        pid = os.fork()
        if pid == 0:
            die_with_master(master)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_child_of_a_killed_master_ends(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", "--admin=127.0.0.1:0") as server:
        children = children_of(server.pid)
        assert len(children) == 2
        server.process.kill()
        until(lambda: not any(is_alive(pid) for pid in children), "all have ended")


def _fork_and_end() -> int:
    """The pid of a process that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
