"""One connection to one PostgreSQL server, made anew when it is lost.

Statements wait for each other. While the server is away, every use fails at once until the back-off is over, so that
clients get their 451 soon instead of hanging. Each connection is checked before anything is written over it: commits
must be durable when they are reported, or the queue does not work at all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg

from fastsmtp.protocol.replies import INSUFFICIENT_STORAGE, TEMPORARY_FAILURE

from . import postgresql_schema as sql
from .contract import QueueError

_CONNECT_TIMEOUT: Final = 5.0  # seconds
_STATEMENT_TIMEOUT: Final = 30.0  # seconds; a server slower than that is as good as away
_MIGRATION_TIMEOUT: Final = 120.0  # seconds; a new version may have to go through tables that are large
_FIRST_PAUSE: Final = 0.2  # seconds until the second attempt to connect
_LONGEST_PAUSE: Final = 15.0
# What leaves a connection of no use. The last one: a server that is ending may send its farewell and not close yet, and
# until it does, asyncpg waits for the rest and refuses what is new.
_UNUSABLE: Final = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_log = logging.getLogger("fastsmtp.queue")
_Result = TypeVar("_Result")
Connection: TypeAlias = Any  # asyncpg brings no types


class Link:
    """A connection that is kept. Belongs to the event loop.

    Args:
        dsn: whom to connect to.
        title: of the server, for the log: without the password.
        connected: called with each new connection.
    """

    def __init__(self, dsn: str, title: str, connected: Callable[[Connection], Awaitable[None]] | None = None) -> None:
        self._dsn = dsn
        self.title = title
        self._connected = connected
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0
        self.name = ""  # of the shard; known once it was connected

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def close(self) -> None:
        """Ends the connection, when the statement at hand is done."""
        async with self._lock:
            if self._connection:
                self._connection.terminate()
                self._connection = None

    async def do(self, work: Callable[[Connection], Awaitable[_Result]], seconds: float | None = None) -> _Result:
        """Has something done with the connection, within so many seconds.

        Raises:
            QueueError: it was not done, or nobody knows whether it was.
        """
        async with self._lock:
            connection = self._connection if self.is_open else await self._connect()
            assert connection is not None
            try:
                async with asyncio.timeout(seconds or _STATEMENT_TIMEOUT):
                    return await work(connection)
            except asyncpg.PostgresError as error:
                if isinstance(error, asyncpg.OperatorInterventionError):
                    connection.terminate()  # the server stops, and would say so each time
                raise self._error(error) from error
            except _UNUSABLE as error:
                connection.terminate()
                raise self._error(error) from error

    async def _connect(self) -> Connection:
        wait = self._not_before - monotonic()
        if wait > 0:
            raise QueueError(TEMPORARY_FAILURE, f"{self.title}: not reachable, next attempt in {wait:.1f} s")
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                connection = await asyncpg.connect(self._dsn, server_settings=_session())
            try:
                await self._prepare(connection)
            except BaseException:
                connection.terminate()
                raise
        except (asyncpg.PostgresError, QueueError, *_UNUSABLE) as error:
            pause = min(_FIRST_PAUSE * 2.0**self._failures, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            self._failures += 1
            self._not_before = monotonic() + pause
            raise self._error(error) from error
        if self._failures:
            _log.info("%s: connected again", self.title)
        self._failures = 0
        self._connection = connection
        return connection

    async def _prepare(self, connection: Connection) -> None:
        """Makes a connection ready. Each step has its time: all who want to use it wait meanwhile."""
        async with asyncio.timeout(_STATEMENT_TIMEOUT):
            await self._check(connection)
        async with asyncio.timeout(_MIGRATION_TIMEOUT):
            self.name = await migrate(connection)
        if self._connected:
            async with asyncio.timeout(_STATEMENT_TIMEOUT):
                await self._connected(connection)

    async def _check(self, connection: Connection) -> None:
        """Refuses a server that reports commits which a power cut may take."""
        if await connection.fetchval("SHOW fsync") != "on":
            raise QueueError(TEMPORARY_FAILURE, f"{self.title}: fsync is off there, so nothing it says is durable")
        if await connection.fetchval("SHOW synchronous_commit") == "off":
            await connection.execute("SET synchronous_commit = on")

    def _error(self, error: BaseException) -> QueueError:
        if isinstance(error, QueueError):
            return error
        full = isinstance(error, asyncpg.DiskFullError)
        reason = f"{self.title}: {str(error) or type(error).__name__}"
        return QueueError(INSUFFICIENT_STORAGE if full else TEMPORARY_FAILURE, reason)


def _session() -> dict[str, str]:
    """Settings of a session. The server gives up before we do: what is refused shall not be stored a little later."""
    return {"application_name": "fastsmtp", "statement_timeout": f"{_STATEMENT_TIMEOUT * 0.8:.3f}s"}


async def migrate(connection: Connection) -> str:
    """Brings the tables up to date, whoever else does so at the same time; returns the shard's name.

    Raises:
        QueueError: they are of a newer version.
    """
    if await connection.fetchval("SELECT to_regclass('fastsmtp.shard')") is not None:
        version, name = await connection.fetchrow(sql.VERSION)
        if version == len(sql.MIGRATIONS):
            return str(name)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", sql.MIGRATION_LOCK)
        await connection.execute("CREATE SCHEMA IF NOT EXISTS fastsmtp")
        found = await connection.fetchval("SELECT to_regclass('fastsmtp.shard')")
        version = 0 if found is None else await connection.fetchval("SELECT version FROM fastsmtp.shard")
        if version > len(sql.MIGRATIONS):
            raise QueueError(TEMPORARY_FAILURE, f"the tables were made by a newer fastsmtp (version {version})")
        for script in sql.MIGRATIONS[version:]:
            await connection.execute(script)
        if version == 0:
            await connection.execute("INSERT INTO fastsmtp.shard VALUES ($1, $2)", 0, f"{random.getrandbits(32):08x}")
        await connection.execute("UPDATE fastsmtp.shard SET version = $1", len(sql.MIGRATIONS))
        return str(await connection.fetchval("SELECT name FROM fastsmtp.shard"))
