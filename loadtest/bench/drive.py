"""Drives the server's own code inside one process, without sockets: what is measured is fastsmtp and nothing else.

    python -m loadtest.bench.drive session --messages 20000        # us of CPU per message
    python -m loadtest.bench.drive --list

Everything is what a worker has (reception, entrance, dispatcher, thread pool, books, access log, the event loop of
uvloop); only the transports are not. So there are no system calls for the network in the figures, but for one option a
session, and no kernel. What clients say comes to all connections in one turn of the loop, as it does under load, and
the next flight comes when the last connection has replied.

The instruction counts of `loadtest.bench.instructions` come from here. Noise of the machine does not reach them, while
the CPU time printed by this program is as good as the machine is quiet.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import uvloop

from fastsmtp import Handler
from fastsmtp.config import Config
from fastsmtp.server.application import Application
from fastsmtp.server.clients import ClientCounts
from fastsmtp.server.connection import Connection
from fastsmtp.server.entrance import Entrance
from fastsmtp.server.log_files import LogFiles
from fastsmtp.server.scoreboard import Scoreboard
from fastsmtp.server.worker import Worker, _calm_the_collector
from loadtest.bench import dialogues
from loadtest.bench.dialogues import EHLO, LARGE, QUIT, Flight
from loadtest.bench.handlers import RefusingHooks
from loadtest.bench_app import AsyncHooks, InlineHooks, ThreadHooks

_READ: Final = 65536  # octets that one read brings at most
_LISTEN: Final = "127.0.0.1:0"
Script = Iterator[None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What each client does.

    Attributes:
        handler: the application.
        flights: one message, or what stands for one.
        per_session: whether a client has a new connection for each of them.
        messages: how many are counted by default, enough that single events do not show.
        clients: connections at a time.
    """

    handler: type[Handler]
    flights: Sequence[Flight]
    per_session: bool
    messages: int
    clients: int = 20


SCENARIOS: Final = {
    "session": Scenario(AsyncHooks, dialogues.in_turn(5120), True, 200),
    "session-inline": Scenario(InlineHooks, dialogues.in_turn(5120), True, 200),
    "session-threads": Scenario(ThreadHooks, dialogues.in_turn(5120), True, 200),
    "session-bare": Scenario(Handler, dialogues.in_turn(5120), True, 200),
    "stream": Scenario(AsyncHooks, dialogues.in_turn(5120), False, 400),
    "stream-threads": Scenario(ThreadHooks, dialogues.in_turn(5120), False, 400),
    "pipelined": Scenario(AsyncHooks, dialogues.pipelined(5120, 1), False, 400),
    "pipelined-threads": Scenario(ThreadHooks, dialogues.pipelined(5120, 1), False, 400),
    "recipients": Scenario(AsyncHooks, dialogues.pipelined(5120, 20), False, 100),
    "bdat": Scenario(AsyncHooks, dialogues.chunked(5120), False, 400),
    "large": Scenario(AsyncHooks, dialogues.in_turn(LARGE), False, 40, clients=4),
    "refused": Scenario(RefusingHooks, dialogues.refused(), True, 100),
}


