"""Whether a worker accepts connections, or leaves them in the kernel's queues, where they wait and cost nothing.

An event loop cannot pause a server, but it can close one: of a copy of the descriptor, so that the socket itself goes
on to listen, in its place in the group, and nothing that waits is lost. Runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from . import descriptors

# libuv accepts one connection for each server in a turn of its loop. So a socket has several servers, or a turn would
# never have more than one new session, and each session the price of a whole turn: with 64 clients 25 % of its CPU.
_SERVERS: Final = 8
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
        self._listeners = listeners
        self._backlog = backlog
        self._servers: list[asyncio.Server] = []

    @property
    def are_open(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._servers)

    async def open(self) -> None:
        """Accept connections.

        Raises:
            OSError: there are no descriptors left.
        """
        if self._servers:
            return
        try:
            for listening, room in self._listeners:
                create = _creator_for(listening)
                for _ in range(_servers_of(listening)):
                    self._servers.append(await create(room, sock=listening.dup(), backlog=self._backlog))
        except OSError:
            self.shut()
            raise

    def shut(self) -> None:
        """Accept nothing more; what waits goes on waiting."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

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
        for listening, _ in self._listeners:
            listening.close()

    async def _accept_what_waits(self) -> None:
        poll = select.poll()
        for listening, _ in self._listeners:
            poll.register(listening, select.POLLIN)
        now = time.monotonic()
        at_least, at_most = now + _HANDSHAKE_TIME, now + _ACCEPT_TIME
        while self._servers and time.monotonic() < at_most:
            if poll.poll(0):
                await asyncio.sleep(0)  # a turn of the loop accepts some
            elif time.monotonic() < at_least:
                await asyncio.sleep(_LOOK)
            else:
                return


def _creator_for(listening: socket.socket) -> Callable[..., Awaitable[asyncio.Server]]:
    loop = asyncio.get_running_loop()
    if listening.family != socket.AF_UNIX:
        return loop.create_server
    # From Python 3.13 on a server that closes removes its path. It is the master's: others listen there, or come next.
    return partial(loop.create_unix_server, cleanup_socket=False)  # type: ignore[call-arg]  # uvloop has it everywhere


def _servers_of(listening: socket.socket) -> int:
    """From a socket that workers share each takes one connection at a time; a copy takes a descriptor."""
    is_ours_alone = listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    return min(_SERVERS, max(1, descriptors.spare() // 64)) if is_ours_alone else 1
