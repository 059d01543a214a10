"""Child processes, as the master sees them and as they see the master: how they end, and when the next one begins."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

NO_ROOM_DELAY: Final = 1.0  # seconds until the next attempt, when the system has no room for one more process

_STEADY: Final = 10.0  # seconds; a process that lives longer is no crash loop
_MAX_BACK_OFF: Final = 30.0  # seconds between two attempts to start what keeps dying
_PR_SET_PDEATHSIG: Final = 1


class Phase(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"


@dataclass(slots=True, eq=False)
class Child:
    """A worker process, as the master sees it."""

    pid: int
    slot: int
    row: int  # of the scoreboard; its region of the counts per client, too
    report: int  # our end of its pipe; -1 when it is closed
    started: float  # by the monotonic clock
    phase: Phase = Phase.STARTING
    replaces: Child | None = None  # told to leave when this one is ready
    renews: bool = False  # was started by a reload, with its settings
    aborted_at: float | None = None  # when the watchdog gave it up
    recycle_at: float = 0.0  # not to be replaced for its age or use before then


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a child that may have ended; CHLD tells."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


class BackOff:
    """At once the first time; what keeps dying young has to wait, longer each time."""

    def __init__(self) -> None:
        self._failures = 0  # one behind the other

    def delay(self, lived: float) -> float:
        """Seconds until the next attempt; the last process lived so many."""
        self._failures = self._failures + 1 if lived < _STEADY else 0
        return min(2.0 ** (self._failures - 2), _MAX_BACK_OFF) if self._failures > 1 else 0.0


def how_it_ended(code: int) -> str:
    """An exit code as a log says it; negative: a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # most real-time signals have no name
        return f"signal {-code}"


def die_with_master(master: int | None = None) -> None:
    """In a child: have the kernel send us TERM when the master dies.

    Args:
        master: its pid, as it was known before the fork. Without it a master that died before we were here goes
            unnoticed: None takes whoever is our parent by now.
    """
    master = os.getppid() if master is None else master
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != master:  # it died a moment ago
        os.kill(os.getpid(), signal.SIGTERM)
