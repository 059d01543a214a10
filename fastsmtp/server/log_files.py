"""Files in place of standard output and standard error, opened anew when somebody has moved them away.

The file takes the place of the descriptor, so that whoever writes to it (the log, the access log, faulthandler, a hook
that prints) writes to the file, and need not know when it is another one. Every process has to open it anew for itself.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from typing import Final

from ..config import Config
from .privileges import Account

_STANDARD: Final = "-"
_log = logging.getLogger("fastsmtp.master")


class LogFiles:
    """The log and the access log of this process.

    Args:
        config: names the files.
    """

    def __init__(self, config: Config) -> None:
        # By descriptor. Absolute, for an application may change the directory.
        named = {1: config.access_log_file, 2: config.log_file}
        self._paths: Mapping[int, str] = {
            descriptor: os.path.abspath(path) for descriptor, path in named.items() if path != _STANDARD
        }

    def open(self, owner: Account | None = None) -> None:
        """Begin to write to the files.

        Args:
            owner: who is to own files that are made now; None is whoever we are.

        Raises:
            OSError: one cannot be opened; its `filename` says which.
        """
        for descriptor, path in self._paths.items():
            _put(path, descriptor, owner)

    def reopen(self) -> None:
        """Go on in files of these names, which may be new; one that cannot be opened leaves the old one in use."""
        for descriptor, path in self._paths.items():
            try:
                _put(path, descriptor, None)
            except OSError as error:
                _log.error("%s: cannot be opened anew: %s; the old file stays in use", path, error.strerror)


def _put(path: str, descriptor: int, owner: Account | None) -> None:
    found = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        # A device is not ours to give away. Without its owner's rights we could not open the file anew.
        if owner is not None and stat.S_ISREG(os.fstat(found).st_mode):
            os.fchown(found, owner.uid, owner.gid)
        os.dup2(found, descriptor)
    finally:
        os.close(found)
