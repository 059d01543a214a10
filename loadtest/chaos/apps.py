"""Handlers that behave badly on request, and name their worker in the banner."""

from __future__ import annotations

import ctypes
import os
import time

from fastsmtp import Handler, Message, Recipient, Reply, Session, inline

HELD_SECONDS = 1000


class Pids(Handler):
    """Names the worker in the banner."""

    @inline
    def welcome(self, session: Session) -> Reply:
        return Reply(220, None, f"pid {os.getpid()}")


class Hanging(Pids):
    """The recipient says what hangs."""

    @inline
    def noop(self, session: Session, argument: str) -> None:
        """``NOOP gil`` holds the interpreter from C; ``NOOP loop`` blocks the loop in Python."""
        if argument == "gil":
            ctypes.PyDLL(None).sleep(HELD_SECONDS)  # PyDLL keeps the GIL while C runs
        if argument == "loop":
            time.sleep(HELD_SECONDS)

    def rcpt(self, session: Session, recipient: Recipient) -> None:
        """``<never@...>`` does not return."""
        if recipient.local == "never":
            time.sleep(HELD_SECONDS)


class Slow(Pids):
    """A hook that works for a while when the message is complete."""

    def data(self, session: Session, message: Message) -> None:
        if message.recipients[0].local == "slow":
            time.sleep(1.5)


def _work(steps: int) -> int:
    """So much work, whoever else wants the interpreter meanwhile."""
    number = 1
    for _ in range(steps):
        number = number * 31 & 0xFFFFFF
    return number


def _steps_of(seconds: float) -> int:
    """How many steps take so long where nobody disturbs; the quickest of some tries."""
    tries = []
    for _ in range(5):
        began = time.thread_time()
        _work(50_000)
        tries.append(time.thread_time() - began)
    return int(50_000 * seconds / min(tries))


class Burning(Handler):
    """Every message costs 5 ms of CPU in a thread."""

    steps = _steps_of(0.005)

    def data(self, session: Session, message: Message) -> None:
        _work(self.steps)
