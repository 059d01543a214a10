"""Files in place of standard output and standard error, opened anew when somebody has moved them away.

The file takes the place of the descriptor, so that whoever writes to it (the log, the access log, faulthandler, a hook
that prints) writes to the file, and need not know when it is another one. Every process has to open it anew for itself.
"""

from __future__ import annotations

import errno
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
            owner: who is to own files that are made now, and what links are not followed for; None is whoever we are.

        Raises:
            OSError: one cannot be opened, or may not; its `filename` says which.
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
    found = _open(path, os.O_CREAT) if owner is None else _open_for(owner, path)
    try:
        os.dup2(found, descriptor)
    finally:
        os.close(found)


def _open(path: str, flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o640)


def _open_for(owner: Account, path: str) -> int:
    """Open a file as root that somebody else is to own, who may have put something in its place.

    What we make is given away: without its owner's rights it could not be opened anew. What was there is never given
    away, and written to only if it cannot be a file of root's that has got a second name.

    Raises:
        OSError: it may be such a file.
    """
    try:
        found = _open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
    except FileExistsError:
        return _open_existing(owner, path)
    try:
        os.fchown(found, owner.uid, owner.gid)
    except OSError:
        os.close(found)
        raise
    return found


def _open_existing(owner: Account, path: str) -> int:
    is_link = os.path.islink(path)
    # With O_NOFOLLOW also here: what was no link a moment ago may be one now.
    found = _open(path, 0 if is_link else os.O_NOFOLLOW)
    what = os.fstat(found)
    if stat.S_ISREG(what.st_mode):
        is_safe = what.st_uid == owner.uid or (what.st_nlink == 1 and not is_link) or _is_standard(what)
    else:
        is_safe = not is_link or stat.S_ISCHR(what.st_mode) or stat.S_ISFIFO(what.st_mode)
    if not is_safe:
        os.close(found)
        raise OSError(errno.ELOOP, "is a link to a file of somebody else's", path)
    return found


def _is_standard(what: os.stat_result) -> bool:
    """Whether a file is open already as standard output or error: that is where /dev/stdout leads to."""
    return any(os.path.samestat(what, os.fstat(number)) for number in (1, 2))
