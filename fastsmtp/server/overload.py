"""Overload: when a worker says that it has too much to do, and how, before it falls over.

Three causes are looked at: the loop's lag, hooks that wait for a thread, memory. Each has three thresholds. At the
first MAIL is refused (451 4.3.2, or 452 4.3.1 for memory), so that sessions which have begun a message can end it; at
the second new connections get 421 4.3.2; at the third none is accepted any more: they wait in the kernel. So does
everybody while descriptors are scarce, for a connection that is accepted without one is lost.

A level is reached when two looks in a row agree, and left when all looks of a second were a fifth below: one long turn
is no overload, and nothing flutters. Each change is logged once. Runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from ..config import Config
from ..protocol.replies import INSUFFICIENT_STORAGE, OVERLOADED
from . import descriptors
from .columns import OVERLOAD, PAUSED
from .doors import Doors
from .memory_use import MemoryUse
from .reception import Reception

REFUSE_MAIL, TURN_AWAY, PAUSE = 1, 2, 3
_INTERVAL: Final = 0.25  # seconds between two looks
_LOOKS: Final = 4  # that a level is kept for: a second
_LESS: Final = 0.8  # of a threshold, below which its level is left
_DOING: Final = {
    0: "all is well again",
    REFUSE_MAIL: "MAIL is refused",
    TURN_AWAY: "MAIL and connections are refused",
    PAUSE: "connections are not accepted",
}
_log = logging.getLogger("fastsmtp.worker")


class Cause(NamedTuple):
    """Something that there can be too much of.

    Attributes:
        name: for the log.
        shown: a value, for the log.
        thresholds: of the three levels, ascending.
    """

    name: str
    shown: str
    thresholds: tuple[float, float, float]


def causes(config: Config) -> tuple[Cause, Cause, Cause]:
    """Lag, pending hooks, memory, with the thresholds that settings give them."""
    lag, hooks, high = config.max_loop_lag, config.max_pending_hooks, config.memory_high
    left = 1 - high
    return (
        Cause("loop lag", "{:.2f} s", (lag, 2 * lag, 4 * lag)),
        # `data` and `closed` hooks are always taken, so there can be more than the limit.
        Cause("pending hooks", "{:.0f}", (hooks, 1.25 * hooks, 2 * hooks)),
        Cause("memory in use", "{:.0%}", (high, high + left / 2, high + 3 * left / 4)),
    )


class Level:
    """How bad one cause is.

    Args:
        cause: what is looked at.
    """

    def __init__(self, cause: Cause) -> None:
        self.cause: Final = cause
        self._looks: deque[float] = deque((0.0,) * _LOOKS, _LOOKS)
        self.level = 0

    def look(self, value: float) -> int:
        """The level after one more look."""
        self._looks.append(value)
        agreed, worst = min(self._looks[-1], self._looks[-2]), max(self._looks)
        reached = sum(agreed >= each for each in self.cause.thresholds)
        kept = sum(worst >= _LESS * each for each in self.cause.thresholds)
        self.level = max(reached, min(self.level, kept))
        return self.level

    def __str__(self) -> str:
        return f"{self.cause.name} {self.cause.shown.format(self._looks[-1])}"


class Overload:
    """Looks four times a second, and acts on what it sees; a look takes about 10 us, once a second 100 us.

    Args:
        loop: of the worker.
        config: has the thresholds.
        reception: has the connections.
        doors: where they come in.
        cells: of the worker's row.
        memory: says how much is in use, as a part.
        descriptors_left: says how many more files may be opened.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        reception: Reception,
        doors: Doors,
        cells: memoryview[int],
        memory: Callable[[], float] | None = None,
        descriptors_left: Callable[[], int] = descriptors.left,
    ) -> None:
        self._loop = loop
        self._reception = reception
        self._pool = reception.dispatcher.pool
        self._doors = doors
        self._cells = cells
        self._memory = memory or MemoryUse().share
        self._descriptors_left = descriptors_left
        self._lag, self._hooks, self._in_use = (Level(cause) for cause in causes(config))
        self._level = 0
        self._scarce = False  # descriptors are
        self._looks = 0
        self._opening: asyncio.Task[None] | None = None
        self._due = monotonic()
        reception.when_scarce = self._run_out
        self._timer = loop.call_soon(self._look)

    def stop(self) -> None:
        """The worker is about to leave, and accepts what waits: whoever comes in is told how things are."""
        self._timer.cancel()
        if self._opening:
            self._opening.cancel()

    def _look(self) -> None:
        now, was_due = monotonic(), self._due
        self._due = now + _INTERVAL
        self._timer = self._loop.call_later(_INTERVAL, self._look)
        self._lag.look(max(0.0, now - was_due))
        self._hooks.look(self._pool.pending)
        if self._looks % _LOOKS == 0:
            self._in_use.look(self._memory())
        self._looks += 1
        self._look_at_descriptors()
        self._be(max(self._lag.level, self._hooks.level, self._in_use.level))
        self._open_or_shut()

    def _be(self, level: int) -> None:
        if level == self._level:
            return
        why = "; ".join(str(each) for each in (self._lag, self._hooks, self._in_use) if each.level)
        _log.warning("overload%s: %s", f", {why}" if why else " is over", _DOING[level])
        self._level = level
        self._cells[OVERLOAD] = level
        of_memory = self._in_use.level == level
        refusal = (INSUFFICIENT_STORAGE if of_memory else OVERLOADED) if level >= REFUSE_MAIL else None
        for entrance in self._reception.entrances:
            entrance.be_overloaded(refusal)
        self._reception.turns_away = level >= TURN_AWAY

    # -- descriptors --------------------------------------------------------------------------------------------------

    def _look_at_descriptors(self) -> None:
        """With few left nothing is accepted, with twice as many it is again."""
        left, few = self._descriptors_left(), descriptors.few()
        self._reception.scarce_at = len(self._reception.connections) + max(0, left - few)
        scarce = left < (2 * few if self._scarce else few)
        if scarce != self._scarce:
            self._scarce = scarce
            _log.warning("%d descriptors left: %s", left, _DOING[PAUSE if scarce else self._level])

    def _run_out(self) -> None:
        """Connections have come faster than we look."""
        if self._doors.are_open:
            self._look_at_descriptors()
            self._open_or_shut()

    def _open_or_shut(self) -> None:
        if self._level < PAUSE and not self._scarce:
            if not self._doors.are_open and (self._opening is None or self._opening.done()):
                self._opening = self._loop.create_task(self._open())
        else:
            self._doors.shut()
            self._cells[PAUSED] = 1

    async def _open(self) -> None:
        try:
            await self._doors.open()
            self._cells[PAUSED] = 0
        except OSError as error:  # the next look tries again
            _log.debug("connections cannot be accepted yet: %s", error)
