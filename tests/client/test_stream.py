"""The octets of a connection, between two ends that the test holds."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fastsmtp.client.stream import Stream
from tests.client.hops import run


def test_a_hop_that_talks_without_end_is_hung_up_on() -> None:
    closed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            for _ in range(50):
                writer.write(b"x" * 100_000)
                await writer.drain()
        writer.transport.abort()
        closed.set()

    async def main() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        _, stream = await asyncio.get_running_loop().create_connection(Stream, "127.0.0.1", port)
        try:
            await asyncio.wait_for(closed.wait(), 20)
            with pytest.raises(ConnectionAbortedError, match="more than 1048576 octets"):
                await stream.read()
            with pytest.raises(ConnectionAbortedError, match="more than 1048576 octets"):
                stream.write(b"x")
            assert not stream.has_octets
        finally:
            stream.abort()
            server.close()

    run(main())
