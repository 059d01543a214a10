"""How many connections a turn of the loop accepts, and what becomes of the sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fastsmtp.server import doors as module
from fastsmtp.server.doors import _MOST, Doors


class _Listener:
    """A listening socket with doors, and how many connections each turn of the loop accepts."""

    def __init__(self, listening: socket.socket) -> None:
        self._address = listening.getsockname()
        self._came = 0

    def come_in(self) -> asyncio.BaseProtocol:
        self._came += 1
        return _Room()

    async def accept(self, clients: int) -> list[int]:
        """So many clients connect at once: how many came in in each turn that brought some."""
        connected = [socket.create_connection(self._address) for _ in range(clients)]
        turns: list[int] = []
        async with asyncio.timeout(10):
            while sum(turns) < clients:
                self._came = 0
                await asyncio.sleep(0)
                if self._came:
                    turns.append(self._came)
        for each in connected:
            each.close()
        return turns


class _Room(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@asynccontextmanager
async def _open(reuse_port: bool) -> AsyncIterator[_Listener]:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        listening.bind(("127.0.0.1", 0))
        listening.listen(200)
        listener = _Listener(listening)
        doors = Doors([(listening, listener.come_in)], 200)
        await doors.open()
        try:
            yield listener
        finally:
            doors.shut()


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def test_a_turn_accepts_about_as_many_as_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one comes at a time, each has a server for itself; where many wait, a turn takes many."""
    monkeypatch.setattr(module, "_TURNS", 4)

    async def main() -> None:
        async with _open(reuse_port=True) as listener:
            assert (await listener.accept(200))[-2] == _MOST
            for _ in range(16):
                assert await listener.accept(1) == [1]
            assert await listener.accept(3) == [1, 1, 1]
            assert max(await listener.accept(200)) == _MOST

    _run(main())


def test_a_turn_takes_one_from_a_socket_that_workers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is left to the others."""
    monkeypatch.setattr(module, "_TURNS", 4)

    async def main() -> None:
        async with _open(reuse_port=False) as listener:
            assert await listener.accept(50) == [1] * 50

    _run(main())


def test_a_path_stays_when_a_worker_accepts_nothing_more(tmp_path: Path) -> None:
    """Python 3.13's servers remove theirs. Other workers listen there, and this one may open its doors again."""
    path = tmp_path / "smtp.sock"

    async def main() -> None:
        accepted = asyncio.Event()

        class Room(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transport.close()
                accepted.set()

        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
            listening.bind(str(path))
            listening.listen()
            doors = Doors([(listening, Room)], 100)
            await doors.open()
            doors.shut()
            client.connect(str(path))
            await doors.open()
            async with asyncio.timeout(10):
                await accepted.wait()
            doors.shut()

    _run(main())
    assert path.is_socket()
