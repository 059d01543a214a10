"""More workers, or fewer, without a connection lost; and which of them new connections go to.

More: the sockets of new slots begin to listen, but get nothing until their workers are ready. Fewer: new connections
are steered away from the leaving slots first, then their workers accept what is queued and let their sessions end.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Collection, Sequence
from typing import Final

from .control import RefusedError
from .listeners import Listener
from .rolling import REPLACED
from .slots import Slots

VACATED: Final = signal.SIGTTOU
"""Tells a worker to leave its slot, which nobody takes over."""

_log = logging.getLogger("fastsmtp.master")


class Scaling:
    """Changes how many slots are wanted.

    Args:
        slots: the workers.
        listeners: their sockets.
        changed: called when another number is wanted.
    """

    def __init__(self, slots: Slots, listeners: Sequence[Listener], changed: Callable[[], None]) -> None:
        self._slots = slots
        self._changed = changed
        self._listeners = listeners
        self._can_steer = True

    def to(self, wanted: int) -> str:
        """Have so many workers; returns what a person reads.

        Raises:
            RefusedError: that is too few or too many, or the kernel cannot steer connections away.
        """
        before, most = self._slots.wanted, self._slots.most
        if not 1 <= wanted <= most:
            raise RefusedError(f"workers: from 1 to {most} (max_workers), not {wanted}")
        if wanted < before:
            self._shrink(wanted)
        elif wanted > before:
            for listener in self._listeners:
                listener.widen(wanted)
            self._slots.want(wanted)
            self._slots.fill()
        answer = f"workers: {before} before, {wanted} wanted"
        _log.info("%s", answer)
        self._changed()
        return answer

    def try_to(self, wanted: int) -> None:
        """Likewise; the log says why it cannot be."""
        try:
            self.to(wanted)
        except RefusedError as error:
            _log.error("%s", error)

    def _shrink(self, wanted: int) -> None:
        try:
            for listener in self._listeners:
                listener.lead(range(wanted))
        except OSError as error:
            raise RefusedError(f"this kernel cannot steer connections away from a worker: {error.strerror}") from error
        self._slots.want(wanted)
        others_accept = all(listener.is_shared for listener in self._listeners)
        for child in self._slots.leavers():
            self._slots.retire(child, REPLACED if others_accept else VACATED)
        self.steer(())

    def steer(self, spared: Collection[int]) -> None:
        """Have new connections go to workers that are ready.

        Args:
            spared: slots whose workers do not accept at the moment.
        """
        wanted = range(self._slots.wanted)
        ready = [slot for slot in wanted if slot not in spared and self._slots.ready_in(slot)]
        for listener in self._listeners:
            try:
                listener.lead(ready or wanted)
            except OSError as error:
                if self._can_steer:
                    self._can_steer = False
                    _log.warning("this kernel cannot steer connections to some of the workers: %s", error.strerror)