_EXTRA: Final[dict[str, Any]] = {"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 2525)}


class _Transport(asyncio.Transport):
    """Where a connection writes; it tells when the reply to a flight is there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, replied: Callable[[], None]) -> None:
        super().__init__()
        self._loop = loop
        self._replied = replied
        self.expected = b"220 "
        self.connection: Connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _EXTRA.get(name, default)

    def write(self, data: Any) -> None:
        if not data.startswith(self.expected):
            raise SystemExit(f"drive: expected {self.expected!r}, but the server said {bytes(data)!r}")
        self._replied()

    def close(self) -> None:
        self._loop.call_soon(self.connection.connection_lost, None)

    def pause_reading(self) -> None:
        """Clients say nothing before they have their reply."""

    def resume_reading(self) -> None:
        """Likewise."""

    def feed(self, octets: bytes) -> None:
        """As the event loop hands on what it reads."""
        connection, rest = self.connection, memoryview(octets)
        while rest:
            room = connection.get_buffer(-1)
            length = min(len(room), len(rest), _READ)
            room[:length] = rest[:length]
            rest = rest[length:]
            connection.buffer_updated(length)


class Clients:
    """Several clients that do the same at the same time.

    What they do is a generator that yields where replies are awaited. It is not a coroutine, because connections do
    not work within a task of the loop either.
    """

    def __init__(self, entrance: Entrance, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._entrance = entrance
        self._count = count
        self._awaited = 0
        self._script: Script = iter(())
        self._done = self._loop.create_future()
        self._transports: list[_Transport] = []

    async def play(self, script: Script) -> None:
        """Go through a script, to its end."""
        self._script = script
        self._done = self._loop.create_future()
        self._loop.call_soon(self._go_on)
        await self._done

    def messages(self, scenario: Scenario, rounds: int) -> Script:
        """Each client brings so many messages."""
        if not scenario.per_session and not self._transports:
            yield from self._greet()
        for _ in range(rounds):
            if scenario.per_session:
                yield from self._greet()
            yield from self._say(scenario.flights)
            if scenario.per_session:
                yield from self.quit()

    def quit(self) -> Script:
        """All leave."""
        if self._transports:
            yield from self._say(QUIT)
            self._transports.clear()

    def _greet(self) -> Script:
        self._awaited = self._count
        for _ in range(self._count):
            transport = _Transport(self._loop, self._replied)
            transport.connection = Connection(self._entrance)
            self._transports.append(transport)
            transport.connection.connection_made(transport)
        yield
        yield from self._say(EHLO)

    def _say(self, flights: Sequence[Flight]) -> Script:
        for octets, expected in flights:
            self._awaited = self._count
            for transport in self._transports:
                transport.expected = expected
                transport.feed(octets)
            yield

    def _replied(self) -> None:
        self._awaited -= 1
        if not self._awaited:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        try:
            next(self._script)
        except StopIteration:
            self._done.set_result(None)
        except Exception as error:
            self._done.set_exception(error)


@asynccontextmanager
async def entrance(handler: type[Handler]) -> AsyncIterator[Entrance]:
    """A worker's insides, for connections without sockets."""
    config = Config(listen=(_LISTEN,), hostname="mx.example", store=None, error_delay=0.0)
    scoreboard = Scoreboard(1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _EXTRA["socket"] = listening  # for options; nobody connects
        counts = ClientCounts(scoreboard.rows).open(0)
        row = scoreboard.take(0)
        worker = Worker(config, 0, [listening], counts, row, Application(handler), len, LogFiles(config), None)
        async with worker._open() as reception:
            yield worker._build(reception, _LISTEN, listening)


async def drive(scenario: Scenario, messages: int, begin: Callable[[], None], end: Callable[[], None]) -> int:
    """Play a scenario: warm up, then what counts between `begin` and `end`.

    Returns:
        How many messages that was: a multiple of the number of clients.
    """
    rounds = max(1, messages // scenario.clients)
    async with entrance(scenario.handler) as place:
        crowd = Clients(place, scenario.clients)
        await crowd.play(crowd.messages(scenario, max(3, rounds // 10)))
        _calm_the_collector()
        # What sessions do gathers in the books, and is counted each second. Here it is counted once, with the messages
        # that it belongs to: else the figure would depend on when a second was over.
        books = place.reception.books
        books.count()
        begin()
        await crowd.play(crowd.messages(scenario, rounds))
        books.count()
        end()
        await crowd.play(crowd.quit())
        await asyncio.sleep(0)
    return rounds * scenario.clients


def run(scenario: Scenario, messages: int, begin: Callable[[], None], end: Callable[[], None]) -> int:
    """`drive` on a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drive(scenario, messages, begin, end))


def divert_access_log() -> None:
    """The access log goes to standard output in a worker; here it is written, too, but to nowhere."""
    logging.getLogger("fastsmtp").setLevel(logging.ERROR)  # a handler that keeps no mail is what we want
    sys.stdout.flush()
    printing = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    sys.stdout = cast(Any, os.fdopen(printing, "w", buffering=1))


def _timed(name: str, messages: int | None) -> None:
    scenario = SCENARIOS[name]
    times: list[float] = []

    def look() -> None:
        times.append(time.process_time())

    count = run(scenario, messages or 50 * scenario.messages, look, look)
    print(f"{name:18s} {(times[1] - times[0]) * 1e6 / count:8.1f} us of CPU per message ({count} messages)")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.drive", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scenario", nargs="*", choices=[[], *SCENARIOS], help="default: all")
    parser.add_argument("--messages", type=int, help="how many are counted")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    arguments = parser.parse_args()
    if arguments.list:
        print(*SCENARIOS, sep="\n")
        return
    divert_access_log()
    for name in arguments.scenario or SCENARIOS:
        _timed(name, arguments.messages)


if __name__ == "__main__":
    main()
