"""``queue:PATH``: a directory with a SQLite database for each worker slot."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from time import monotonic
from typing import Final

from fastsmtp.protocol.replies import TEMPORARY_FAILURE

from .contract import Mail, QueueError
from .sqlite_bell import Bell
from .sqlite_database import make_directory
from .sqlite_shard import SQLiteShard

_log = logging.getLogger("fastsmtp.queue")
_RETRY_DELAY: Final = 5.0  # seconds; each attempt takes a thread, and says in the log why it failed
_SLOT: Final = re.compile(r"\d{1,4}", re.ASCII)


class SQLiteBackend:
    """A queue in a directory of this machine, for any number of processes.

    Args:
        location: the directory; its parent must exist.
        slot: the worker's slot, whose database is ours; None: we own none, and put into the first one.
        create: whether the directory is made if it is not there.

    Raises:
        ValueError: the location is no path; see `check`.
    """

    def __init__(self, location: str, slot: int | None, create: bool = True) -> None:
        self.check(location)
        self._create = create
        self._path = os.path.abspath(location)
        self._slot = slot
        self._shards: dict[str, SQLiteShard] = {}
        self._bell = Bell(os.path.join(self._path, "bell"))
        self._missing: set[str] = set()  # slots whose database cannot be opened
        self._retry_at = 0.0  # by the monotonic clock: when these are tried again
        self._seen = 0  # when the directory was looked at, by its own clock

    @staticmethod
    def check(location: str) -> None:
        """Validates a location without touching the disk.

        Raises:
            ValueError: it is empty, holds a NUL, or looks like a URL with a host.
        """
        if not location or "\0" in location:
            raise ValueError(f"store {'queue:' + location!r}: needs a path, for example queue:./queue")
        if location.startswith("//") and not location.startswith("///"):
            raise ValueError(f"store 'queue:{location}': write queue:PATH, without //")

    @staticmethod
    def describe(location: str) -> str:
        return f"queue {location}"

    async def __aenter__(self) -> SQLiteBackend:
        """Opens our database, and makes it if it is not there.

        Raises:
            QueueError: one cannot be used; the reason names the path.
        """
        try:
            if self._create:
                make_directory(self._path)
            self._bell.open()
        except OSError as error:
            raise QueueError(TEMPORARY_FAILURE, f"queue {self._path}: {error}") from error
        try:
            if self._slot is not None:
                await self._open(str(self._slot), owned=True)
        except BaseException:
            self._bell.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Returns when the threads have done what they were given."""
        self._bell.close()
        for shard in self._shards.values():
            await shard.close()

    async def _open(self, slot: str, owned: bool) -> None:
        shard = SQLiteShard(os.path.join(self._path, slot), owned, self._bell.ring)
        try:
            await shard.open()
        except BaseException:
            await shard.close()
            raise
        self._shards[slot] = shard

    async def shards(self) -> Sequence[SQLiteShard]:
        """Opens databases that have come, too: the server has got more workers."""
        changed = os.stat(self._path).st_mtime_ns
        if changed != self._seen or (self._missing and monotonic() >= self._retry_at):
            self._seen = changed
            self._retry_at = monotonic() + _RETRY_DELAY
            slots = sorted(filter(_SLOT.fullmatch, os.listdir(self._path)))
            self._missing.intersection_update(slots)
            for slot in slots:
                if slot not in self._shards:
                    await self._open_another(slot)
        return list(self._shards.values())

    async def _open_another(self, slot: str) -> None:
        self._missing.discard(slot)
        try:
            await self._open(slot, owned=False)
        except QueueError as error:  # the others go on
            self._missing.add(slot)
            _log.error("%s", error)

    @property
    def missing(self) -> Sequence[str]:
        return [os.path.join(self._path, slot) for slot in sorted(self._missing)]

    async def put(self, mails: Sequence[Mail]) -> Sequence[QueueError | None]:
        slot = str(self._slot or 0)
        if slot not in self._shards:  # the first mail comes from somebody who is no worker
            await self._open(slot, owned=False)
        return await self._shards[slot].put(mails)

    async def wait(self, seconds: float) -> None:
        await self._bell.wait(seconds)

    def free_bytes(self) -> int | None:
        """What an ordinary user may still write to its file system."""
        try:
            found = os.statvfs(self._path)
        except OSError:  # the next message will meet it, and say what it is
            return None
        return found.f_bavail * found.f_frsize
