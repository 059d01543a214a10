"""Replacing workers one by one: start, wait until ready, then stop the old one.

Serves a reload, and what has been used up (`recycling`). If a new worker does not become ready, the old one stays and
whatever else was to be replaced is left alone.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Final

from .children import Child
from .slots import Slots

REPLACED: Final = signal.SIGUSR2
"""Tells a worker to leave because its successor serves."""

_log = logging.getLogger("fastsmtp.master")


class Rolling:
    """What is to be replaced.

    Args:
        slots: the workers.
        over: called when a reload is done.
    """

    def __init__(self, slots: Slots, over: Callable[[], None]) -> None:
        self._slots = slots
        self._over = over
        self._queue: list[int] = []
        self._handing_over: dict[Child, Child] = {}  # who has to stop accepting, and who has begun to
        self._said = ""  # so that waiting is logged once
        self.is_reload = False

    def reload(self) -> None:
        """Replace every worker."""
        self.is_reload = True
        self._queue = list(range(self._slots.wanted))
        self.go_on()

    def recycle(self, child: Child, reason: str) -> bool:
        """Replace one worker; returns whether that was new."""
        if child.slot in self._queue or self._slots.successor_of(child):
            return False
        _log.info("worker %d (pid %d) is replaced: %s", child.slot, child.pid, reason)
        self._queue.append(child.slot)
        self.go_on()
        return True

    def give_up(self) -> bool:
        """Leave the rest as it is; returns whether that was a reload."""
        was_reload, self.is_reload = self.is_reload, False
        self._queue.clear()
        return was_reload

    def take_over(self, child: Child) -> None:
        """A successor serves: its predecessor may go."""
        if child.replaces is not None:
            if child.replaces.pid in self._slots.children:
                self._handing_over[child.replaces] = child
            self._slots.retire(child.replaces, REPLACED)
            child.replaces = None

    def has_shut(self, child: Child) -> None:
        """A worker accepts no connections any more, or has ended; only now its successor has all of them."""
        if successor := self._handing_over.pop(child, None):
            _log.info("worker %d: pid %d took over", successor.slot, successor.pid)
            self.go_on()

    def go_on(self) -> None:
        """Replace the next worker whose slot has room; one that lacks it waits until a predecessor has left.

        Called whenever something has changed, and once a second: a successor that could not be forked is tried again.
        """
        if not (self._queue or self.is_reload) or self._slots.is_starting or self._handing_over:
            return
        ready = {slot: child for slot in self._queue if (child := self._slots.ready_in(slot))}
        self._queue = [slot for slot in self._queue if slot in ready]  # who starts anyway is new
        for slot in self._queue:
            if self._slots.has_room(slot):
                self._start_successor(ready[slot])
                return
        if self._queue:
            prefix = "reload: " if self.is_reload else ""
            self._say(f"{prefix}workers {self._queue} have two predecessors that still leave: waiting")
        elif self.is_reload:
            self.is_reload = False
            self._over()

    def _start_successor(self, child: Child) -> None:
        try:
            self._slots.spawn(child.slot, replaces=child).renews = self.is_reload
        except OSError as error:
            self._say(
                f"worker {child.slot}: its successor cannot be started: {error.strerror}; tried again every second"
            )
        else:
            self._queue.remove(child.slot)
            self._said = ""

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            _log.info("%s", text)
