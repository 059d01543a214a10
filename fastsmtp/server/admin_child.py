"""The admin process, as the master sees it: started first, restarted when it dies, ended last."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from ..config import Config, Listen
from .children import NO_ROOM_DELAY, BackOff, how_it_ended, send
from .listeners import Listener
from .privileges import Account
from .scoreboard import Scoreboard
from .status import Facts
from .wires import Wires

_END_TIME: Final = 3.0  # seconds to leave when it is told to; then it is killed
_BACKLOG: Final = 128  # connections that wait for accept
_log = logging.getLogger("fastsmtp.master")


def listen(config: Config, owner: Account | None) -> Listener | None:
    """The listener of the admin process, if there is to be one.

    Args:
        config: the settings.
        owner: of a unix socket; None is whoever we are.

    Raises:
        BindError: the address cannot be had.
    """
    if config.admin is None:
        return None
    return Listener(Listen.parse(config.admin), 1, _BACKLOG, mode=int(config.admin_mode, 8), owner=owner)


def be_admin(listener: Listener, scoreboard: Scoreboard, facts: Facts, wires: Wires) -> int:
    """In the child: be the admin process; returns the exit code."""
    # Here, not above: workers need none of it. No file of the user's stands in for a module that comes now.
    sys.path = [each for each in sys.path if each not in ("", os.getcwd())]
    from . import admin

    return admin.run(listener.socket_of(0), scoreboard, facts, wires)


class AdminChild:
    """Keeps an admin process.

    Args:
        listener: where it listens.
        fork: makes the process; returns its pid.

    Attributes:
        due: when there is something to do, by the monotonic clock; None if nothing is.
    """

    def __init__(self, listener: Listener, fork: Callable[[], int]) -> None:
        self.listener: Final = listener
        self._fork = fork
        self._pid = 0  # 0: it does not run
        self._started = 0.0
        self._back_off = BackOff()
        self._ending = False
        self._renewing = False
        self.due: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._pid != 0

    def start(self) -> None:
        """Start it; if it cannot be started now, it is due again a moment later."""
        self.due = None
        self._started = time.monotonic()
        try:
            self._pid = self._fork()
        except OSError as error:
            self.due = self._started + NO_ROOM_DELAY
            _log.error("admin cannot be started: %s; tried again in %g s", error.strerror, NO_ROOM_DELAY)

    def end(self) -> None:
        """Nobody needs it any more."""
        if not self._ending:
            self._ending = True
            self.due = time.monotonic() + _END_TIME
            self._signal(signal.SIGTERM)

    def renew(self) -> None:
        """Have another one, with the settings of now. Requests wait meanwhile; what is under way leaves."""
        if self._pid and not self._ending:
            self._renewing = True
            self._signal(signal.SIGTERM)

    def reopen_logs(self) -> None:
        """Log files were moved away."""
        self._signal(signal.SIGUSR1)

    def look_at_the_clock(self, now: float) -> None:
        """Do what is due."""
        if self.due is None or now < self.due:
            return
        if not self._ending:
            self.start()
        else:
            self.due = now + _END_TIME
            self._signal(signal.SIGKILL)

    def has_ended(self, pid: int, code: int) -> bool:
        """A process has ended; returns whether it was this one."""
        if pid != self._pid:
            return False
        self._pid = 0
        if self._renewing and not self._ending:
            self._renewing = False
            self.due = time.monotonic()
        elif not self._ending:
            now = time.monotonic()
            delay = self._back_off.delay(now - self._started)
            self.due = now + delay
            when = f"in {delay:g} s" if delay else "now"
            _log.error("admin (pid %d) died (%s); the next one starts %s", pid, how_it_ended(code), when)
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._pid:
            send(self._pid, number)
