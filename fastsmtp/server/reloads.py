"""A reload from its beginning to its end: settings are read anew, workers replaced, and how it went is told.

One that cannot be done in full is not done at all: with a wrong setting nothing happens, and if the first new worker
does not come up, all old ones stay.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from ..config import Config, ConfigError
from .children import Child, how_it_ended
from .columns import RELOAD_FAILURE, RELOADS_DONE, RELOADS_GIVEN_UP
from .notice import Notice
from .rolling import Rolling
from .settings_in_force import Settings
from .slots import Slots

_RECYCLE_AGAIN: Final = 60.0  # seconds, after a successor that did not start
_log = logging.getLogger("fastsmtp.master")


class Reloads:
    """Reloads, one at a time; a second one begins the first one anew.

    Args:
        settings: in force, and coming.
        slots: the workers.
        cells: of the master's row.
        in_force: called with settings that have come into force, and those of before.
        over: called at the end, with the reason if it was given up, else with nothing.

    Attributes:
        settings: as above.
        rolling: replaces workers.
        notice: why the last reload was given up.
    """

    def __init__(
        self,
        settings: Settings,
        slots: Slots,
        cells: memoryview[int],
        in_force: Callable[[Config, Config], None],
        over: Callable[[str], None],
    ) -> None:
        self.settings: Final = settings
        self.notice: Final = Notice()
        self.rolling: Final = Rolling(slots, self._done)
        self._slots = slots
        self._cells = cells
        self._in_force = in_force
        self._tell = over
        self._tried: Config | None = None  # what the last successor was started with

    def begin(self) -> None:
        """Read the settings, and replace all workers."""
        try:
            self.settings.read_anew()
        except ConfigError as error:
            _log.error("reload given up, everything stays as it is: %s", error)
            self._over(RELOADS_GIVEN_UP, str(error))
            return
        _log.info("reload: replacing %d workers", self._slots.wanted)
        self.rolling.reload()

    def config_for(self, renews: bool) -> Config:
        """The settings of a worker that starts; `renews`: whether it is to replace one that serves."""
        if renews and self.rolling.is_reload:
            self._tried = self.settings.coming
            return self.settings.for_a_new_worker
        return self.settings.current

    def take_over(self, child: Child) -> None:
        """A worker serves."""
        if child.renews and self._tried is self.settings.coming:  # else another reload has begun since it was started
            self._come_into_force()
        self.rolling.take_over(child)

    def did_not_start(self, child: Child, old: Child, code: int) -> None:
        """A successor has ended before it served."""
        how = how_it_ended(code)
        old.recycle_at = time.monotonic() + _RECYCLE_AGAIN
        given_up = ", reload given up" if self.rolling.is_reload else ""
        _log.error("worker %d: its successor did not start (%s); the old one stays%s", child.slot, how, given_up)
        self.give_up(how)

    def give_up(self, how: str) -> None:
        """A new worker has ended before it served: whatever was to be replaced stays."""
        if self.rolling.give_up():
            self._over(RELOADS_GIVEN_UP, f"a new worker did not start ({how}); the log says why")

    def _come_into_force(self) -> None:
        if self.settings.coming is not None:
            before = self.settings.come_into_force()
            self._in_force(self.settings.current, before)

    def _done(self) -> None:
        self._come_into_force()  # also if no worker lived that could be replaced: the next one gets them
        _log.info("reload: done")
        self._over(RELOADS_DONE, "")

    def _over(self, outcome: int, reason: str) -> None:
        self.settings.stay()
        self.notice.write(reason)
        self._cells[RELOAD_FAILURE] = outcome == RELOADS_GIVEN_UP
        self._cells[outcome] += 1
        self._tell(reason)
