"""``postgresql://...``: a queue for any number of machines, in one PostgreSQL database or several.

Several databases are shards: an acceptor puts into the one that it can reach, consumers take from all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

import asyncpg

from . import postgresql_urls
from .contract import Mail, QueueError
from .postgresql_link import Connection, Link
from .postgresql_shard import PostgreSQLShard

_CHANNEL: Final = "fastsmtp"
_RING_EVERY: Final = 0.1  # seconds: a NOTIFY at each commit would make the commits queue for PostgreSQL's lock on it
_log = logging.getLogger("fastsmtp.queue")


class PostgreSQLBackend:
    """A queue in PostgreSQL.

    Args:
        location: what stands behind the first ``postgresql:``; more URLs may follow, separated by commas.
        slot: of the worker; it decides with which database it begins.

    Raises:
        ValueError: the location is malformed; see `postgresql_urls.check`.
    """

    def __init__(self, location: str, slot: int | None) -> None:
        postgresql_urls.check(location)
        self._shards = [
            PostgreSQLShard(dsn, postgresql_urls.title(dsn), self._arrived) for dsn in postgresql_urls.split(location)
        ]
        self._preferred = (slot or 0) % len(self._shards)  # whom the next batch goes to
        self._listening = [
            Link(dsn, postgresql_urls.title(dsn), self._listen) for dsn in postgresql_urls.split(location)
        ]
        self._rung = asyncio.Event()
        self._to_ring: set[PostgreSQLShard] = set()
        self._rings: dict[PostgreSQLShard, asyncio.Task[None]] = {}
        self._complained: dict[str, float] = {}

    async def __aenter__(self) -> PostgreSQLBackend:
        """Connects where it can; a server that is away is tried again later, for mail has to go on without it."""
        for shard in self._shards:
            try:
                await shard.open()
            except QueueError as error:
                _log.error("%s", error)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Returns when what was asked for is done."""
        if self._rings:
            await asyncio.wait(self._rings.values())
        for link in self._listening:
            await link.close()
        for shard in self._shards:
            await shard.close()

    async def shards(self) -> Sequence[PostgreSQLShard]:
        for shard in self._shards:
            if not shard.name:
                try:
                    await shard.open()
                except QueueError as error:
                    self._complain(error)
        return [shard for shard in self._shards if shard.name]

    @property
    def missing(self) -> Sequence[str]:
        return [shard.title for shard in self._shards if not shard.name]

    async def put(self, mails: Sequence[Mail]) -> Sequence[QueueError | None]:
        """As `Shard.put`; what one database does not take for a reason of its own is offered to the next one."""
        errors: list[QueueError | None] = [None] * len(mails)
        places = list(range(len(mails)))
        for _ in self._shards:
            found = await self._shards[self._preferred].put([mails[place] for place in places])
            for place, error in zip(places, found, strict=True):
                errors[place] = error
            places = [place for place, error in zip(places, found, strict=True) if error and _is_of_the_server(error)]
            if not places:
                break
            self._preferred = (self._preferred + 1) % len(self._shards)
        return errors

    def free_bytes(self) -> None:
        """Unknown: the disk is another machine's. One that is full is told by each message that does not fit."""

    # -- the bell -----------------------------------------------------------------------------------------------------

    async def wait(self, seconds: float) -> None:
        for link in self._listening:
            if not link.is_open:
                with suppress(QueueError):  # then the time is what we have
                    await link.do(_nothing)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()

    async def _listen(self, connection: Connection) -> None:
        await connection.add_listener(_CHANNEL, lambda *_: self._rung.set())
        self._rung.set()  # what came before we listened

    def _arrived(self, shard: PostgreSQLShard) -> None:
        """Rings soon, once for all that comes until then."""
        self._rung.set()
        self._to_ring.add(shard)
        if shard not in self._rings:
            task = asyncio.ensure_future(self._ring(shard))
            self._rings[shard] = task
            task.add_done_callback(lambda _: self._rings.pop(shard))

    async def _ring(self, shard: PostgreSQLShard) -> None:
        while shard in self._to_ring:
            self._to_ring.discard(shard)
            with suppress(QueueError):
                await shard.inward.do(lambda connection: connection.execute(f"NOTIFY {_CHANNEL}"))
            await asyncio.sleep(_RING_EVERY)

    def _complain(self, error: QueueError) -> None:
        """Says that a server is away, but not all the time."""
        now = monotonic()
        if now - self._complained.get(error.reason[:40], -60.0) >= 60.0:
            self._complained[error.reason[:40]] = now
            _log.warning("%s", error)


async def _nothing(connection: Connection) -> None:
    """That there is a connection is all that was wanted."""


def _is_of_the_server(error: QueueError) -> bool:
    """Whether another database might take what this one did not."""
    return not isinstance(error.__cause__, (ValueError, asyncpg.DataError))
