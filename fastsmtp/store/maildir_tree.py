"""The directories of a Maildir: made durable, checked, and swept of what dead processes left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from fastsmtp.protocol.replies import TEMPORARY_FAILURE

from .contract import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .maildir_names import Names

SUBDIRECTORIES: Final = ("tmp", "new", "cur")
STALE_AFTER: Final = 36 * 3600  # seconds; the age at which the Maildir convention removes files in tmp/
_ADVICE: Final = "create it for the server's user (uid %d) or name another place for the store"


def prepare(path: str, names: Names, now: float) -> None:
    """Makes a Maildir ready at start-up.

    Raises:
        StoreError: it cannot be made, written or synced; the reason names the path and what to do.
    """
    try:
        make(path)
        for subdirectory in ("tmp", "new"):  # cur/ is the readers' affair
            _check_writable(os.path.join(path, subdirectory))
    except OSError as exc:
        place = exc.filename or path
        advice = _ADVICE % os.geteuid()
        raise StoreError(TEMPORARY_FAILURE, f"Maildir {path}: {place}: {exc.strerror}; {advice}") from exc
    _sweep(os.path.join(path, "tmp"), names, now)


def make(path: str) -> None:
    """Creates what is missing of a Maildir, and syncs its directory entries.

    The parent must exist: a volume that is not mounted shall be an error, not mail on the wrong disk. Directories
    that exist are synced too: another worker may have made them a moment ago and not have come to the sync yet.
    """
    created = _make_directory(path)
    try:
        sync_directory(os.path.dirname(path))
    except PermissionError:  # a parent that we may not read has not been changed by us
        if created:
            raise
    for subdirectory in SUBDIRECTORIES:
        _make_directory(os.path.join(path, subdirectory))
    sync_directory(path)


def sync_directory(path: str) -> None:
    """Makes the entries of a directory durable. Some file systems cannot; they show it here, before any 250."""
    with _opened(path) as directory:
        try:
            os.fsync(directory)
        except OSError as exc:
            raise OSError(exc.errno, f"cannot be synced: {exc.strerror}", path) from exc


@contextlib.contextmanager
def open_places(path: str) -> Iterator[tuple[int, int]]:
    """Descriptors of ``tmp/`` and ``new/``, made anew if somebody removed them.

    A batch uses the same two from its first file to its sync, so what is synced is what was renamed into, even if
    the path means another directory by then.
    """
    places = [os.path.join(path, subdirectory) for subdirectory in SUBDIRECTORIES]
    if not all(map(os.path.isdir, places)):
        make(path)
    with _opened(places[0]) as tmp, _opened(places[1]) as new:
        yield tmp, new


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_writable(path: str) -> None:
    # Not os.access with real ids: a worker that dropped its privileges is asked about those that it has left.
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, "cannot be read and written", path)


def _make_directory(path: str) -> bool:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    return True


def _sweep(tmp: str, names: Names, now: float) -> None:
    """Removes leftovers. What cannot be removed, or is being removed by another worker, is no reason not to start."""
    with contextlib.suppress(OSError), os.scandir(tmp) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if names.is_orphan(entry.name) or _is_stale(entry.stat(follow_symlinks=False), now):
                    os.unlink(entry.path)


def _is_stale(status: os.stat_result, now: float) -> bool:
    # The convention says "not accessed"; with noatime that would be a file's birth, so writing counts too.
    return stat.S_ISREG(status.st_mode) and now - max(status.st_atime, status.st_mtime) > STALE_AFTER
