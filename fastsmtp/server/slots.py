"""The slots, and the workers in them: who is started, who is ready, who has ended, and when the next one begins.

A slot has its sockets and its rows of the scoreboard whoever is in it: at most a worker that serves, its successor, and
a predecessor that takes long to leave.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from . import worker
from .children import NO_ROOM_DELAY, BackOff, Child, Phase, send
from .scoreboard import Row, Scoreboard

Start = Callable[[int, Row, int, int, bool], int]
"""Forks a worker: slot, row, the pipe's ends (the master's, the worker's), whether it is a successor; returns a pid."""

_log = logging.getLogger("fastsmtp.master")


class Slots:
    """The workers.

    Args:
        scoreboard: has a row for each.
        most: how many slots there may be.
        wanted: how many there are to be now; always the first ones.
        start: makes a process.

    Attributes:
        children: the workers that live, by pid.
        wanted: see above; set by `want`.
    """

    def __init__(self, scoreboard: Scoreboard, most: int, wanted: int, start: Start) -> None:
        self._scoreboard = scoreboard
        self._start = start
        self._restarts: dict[int, float] = {}  # slots without a worker: when to start one
        self._back_offs = [BackOff() for _ in range(most)]
        self.most: Final = most
        self.children: dict[int, Child] = {}
        self.wanted = 0
        self.want(wanted)

    def want(self, wanted: int) -> None:
        """There are to be so many workers from now on; `fill` and `leavers` say what is to be done."""
        self.wanted = wanted
        self._scoreboard.want(wanted)
        self._restarts = {slot: at for slot, at in self._restarts.items() if slot < wanted}

    # -- who is where -------------------------------------------------------------------------------------------------

    def ready_in(self, slot: int) -> Child | None:
        """The worker that serves a slot."""
        return next((each for each in self.children.values() if each.slot == slot and each.phase is Phase.READY), None)

    @property
    def is_starting(self) -> bool:
        """Whether a worker has still to become ready."""
        return any(each.phase is Phase.STARTING for each in self.children.values())

    @property
    def is_complete(self) -> bool:
        """Whether each slot has a worker that serves."""
        return all(self.ready_in(slot) for slot in range(self.wanted))

    def leavers(self) -> list[Child]:
        """Workers in slots that are not wanted any more, and that do not know yet."""
        return [each for each in self.children.values() if each.slot >= self.wanted and each.phase is not Phase.LEAVING]

    def successor_of(self, child: Child) -> Child | None:
        """Who is to take a worker's place."""
        return next((each for each in self.children.values() if each.replaces is child), None)

    def has_room(self, slot: int) -> bool:
        """Whether one more process can be in a slot."""
        return self._scoreboard.has_room(slot)

    # -- beginning ----------------------------------------------------------------------------------------------------

    def spawn(self, slot: int, replaces: Child | None = None) -> Child:
        """Start a worker; the slot must have room.

        Raises:
            OSError: the system lacks a process or a descriptor for it; everything is as before.
        """
        report, pipe = os.pipe()
        row = self._scoreboard.take(slot)
        try:
            pid = self._start(slot, row, report, pipe, replaces is not None)
        except OSError:
            self._scoreboard.release(row.number)
            os.close(report)
            raise
        finally:
            os.close(pipe)
        child = self.children[pid] = Child(pid, slot, row.number, report, time.monotonic(), replaces=replaces)
        return child

    def fill(self) -> None:
        """Have a worker started in each slot that has none."""
        taken = {each.slot for each in self.children.values() if each.phase is not Phase.LEAVING}
        for slot in range(self.wanted):
            if slot not in taken:
                self._restarts.setdefault(slot, 0.0)

    def fill_again(self, slot: int, lived: float) -> float:
        """The worker of a slot has died after so many seconds; returns when the next one starts, in seconds."""
        delay = self._back_offs[slot].delay(lived)
        if slot < self.wanted:
            self._restarts[slot] = time.monotonic() + delay
        return delay

    def look_at_the_clock(self, now: float) -> None:
        """Start who is due, and for whom there is room; who cannot be started now is due again a moment later."""
        for slot in [slot for slot, at in self._restarts.items() if now >= at and self.has_room(slot)]:
            del self._restarts[slot]
            try:
                self.spawn(slot)
            except OSError as error:
                self._restarts[slot] = now + NO_ROOM_DELAY
                _log.error("worker %d cannot be started: %s; tried again in %g s", slot, error.strerror, NO_ROOM_DELAY)

    @property
    def due(self) -> list[float]:
        """When the clock matters."""
        return [at for slot, at in self._restarts.items() if self.has_room(slot)]

    def give_up(self) -> None:
        """Nobody is started any more."""
        self._restarts.clear()

    # -- hearing and ending -------------------------------------------------------------------------------------------

    def hear(self, child: Child) -> tuple[bool, bool]:
        """A worker's pipe speaks, or has ended because the worker has.

        Returns:
            Whether it has become ready; whether it accepts no connections any more.
        """
        words = os.read(child.report, 64)
        is_ready = words.startswith(worker.READY) and child.phase is Phase.STARTING
        if is_ready:
            child.phase = Phase.READY
        is_shut = not words or words.endswith(worker.SHUT)
        if is_shut:
            os.close(child.report)
            child.report = -1
        return is_ready, is_shut

    def bury(self, pid: int) -> Child | None:
        """A process has ended: the worker that it was, None if it was none. Its row is free then."""
        child = self.children.pop(pid, None)
        if child is not None:
            if child.report >= 0:
                os.close(child.report)
            self._scoreboard.release(child.row)
        return child

    def close_reports(self) -> None:
        """In a child: the pipes are the master's."""
        for child in self.children.values():
            if child.report >= 0:
                os.close(child.report)

    def retire(self, child: Child, number: signal.Signals) -> None:
        """Tell a worker to leave while the server goes on; one that has not begun to serve yet just ends."""
        if child.pid in self.children:
            serves, child.phase, child.replaces = child.phase is Phase.READY, Phase.LEAVING, None
            send(child.pid, number if serves else signal.SIGTERM)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every worker."""
        for child in self.children.values():
            send(child.pid, number)
