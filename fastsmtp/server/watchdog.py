"""Finds workers whose event loop does not turn any more, and ends them.

The loop stamps its row of the scoreboard every second (`pulse`). The stamp comes from the loop, not from a thread: a
hook that holds the interpreter, a loop that a hook blocks and a process that was stopped all look the same, and all
serve nobody. First comes SIGABRT: faulthandler writes the stacks of all threads into the log, from C, so that it needs
no interpreter. Who does not die of that, as a stopped process cannot, is killed.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable
from typing import Final

from .children import Child, Phase, send
from .columns import STAMP
from .scoreboard import Scoreboard

INTERVAL: Final = 1.0  # seconds between two looks
_AWAY: Final = 5.0  # seconds without a look: it was us who did not run
_START_TIME: Final = 60.0  # seconds for a worker to become ready: imports, lifespan, store
_DUMP_TIME: Final = 3.0  # seconds to write the stacks and die
_STALLED: Final = 3.0  # seconds without a stamp, from which on new connections go elsewhere
_log = logging.getLogger("fastsmtp.master")


class Watchdog:
    """Looks at the stamps once a second.

    Args:
        scoreboard: has them.
        now: by the monotonic clock, as all times here are.
    """

    def __init__(self, scoreboard: Scoreboard, now: float) -> None:
        self._scoreboard = scoreboard
        self._looked = now
        self._awake = now  # since when we run without a break

    def look(self, children: Iterable[Child], timeout: float, now: float) -> int:
        """End who hangs.

        Args:
            children: the workers.
            timeout: seconds that a loop may take for one turn.

        Returns:
            How many were found to hang, and had not been before.
        """
        if now - self._looked > _AWAY:  # we were stopped, and so were they: a suspended machine, a frozen cgroup
            self._awake = now
        self._looked = now
        return sum(self._look_at(child, timeout, now) for child in children)

    def is_stalled(self, child: Child, now: float) -> bool:
        """Whether a worker's loop has not turned for a while: no reason to kill it yet, but to spare it."""
        return self._silence(child, now) > _STALLED

    def _silence(self, child: Child, now: float) -> float:
        """Seconds since a worker was heard of."""
        stamp = self._scoreboard.cells_of(child.row)[STAMP] / 1000
        return now - max(stamp, child.started, self._awake)

    def _look_at(self, child: Child, timeout: float, now: float) -> bool:
        if child.aborted_at is not None:
            if now >= child.aborted_at + _DUMP_TIME:
                send(child.pid, signal.SIGKILL)
            return False
        if child.phase is Phase.STARTING:
            timeout = max(timeout, _START_TIME)
        silence = self._silence(child, now)
        if silence < timeout:
            return False
        what = "is not ready" if child.phase is Phase.STARTING else "hangs: its event loop has not turned"
        _log.critical("worker %d (pid %d) %s for %.0f s: killed", child.slot, child.pid, what, silence)
        child.aborted_at = now
        send(child.pid, signal.SIGABRT)
        return True
