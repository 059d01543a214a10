"""What leaves when: the end of a connection behind the replies of the next turn."""

from __future__ import annotations

import asyncio
import socket

import uvloop

from fastsmtp import Handler
from fastsmtp.server.connection import Connection
from fastsmtp.server.entrance import Entrance
from loadtest.bench.drive import entrance


class _Client(asyncio.Transport):
    """The other side of a connection: notes what it is told, in a list that clients share."""

    def __init__(self, place: Entrance, told: list[str]) -> None:
        self._socket = socket.socket()  # for options
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 25), "socket": self._socket})
        self._told = told
        self._connection = Connection(place)
        self._connection.connection_made(self)

    def say(self, octets: bytes) -> None:
        """As the loop hands on what it reads."""
        self._connection.get_buffer(-1)[: len(octets)] = octets
        self._connection.buffer_updated(len(octets))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._told.append(bytes(data[:3]).decode())

    def close(self) -> None:
        """As the loop does it."""
        asyncio.get_running_loop().call_soon(self.lose)

    def lose(self) -> None:
        """The connection is gone."""
        self._connection.connection_lost(None)
        self._socket.close()
        self._told.append("end")


def test_an_end_leaves_behind_the_replies_of_the_next_turn() -> None:
    """Each wakes its client. Together they find it awake."""
    told: list[str] = []

    async def serve() -> None:
        async with entrance(Handler) as place:
            leaving, staying = _Client(place, told), _Client(place, told)
            await asyncio.sleep(0)
            leaving.say(b"QUIT\r\n")
            await asyncio.sleep(0)
            staying.say(b"NOOP\r\n")
            await asyncio.sleep(0)
            staying.lose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    assert told == ["220", "220", "221", "250", "end", "end"]
