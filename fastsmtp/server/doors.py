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
from collections.abc import Callable, Sequence
from typing import Final

_ACCEPT_TIME: Final = 1.0  # seconds for what waits in the accept queues when we leave
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
        loop = asyncio.get_running_loop()
        copies: list[socket.socket] = []
        try:
            for listening, _ in self._listeners:
                copies.append(listening.dup())
        except OSError:
            for copy in copies:
                copy.close()
            raise
        for copy, (_, room) in zip(copies, self._listeners, strict=True):
            create = loop.create_unix_server if copy.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await create(room, sock=copy, backlog=self._backlog))

    def shut(self) -> None:
        """Accept nothing more; what waits goes on waiting."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    async def accept_what_waits(self) -> None:
        """Serve the queues: what is there, not what never ceases to come."""
        poll = select.poll()
        for listening, _ in self._listeners:
            poll.register(listening, select.POLLIN)
        until = time.monotonic() + _ACCEPT_TIME
        while self._servers and poll.poll(0) and time.monotonic() < until:  # noqa: ASYNC110  # it lets the loop accept
            await asyncio.sleep(0)
