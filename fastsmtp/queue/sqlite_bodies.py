"""Large contents beside a SQLite database, a file each: a large row would be written twice, and fill the log.

A file and its name are synced before the transaction that refers to it is committed. A crash in between leaves a file
that nobody refers to; the sweep at the next start removes it. Who writes files holds a shared lock until its commit,
and the sweep holds the lock alone, so it never meets a file whose commit is still to come.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final


class DamagedBodyError(OSError):
    """A content is not the one that was written."""


_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Bodies:
    """The directory of the files. Belongs to the thread that writes to the database."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_writing = False  # we hold the lock
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """May be called again."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While files are written, and until the transaction that refers to them is over."""
        try:
            yield
        finally:
            if self._is_writing:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
                self._is_writing = False

    def write(self, trace: bytes, content: bytes | memoryview) -> str:
        """Writes a file within `writing`; returns its name. It lasts once `sync` has returned.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        if not self._is_writing:  # most transactions have no files, and need no lock
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            self._is_writing = True
        name = os.urandom(12).hex()
        path = os.path.join(self._path, name)
        descriptor = os.open(path, _NEW_FILE, 0o600)
        try:
            try:
                _write_all(descriptor, memoryview(trace))
                _write_all(descriptor, memoryview(content))
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            self.remove([name])
            raise
        return name

    def sync(self) -> None:
        """Makes the names of the files durable."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, name: str, size: int) -> memoryview:
        """The content of a file, mapped: it stays readable when the file is removed.

        Args:
            name: of the file.
            size: octets that were written.

        Raises:
            FileNotFoundError: it is not there.
            DamagedBodyError: it has another size.
            OSError: it cannot be read now.
        """
        with open(os.path.join(self._path, name), "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise DamagedBodyError(f"{name} has {found} octets, and should have {size}")
            return memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))

    def remove(self, names: Collection[str]) -> None:
        """Removes files; what cannot be removed is left to the sweep."""
        for name in names:
            with suppress(OSError):
                os.unlink(os.path.join(self._path, name))

    def sweep(self, referred: Callable[[], Iterable[str]]) -> int:
        """Removes files that are not among those referred to, which are asked for under the lock; returns how many."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            orphans = set(os.listdir(self._path)).difference(referred())
            self.remove(orphans)
            return len(orphans)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def _write_all(descriptor: int, octets: memoryview) -> None:
    while octets:
        octets = octets[os.write(descriptor, octets) :]
