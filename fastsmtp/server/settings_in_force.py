"""The settings in force, and how a reload brings others.

A reload reads everything anew: command line, environment, file. A wrong value leaves all as it is. The new settings
are those of the workers that the reload starts; they come into force when the first of them serves, so that a worker
which dies before is replaced by one like it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ..config import Config, ConfigError, Listen
from ..store import check_url

# What the master has made before its first fork, or cannot make any more.
FIXED: Final = (
    "admin",
    "admin_mode",
    "balance",
    "max_workers",
    "socket_mode",
    "user",
    "group",
    "umask",
    "pidfile",
    "preload",
    "auth_failures_window",
    "log_file",
    "access_log_file",
)
_log = logging.getLogger("fastsmtp.master")


class Settings:
    """Which settings hold.

    Args:
        config: those of the start.
        read_anew: reads them again; None where they cannot change.

    Attributes:
        current: in force.
        coming: of a reload that is under way; None if there is none, or its settings are in force already.
    """

    def __init__(self, config: Config, read_anew: Callable[[], Config] | None) -> None:
        self.current = config
        self.coming: Config | None = None
        self._read_anew = read_anew

    @property
    def for_a_new_worker(self) -> Config:
        """What a worker gets that a reload starts."""
        return self.coming or self.current

    def read_anew(self) -> None:
        """Read the settings for a reload.

        Raises:
            ConfigError: one is wrong.
        """
        if self._read_anew is None:
            return
        found = self._read_anew()
        found = replace(found, store=found.effective_store)
        try:
            if found.store:
                check_url(found.store)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.coming = self._with_what_cannot_change(found)

    def come_into_force(self) -> Config:
        """A worker serves with the coming settings; returns those of before."""
        before = self.current
        self.current, self.coming = self.for_a_new_worker, None
        return before

    def stay(self) -> None:
        """The reload was given up."""
        self.coming = None

    def _with_what_cannot_change(self, found: Config) -> Config:
        current = self.current
        kept = [name for name in FIXED if getattr(found, name) != getattr(current, name)]
        if _addresses(found) != _addresses(current):
            kept.append("listen")
        for name in kept:
            _log.warning("%s cannot change without a restart: it stays as it was", name)
        return replace(found, **{name: getattr(current, name) for name in kept})


def _addresses(config: Config) -> list[str]:
    """Listeners may change their options, but not where they are."""
    return [Listen.parse(text).address for text in config.listen]
