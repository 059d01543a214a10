"""HUP replaces the workers one by one, and nobody notices; a crash costs a worker its own sessions (standards.md E)."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.server import journal
from tests.server.client import Client
from tests.server.gates import open_gate
from tests.server.processes import is_alive, is_stopped
from tests.server.running import Server, running
from tests.server.waiting import until


class Load:
    """Clients that connect, deliver one message and leave, again and again."""

    def __init__(self, server: Server, clients: int) -> None:
        self._server = server
        self._stop = threading.Event()
        self.delivered: Counter[int] = Counter()  # by the worker that the banner named
        self.failed: list[tuple[int, str]] = []  # the worker, or 0 before the banner; and what was wrong
        self._threads = [threading.Thread(target=self._work) for _ in range(clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def has_reached(self, workers: list[int]) -> bool:
        return all(self.delivered[pid] > 20 for pid in workers)

    def _work(self) -> None:
        while not self._stop.is_set():
            pid = 0
            try:
                with Client(self._server.address) as client:
                    pid = int(client.expect("220 pid ").split()[-1])
                    client.ask("EHLO client.example", "250")
                    client.deliver()
                    client.ask("QUIT", "221")
                    client.expect_end()
                self.delivered[pid] += 1
            except (OSError, EOFError, AssertionError) as error:
                self.failed.append((pid, repr(error)))


@contextmanager
def _loaded(server: Server, clients: int = 4) -> Iterator[Load]:
    load = Load(server, clients)
    load.start()
    try:
        yield load
    finally:
        load.stop()


def _are_replaced(server: Server, before: list[int]) -> bool:
    return not set(before) & set(server.workers)


def test_a_reload_under_load_fails_nobody(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:Pids", workers=2) as server, _loaded(server) as load:
        for _ in range(3):
            before = server.workers
            until(lambda: sum(load.delivered.values()) > 200, "load")
            server.send_signal(signal.SIGHUP)
            until(partial(_are_replaced, server, before), "new workers", 20)
            load.delivered.clear()
            now = server.workers
            until(partial(load.has_reached, now), "the new workers serve")
            assert len(now) == 2
        load.stop()
        assert load.failed == []
        replaced = [match[1] for match in server.wait_for_log(r"worker (\d): pid \d+ took over", count=6)]
        assert replaced == ["0", "1"] * 3  # one by one
        assert server.stop() == 0


def test_sessions_of_a_replaced_worker_go_on(tmp_path: Path) -> None:
    """standards.md E13: one that has been idle for drain_idle gets 421 4.3.2."""
    with running(tmp_path, "tests.server.apps:Pids", "--drain-idle=2") as server:
        old = server.worker
        busy, idle = server.greeted(), server.greeted()
        busy.begin_data()
        server.send_signal(signal.SIGHUP)
        (took_over,) = server.wait_for_log(r"worker 0: pid (\d+) took over")
        idle.ask("NOOP", "250")
        with server.connect() as new:
            # The log says so only when the old worker has closed its doors, so there is no other answer.
            assert new.reply() == f"220 pid {took_over[1]}"
        assert took_over[1] != str(old)
        idle.expect("421 4.3.2 ")
        idle.expect_end()
        busy.send(b"x\r\n.\r\n")
        busy.expect("250 2.0.0 accepted")
        busy.ask("NOOP", "250")
        busy.deliver()
        busy.quit()
        idle.socket.close()
        busy.socket.close()
        until(lambda: not is_alive(old), "the old worker leaves")
        server.wait_for_log(rf"worker 0 \(pid {old}\) has left")


APP = """
from fastsmtp import Handler, Reply

class App(Handler):
    async def welcome(self, session):
        return Reply(220, None, "{}")
"""


def test_a_reload_serves_the_new_code(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP.format("old"))
    with running(tmp_path, "app:App", workers=2) as server:
        server.connect().expect("220 old")
        app.write_text(APP.format("renewed"))
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("took over", count=2)
        until(lambda: all(server.connect().reply() == "220 renewed" for _ in range(8)), "nobody serves the old code")


def test_a_reload_with_a_broken_application_changes_nothing(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP.format("old"))
    with running(tmp_path, "app:App", workers=2) as server:
        before = server.workers
        app.write_text("raise RuntimeError('half a deployment')\n")
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("reload given up")
        assert "RuntimeError: half a deployment" in server.log
        for _ in range(8):
            server.connect().expect("220 old")
        assert server.workers == before
        app.write_text(APP.format("renewed"))
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("took over", count=2)
        until(lambda: server.connect().reply() == "220 renewed", "the new code serves")


def test_a_worker_that_dies_while_its_successor_starts_has_one_successor(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:Lifespan") as server:
        old = server.worker
        open_gate(tmp_path, "hold")
        server.send_signal(signal.SIGHUP)
        until(lambda: len(journal.events(tmp_path, event="entered")) == 2, "the successor starts")
        os.kill(old, signal.SIGKILL)
        until(lambda: old not in server.workers, "the old worker is gone")
        open_gate(tmp_path, "lifespan")
        with server.connect() as client:
            client.expect("220 slot 0")
        until(lambda: len(server.workers) == 1, "one worker in the one slot", 3)


def test_a_killed_worker_takes_only_its_own_sessions_with_it(tmp_path: Path) -> None:
    """standards.md T13, E16."""
    with running(tmp_path, "tests.server.apps:Pids", workers=2) as server:
        victim, other = server.workers
        staying = [server.connect() for _ in range(20)]
        by_pid = {client: int(client.expect("220 pid").split()[-1]) for client in staying}
        assert set(by_pid.values()) == {victim, other}
        with _loaded(server) as load:
            until(lambda: load.delivered[victim] > 50, "load")
            os.kill(victim, signal.SIGKILL)
            server.wait_for_log(rf"worker \d \(pid {victim}\) died \(signal SIGKILL\); its successor starts now")
            until(lambda: set(load.delivered) - {victim, other}, "the successor serves")
        # A session that the dead worker had accepted without a word cannot be told apart: four clients, so few at most.
        assert {pid for pid, _ in load.failed} <= {0, victim}
        assert len(load.failed) <= 4
        for client, pid in by_pid.items():
            if pid == other:
                client.ask("EHLO client.example", "250")
                client.deliver()
            else:
                assert client.socket.recv(1) == b""
        assert len(server.workers) == 2
        assert other in server.workers


def test_a_dead_worker_leaves_its_accept_queue_to_its_successor(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:Pids") as server:
        victim = server.worker
        os.kill(victim, signal.SIGSTOP)
        until(lambda: is_stopped(victim), "it stands still")
        waiting = [server.connect() for _ in range(20)]
        waiting[0].send(b"EHLO client.example\r\n")
        os.kill(victim, signal.SIGKILL)
        pids = {client.expect("220 pid ").split()[-1] for client in waiting}
        assert len(pids) == 1
        assert str(victim) not in pids
        waiting[0].expect("250")
        waiting[0].deliver()


def test_a_worker_that_dies_again_and_again_has_to_wait(tmp_path: Path) -> None:
    """standards.md T14: no storm."""
    with running(tmp_path, "tests.server.apps:Pids") as server:
        for count in range(1, 3):
            until(lambda: len(server.workers) == 1, "a worker")
            server.connect().expect("220 pid")
            os.kill(server.worker, signal.SIGKILL)
            server.wait_for_log(r"died \(signal SIGKILL\)", count=count)
        server.wait_for_log("its successor starts in 1 s")
        server.connect().expect("220 pid")  # it waited in the queue
