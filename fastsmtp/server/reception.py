"""What the connections of one worker share, and the second hand that watches their deadlines.

There is no timer per command: a deadline is a field of its connection, and one sweep a second closes what is overdue.
`now` is the time of the last sweep, so setting a deadline costs no look at the clock; deadlines are good to a second.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import resource
import secrets
import time
from typing import TYPE_CHECKING, Final

from ..config import Config
from ..protocol.service import Service
from .access_log import AccessLog
from .application import Application
from .dispatch import Dispatcher, Tables
from .turn import Turn

if TYPE_CHECKING:
    from .connection import Connection

SWEEP_INTERVAL: Final = 1.0  # seconds
_RECEIVE_BYTES: Final = 65536
_OWN_DESCRIPTORS: Final = 256  # the store writes 64 files at a time; the application has its databases
_log = logging.getLogger("fastsmtp.worker")


class Reception:
    """The open connections of a worker.

    Args:
        config: the settings.
        service: the server as sessions see it.
        application: makes handlers.
        dispatcher: runs hooks.
        access_log: where finished messages and sessions are noted.
        turn: what is to be done in a turn of the loop.
    """

    def __init__(
        self,
        config: Config,
        service: Service,
        application: Application,
        dispatcher: Dispatcher,
        access_log: AccessLog,
        turn: Turn,
    ) -> None:
        self.config: Final = config
        self.service: Final = service
        self.application: Final = application
        self.dispatcher: Final = dispatcher
        self.access_log: Final = access_log
        self.turn: Final = turn
        # One receive buffer for commands serves all connections: uvloop asks for a buffer right before it reads, and
        # says what it read right behind it. So an idle session has none.
        self.receive_view: Final = memoryview(bytearray(_RECEIVE_BYTES))
        self.connections: Final[set[Connection]] = set()
        self.now = time.monotonic()
        self.command_deadline = self.now + config.command_timeout  # of a command that is awaited from now on
        self.stopping = False  # the server goes away: say so at the next command boundary
        self.retiring = False  # a successor is at work: say so to who is idle
        self._max_connections = min(config.max_connections, _spare_descriptors())
        self._tables: dict[type, Tables] = {}
        # Unique over workers, restarts and machines: 40 random bits, then a number.
        self._id_prefix = f"{secrets.token_hex(5)}-"
        self._ids = itertools.count(1)
        self._empty: asyncio.Event | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def new_id(self) -> str:
        """An id for a session."""
        return f"{self._id_prefix}{next(self._ids):x}"

    def tables_of(self, handler: object) -> Tables:
        """How to run the hooks of a handler."""
        handler_class = type(handler)
        tables = self._tables.get(handler_class)
        if tables is None:
            tables = self._tables[handler_class] = self.dispatcher.tables(self.application.hooks_of(handler_class))
        return tables

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return len(self.connections) >= self._max_connections

    def leave(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if self._empty and not self.connections:
            self._empty.set()

    # -- deadlines ----------------------------------------------------------------------------------------------------

    def start_sweeping(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look for overdue connections once a second."""
        self._sweeper = loop.call_later(SWEEP_INTERVAL, self._sweep, loop)

    def stop_sweeping(self) -> None:
        """The worker ends."""
        if self._sweeper:
            self._sweeper.cancel()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = now = time.monotonic()
        self.command_deadline = now + (self.config.drain_idle if self.retiring else self.config.command_timeout)
        oldest = now - self.config.session_timeout
        for connection in [each for each in self.connections if each.deadline <= now or each.opened <= oldest]:
            try:
                connection.expire(now)
            except Exception:
                _log.exception("session %s could not be timed out", connection.session.id)
        self._sweeper = loop.call_later(SWEEP_INTERVAL, self._sweep, loop)

    # -- leaving ------------------------------------------------------------------------------------------------------

    async def drain(self, patience: float, retire: bool) -> int:
        """Let the sessions end: on a stop at their next command boundary, on retirement when they are idle.

        Args:
            patience: seconds, then the rest is cut.
            retire: whether a successor is at work already.

        Returns:
            How many sessions were cut.
        """
        self.stopping, self.retiring = not retire, retire
        self._empty = asyncio.Event()
        if retire:
            self.command_deadline = self.now + self.config.drain_idle
        if not self.connections:
            return 0
        for connection in list(self.connections):
            connection.drain()
        try:
            async with asyncio.timeout(patience):
                await self._empty.wait()
        except TimeoutError:
            pass
        return self.cut()

    def cut(self) -> int:
        """Close every session now; returns how many were cut short."""
        return sum(connection.cut() for connection in list(self.connections))


def _spare_descriptors() -> int:
    """How many files we may have open, less what a worker and its application need for themselves."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(limit // 2, limit - _OWN_DESCRIPTORS)
