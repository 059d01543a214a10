"""What the connections of one worker share, and the second hand that watches their deadlines.

There is no timer per command: a deadline is a field of its connection, and one sweep a second closes what is overdue.
`now` is the time of the last sweep, so setting a deadline costs no look at the clock; deadlines are good to a second.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import mmap
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from ..config import Config
from . import descriptors
from .application import Application
from .books import Books
from .clients import Clients
from .dispatch import Dispatcher, Tables
from .turn import Turn

if TYPE_CHECKING:
    from .connection import Connection
    from .entrance import Entrance
    from .tracing import Tracer

SWEEP_INTERVAL: Final = 1.0  # seconds
_RECEIVE_BYTES: Final = 65536
_log = logging.getLogger("fastsmtp.worker")


class Guest(Protocol):
    """A connection, in whatever room it is."""

    entrance: Entrance
    opened: float  # by the monotonic clock
    deadline: float  # likewise

    def expire(self, now: float) -> None:
        """The deadline has passed, or the session is as old as one may be."""

    def drain(self) -> None:
        """The worker is about to leave."""

    def cut(self) -> bool:
        """No more time: close. Returns whether that cut a session short."""


class Reception:
    """The open connections of a worker.

    Args:
        config: the settings of the worker.
        application: makes handlers.
        dispatcher: runs hooks.
        books: where everything that ends is noted.
        turn: what is to be done in a turn of the loop.
        clients: counts of connections and failures, over all workers.
        free_bytes: tells the room that the store has.
        connection_type: what a connection is in its last room.

    Attributes:
        tracer: while somebody traces; `connection_type` then is another one, too.
    """

    def __init__(
        self,
        config: Config,
        application: Application,
        dispatcher: Dispatcher,
        books: Books,
        turn: Turn,
        clients: Clients,
        free_bytes: Callable[[], int | None],
        connection_type: type[Connection],
    ) -> None:
        self.config: Final = config
        self.application: Final = application
        self.dispatcher: Final = dispatcher
        self.books: Final = books
        self.turn: Final = turn
        self.clients: Final = clients
        self._free_bytes: Final = free_bytes
        self.connection_type = connection_type
        self.tracer: Tracer | None = None
        self.entrances: Final[list[Entrance]] = []
        # One receive buffer for commands serves all connections: uvloop asks for a buffer right before it reads, and
        # says what it read right behind it. So an idle session has none. Slices of a mapping are bytes: taking out what
        # was read takes less than half of the time that it takes by way of a memoryview.
        self.receive_buffer: Final = mmap.mmap(-1, _RECEIVE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.cipher_view: Final = memoryview(bytearray(_RECEIVE_BYTES))  # likewise, for TLS
        self.connections: Final[set[Guest]] = set()
        self.now = time.monotonic()
        self.stopping = False  # the server goes away: say so at the next command boundary
        self.retiring = False  # a successor is at work: say so to who is idle
        self.turns_away = False  # overload: new connections get 421
        self.scarce_at = config.max_connections  # so many connections leave too few descriptors
        self.when_scarce: Callable[[], None] = _unconcerned  # called then
        self._stressed = False
        self._max_connections = min(config.max_connections, descriptors.spare())
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
        """Whether a new connection has to be turned away: there are as many as there may be, or overload."""
        count = len(self.connections)
        if count >= self.scarce_at:
            self.when_scarce()
        return count >= self._max_connections or self.turns_away

    @property
    def is_overfull(self) -> bool:
        """Likewise, for one that is counted already."""
        return len(self.connections) > self._max_connections or self.turns_away

    def leave(self, guest: Guest) -> None:
        """A connection is gone, or has gone on to another room."""
        self.connections.discard(guest)
        if self._empty and not self.connections:
            self._empty.set()

    # -- deadlines ----------------------------------------------------------------------------------------------------

    def start_sweeping(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look for overdue connections, and at the room that is left, once a second."""
        self._look_at_room()
        self._sweeper = loop.call_later(SWEEP_INTERVAL, self._sweep, loop)

    def stop_sweeping(self) -> None:
        """The worker ends."""
        if self._sweeper:
            self._sweeper.cancel()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = now = time.monotonic()
        self._look_at_stress()
        self._look_at_room()
        for entrance in self.entrances:
            entrance.look_at_the_clock(now)
        for guest in [each for each in self.connections if each.deadline <= now or each.opened <= each.entrance.oldest]:
            try:
                guest.expire(now)
            except Exception:
                _log.exception("a connection could not be timed out")
        self._sweeper = loop.call_later(SWEEP_INTERVAL, self._sweep, loop)

    def _look_at_stress(self) -> None:
        """Connections become scarce: have less patience with each. The way back takes a tenth less, lest we waver."""
        limit = self.config.stress_at * self._max_connections
        stressed = len(self.connections) >= (0.9 * limit if self._stressed else limit)
        if stressed != self._stressed:
            self._stressed = stressed
            _log.warning("%d connections: %s", len(self.connections), "under stress" if stressed else "stress is over")
            for entrance in self.entrances:
                entrance.be_stressed(stressed)

    def _look_at_room(self) -> None:
        """A full store is better said at MAIL than behind the data."""
        free = self._free_bytes()
        for entrance in self.entrances:
            entrance.be_full(free)

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
        for entrance in self.entrances:
            entrance.look_at_the_clock(self.now)
        for guest in list(self.connections):
            guest.drain()
        await self.wait_until_empty(patience)
        return self.cut()

    async def wait_until_empty(self, patience: float) -> None:
        """Wait until the last connection is forgotten, and its closed hook was called; so many seconds at the most."""
        if self.connections:
            self._empty = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._empty.wait()

    def cut(self) -> int:
        """Close every session now; returns how many were cut short."""
        return sum(guest.cut() for guest in list(self.connections))


def _unconcerned() -> None:
    """Nobody looks at descriptors."""
