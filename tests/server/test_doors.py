"""How many connections a turn of the loop accepts."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from fastsmtp.server.doors import _SERVERS, Doors


def _listening(reuse_port: bool) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
    found.bind(("127.0.0.1", 0))
    found.listen(100)
    return found


def _most_in_a_turn(reuse_port: bool, clients: int) -> int:
    turn = 0
    accepted: Counter[int] = Counter()

    class Room(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted[turn] += 1
            transport.close()

    async def main() -> None:
        nonlocal turn
        with ExitStack() as stack:
            listening = stack.enter_context(_listening(reuse_port))
            for _ in range(clients):
                stack.enter_context(socket.create_connection(listening.getsockname()))
            doors = Doors([(listening, Room)], 100)
            await doors.open()
            async with asyncio.timeout(10):
                while accepted.total() < clients:
                    await asyncio.sleep(0)
                    turn += 1
            doors.shut()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return max(accepted.values())


@pytest.mark.parametrize(("reuse_port", "most"), [(True, _SERVERS), (False, 1)], ids=["own", "shared"])
def test_how_many(reuse_port: bool, most: int) -> None:
    """From a socket that workers share each takes one at a time, and leaves the next one to the others."""
    assert _most_in_a_turn(reuse_port, 20) == most


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

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert path.is_socket()
