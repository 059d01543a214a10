"""A system that has no room for one more process, or one more descriptor, costs time and never the server."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from fastsmtp.config import Listen
from fastsmtp.server.admin_child import AdminChild
from fastsmtp.server.children import Phase
from fastsmtp.server.forking import Forks
from fastsmtp.server.listeners import Listener
from fastsmtp.server.rolling import Rolling
from fastsmtp.server.scoreboard import Row, Scoreboard
from fastsmtp.server.slots import Slots
from tests.server.running import running


class FakeStart:
    """In place of a fork: fails as often as it is told to, then gives pids that nobody has."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self._pid = 2**22  # beyond what the kernel gives

    def __call__(self, *_: object) -> int:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._pid += 1
        return self._pid


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _slots(start: FakeStart, wanted: int = 1) -> tuple[Slots, Scoreboard]:
    scoreboard = Scoreboard(wanted)

    def be_started(slot: int, row: Row, report: int, pipe: int, renews: bool) -> int:
        return start(slot, row, report, pipe, renews)

    return Slots(scoreboard, wanted, wanted, be_started), scoreboard


def test_a_failing_fork_leaves_signals_unblocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", FakeStart(1))
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        Forks([signal.SIGHUP], lambda: None).fork("worker 0", 0, lambda: 0)
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_worker_that_cannot_be_forked_takes_nothing_and_is_tried_again() -> None:
    slots, scoreboard = _slots(FakeStart(5))  # more often than a slot has rows
    before, now = _descriptors(), time.monotonic()
    slots.fill()
    for _ in range(5):
        slots.look_at_the_clock(now)
        assert (slots.children, _descriptors()) == ({}, before)
        assert scoreboard.slots()[0].processes == []
        (due,) = slots.due
        assert due == now + 1
        now = due
    slots.look_at_the_clock(now)
    (child,) = slots.children.values()
    assert (child.slot, slots.due) == (0, [])
    slots.bury(child.pid)


def test_a_worker_that_gets_no_pipe_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slots, _ = _slots(FakeStart(0))
    slots.fill()
    with monkeypatch.context() as patched:
        patched.setattr(os, "pipe", FakeStart(1))
        slots.look_at_the_clock(10.0)
    assert (slots.children, slots.due) == ({}, [11.0])
    slots.look_at_the_clock(11.0)
    (child,) = slots.children.values()
    slots.bury(child.pid)


def test_a_successor_that_cannot_be_forked_is_tried_again() -> None:
    start = FakeStart(0)
    slots, _ = _slots(start)
    rolling = Rolling(slots, lambda: None)
    old = slots.spawn(0)
    old.phase = Phase.READY
    start.failures = 2
    rolling.reload()
    rolling.go_on()
    assert (list(slots.children), rolling.is_reload) == ([old.pid], True)
    rolling.go_on()
    new = slots.successor_of(old)
    assert new is not None
    assert new.renews
    for each in (old, new):
        slots.bury(each.pid)


def test_an_admin_process_that_cannot_be_forked_is_tried_again() -> None:
    listener = Listener(Listen.parse("127.0.0.1:0"), 1, 1)
    try:
        admin = AdminChild(listener, FakeStart(1))
        admin.start()
        found = [(admin.is_alive, admin.due is None)]
        admin.look_at_the_clock(admin.due or 0)
        found.append((admin.is_alive, admin.due is None))
        assert found == [(False, False), (True, True)]
    finally:
        listener.close()


APP = """
import errno, os
from fastsmtp import Handler

fork, left = os.fork, [True, False, True]

def fork_or_fail():
    if left and left.pop():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = fork_or_fail

class App(Handler):
    pass
"""


def test_a_server_outlives_forks_that_fail(tmp_path: Path) -> None:
    """The first worker cannot be forked, then its successor in a reload."""
    (tmp_path / "app.py").write_text(APP)
    with running(tmp_path, "app:App", "--preload", "--store=discard:") as server:
        assert "worker 0 cannot be started: Resource temporarily unavailable; tried again in 1 s" in server.log
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("its successor cannot be started: Resource temporarily unavailable")
        server.greeted().deliver()
        server.wait_for_log("reload: done")
        server.greeted().deliver()
        assert server.stop() == 0
