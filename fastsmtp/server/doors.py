"""Whether a worker accepts connections, or leaves them in the kernel's queues, where they wait and cost nothing.

An event loop cannot pause a server, but it can close one: of a copy of the descriptor, so that the socket itself goes
on to listen, in its place in the group, and nothing that waits is lost. A turn of the loop accepts about as many
connections as wait for it. Runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil
from typing import Any, Final

from . import descriptors

# libuv accepts one connection for each server in a turn of its loop, so with one server each session has the price of a
# whole turn. But the kernel builds a connection before it finds that there is none for a server; with a single client
# seven of eight servers made it do so. With 20 clients a session took 186 us of CPU with one server, 131 with four, 158
# with sixteen. Between the two bounds below the number stays, lest it waver.
_MOST: Final = 16  # servers of a socket; beyond that little is left to gain
_TURNS: Final = 64  # that brought somebody; then we count. Under load that is some tens of ms
_SHRINK_BELOW: Final = 0.7  # connections for each server in such a turn
_GROW_ABOVE: Final = 0.9  # likewise, and only if somebody waits
_DESCRIPTORS: Final = 64  # that a process must have for each server, which takes one
_BACKLOG_OF_TCP_INFO: Final = slice(24, 28)  # tcpi_unacked: of a listening socket, the connections that wait
_ACCEPT_TIME: Final = 1.0  # seconds for what waits in the accept queues when we leave
_HANDSHAKE_TIME: Final = 0.1  # seconds for handshakes that were under way
_LOOK: Final = 0.01  # seconds between two looks
_log = logging.getLogger("fastsmtp.worker")

Room = Callable[[], asyncio.BaseProtocol]


class Doors:
    """The listeners of a worker.

    Args:
        listeners: each socket, and what a new connection becomes.
        backlog: connections that may wait.
    """

    def __init__(self, listeners: Sequence[tuple[socket.socket, Room]], backlog: int) -> None:
        self._doors = [_Door(listening, room, backlog) for listening, room in listeners]

    @property
    def are_open(self) -> bool:
        """Whether connections are accepted."""
        return any(door.is_open for door in self._doors)

    async def open(self) -> None:
        """Accept connections.

        Raises:
            OSError: there are no descriptors left.
        """
        if self.are_open:
            return
        try:
            for door in self._doors:
                await door.open()
        except OSError:
            self.shut()
            raise

    def shut(self) -> None:
        """Accept nothing more; what waits goes on waiting."""
        for door in self._doors:
            door.shut()

    async def close(self, is_left: bool) -> None:
        """Give the sockets up.

        Args:
            is_left: whether the queues are left to a successor; else what is in them is accepted, and what is on its
                way to them, but not what never ceases to come.
        """
        if not is_left:
            with suppress(OSError):  # too few descriptors: what waits will see the connection end
                await self.open()
            await self._accept_what_waits()
        self.shut()
        for door in self._doors:
            door.listening.close()

    async def _accept_what_waits(self) -> None:
        poll = select.poll()
        for door in self._doors:
            poll.register(door.listening, select.POLLIN)
        now = time.monotonic()
        at_least, at_most = now + _HANDSHAKE_TIME, now + _ACCEPT_TIME
        while self.are_open and time.monotonic() < at_most:
            if poll.poll(0):
                await asyncio.sleep(0)  # a turn of the loop accepts some
            elif time.monotonic() < at_least:
                await asyncio.sleep(_LOOK)
            else:
                return


class _Door:
    """One listening socket, with about as many servers as connections wait in a turn of the loop.

    A socket that workers share has one server: each worker takes one connection at a time, and leaves the next one to
    the others.

    Args:
        listening: the socket.
        room: what a new connection becomes.
        backlog: connections that may wait.
    """

    def __init__(self, listening: socket.socket, room: Room, backlog: int) -> None:
        self.listening = listening
        self._room = room
        self._backlog = backlog
        self._is_shared = not listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        self._servers: list[asyncio.Server] = []
        self._wanted = 1
        self._came = 0  # connections in this turn
        self._turns = self._in_turns = 0  # turns with connections, and how many came in them, since we counted last
        self._widening: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._servers)

    async def open(self) -> None:
        """Accept connections.

        Raises:
            OSError: there are no descriptors left.
        """
        self._wanted = min(self._wanted, _MOST, max(1, descriptors.spare() // _DESCRIPTORS))
        while len(self._servers) < self._wanted:
            self._servers.append(await self._new_server())

    def shut(self) -> None:
        """Accept nothing more."""
        if self._widening:
            self._widening.cancel()
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    async def _new_server(self) -> asyncio.Server:
        loop, room = asyncio.get_running_loop(), self._room if self._is_shared else self._let_in
        if self.listening.family != socket.AF_UNIX:
            return await loop.create_server(room, sock=self.listening.dup(), backlog=self._backlog)
        # From Python 3.13 on a server that closes removes its path. It is the master's: others listen there, or come.
        create: Any = loop.create_unix_server  # uvloop has `cleanup_socket` under every Python
        server: asyncio.Server = await create(
            room, sock=self.listening.dup(), backlog=self._backlog, cleanup_socket=False
        )
        return server

    def _let_in(self) -> asyncio.BaseProtocol:
        """A connection was accepted."""
        if not self._came:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._came += 1
        return self._room()

    def _end_turn(self) -> None:
        """All connections of this turn have been accepted."""
        self._turns += 1
        self._in_turns += self._came
        self._came = 0
        if self._turns >= _TURNS:
            self._count()

    def _count(self) -> None:
        """See whether there are too many servers, or too few."""
        if not self._servers:
            return
        average = self._in_turns / self._turns
        self._turns = self._in_turns = 0
        count = len(self._servers)
        if average < _SHRINK_BELOW * count:
            self._wanted = ceil(average)
            while len(self._servers) > self._wanted:
                self._servers.pop().close()
        elif average >= _GROW_ABOVE * count and (left := _waiting(self.listening)):
            self._wanted = min(count + left, 2 * count)
            if self._widening is None or self._widening.done():
                self._widening = asyncio.get_running_loop().create_task(self._widen())

    async def _widen(self) -> None:
        with suppress(OSError):  # too few descriptors: what is there goes on
            await self.open()


def _waiting(listening: socket.socket) -> int:
    """How many connections wait to be accepted, now."""
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BACKLOG_OF_TCP_INFO.stop)
    return int.from_bytes(info[_BACKLOG_OF_TCP_INFO], sys.byteorder)
