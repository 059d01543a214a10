"""Clients that send numbered messages and remember what they were told, whatever becomes of their connections."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_PATIENCE = 15.0  # seconds for one reply
_PAUSE = 0.05  # seconds before the next attempt to connect


@dataclass
class Ledger:
    """What the clients know.

    Attributes:
        sent: numbers of messages whose last octet may have left.
        acknowledged: numbers of messages that got their 250.
        refused: how many got another reply.
        broken: how many connections ended in the middle.
    """

    sent: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    refused: int = 0
    broken: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


async def send_until(
    stop: asyncio.Event, addresses: list[tuple[str, int]], ledger: Ledger, clients: int, size: int = 3000
) -> None:
    """Sends from so many clients at a time until told to stop.

    Args:
        stop: set when it is enough; what is under way is finished.
        addresses: each connection goes to one of them, by chance.
        ledger: to be kept.
        clients: connections at a time.
        size: octets of a message; every fiftieth is fifty times as large.
    """
    await asyncio.gather(*(_client(stop, addresses, ledger, size) for _ in range(clients)))


async def _client(stop: asyncio.Event, addresses: list[tuple[str, int]], ledger: Ledger, size: int) -> None:
    while not stop.is_set():
        try:
            await _session(stop.is_set, random.choice(addresses), ledger, size)
        except (OSError, EOFError, TimeoutError):
            ledger.broken += 1
            await asyncio.sleep(_PAUSE)


async def _session(stopped: Callable[[], bool], address: tuple[str, int], ledger: Ledger, size: int) -> None:
    reader, writer = await asyncio.open_connection(*address)

    async def say(octets: bytes) -> bytes:
        writer.write(octets)
        return await _reply(reader)

    try:
        await _reply(reader)
        await say(b"EHLO client.example\r\n")
        for _ in range(random.randint(1, 20)):
            if stopped():
                return
            number = next(ledger.numbers)
            await say(b"MAIL FROM:<sender@client.example>\r\n")
            if not (await say(f"RCPT TO:<n{number}@d{number % 7}.example>\r\n".encode())).startswith(b"250"):
                ledger.refused += 1
                return
            if not (await say(b"DATA\r\n")).startswith(b"354"):
                ledger.refused += 1
                return
            body = b"x" * 70 + b"\r\n"
            lines = (size * (50 if number % 50 == 0 else 1)) // len(body)
            ledger.sent.add(number)
            if (await say(f"Number: {number}\r\n\r\n".encode() + body * lines + b".\r\n")).startswith(b"250"):
                ledger.acknowledged.add(number)
            else:
                ledger.refused += 1
    finally:
        writer.close()


async def _reply(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(_PATIENCE):
        while True:
            line = await reader.readline()
            if not line.endswith(b"\n"):
                raise EOFError
            if line[3:4] != b"-":
                return line
