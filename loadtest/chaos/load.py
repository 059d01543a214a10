"""Load that tells what became of every message: many sessions, a connection for each message.

Each message has a number of its own and says how long it is, so that what a store holds can be compared with what the
server has acknowledged. Runs on an event loop in a thread of its own, beside whatever is done to the server.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

TIMEOUT = 60.0  # seconds for a reply; a connection may wait in the queue of a worker that stands still
_BODY = b"".join(b"line %04d of a message that must come whole\r\n" % number for number in range(60))
_MARK = re.compile(rb"^X-Chaos: (\d+) (\d+)\r?$", re.MULTILINE)


class FailedError(Exception):
    """A session did not go as it should; the text says where."""


@dataclass
class Outcome:
    """What became of the messages.

    Attributes:
        acknowledged: numbers of the messages that got their 250.
        begun: how many sessions there were.
        by_worker: messages by the first word behind the 220, where the handler names the worker.
        failed: what went wrong, with the worker, if the banner was seen.
    """

    acknowledged: list[int] = field(default_factory=list)
    begun: int = 0
    by_worker: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """Connections that nobody listened for."""
        return sum("ConnectionRefusedError" in what for _, what in self.failed)

    @property
    def reset(self) -> int:
        """Connections that were reset."""
        return sum("ConnectionResetError" in what or "BrokenPipe" in what for _, what in self.failed)


class Load:
    """Sessions that bring messages, one after the other, until they are told to stop.

    Args:
        address: of the server.
        sessions: how many at a time.
        pause: seconds between two messages of a session.
    """

    def __init__(self, address: tuple[str, int] | str, sessions: int, pause: float = 0.0) -> None:
        self.outcome = Outcome()
        self._address = address
        self._sessions = sessions
        self._pause = pause
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> Outcome:
        """Let every session finish its message."""
        self._stopping.set()
        self._thread.join()
        return self.outcome

    @property
    def delivered(self) -> int:
        """Messages that were acknowledged so far."""
        return len(self.outcome.acknowledged)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._sessions):
                group.create_task(self._session())

    async def _session(self) -> None:
        while not self._stopping.is_set():
            worker, number = "", next(self._numbers)
            self.outcome.begun += 1
            try:
                async with asyncio.timeout(TIMEOUT):
                    reader, writer = await self._connect()
                    try:
                        worker = (await _reply(reader, b"220")).split()[-1].decode()
                        await self._deliver(reader, writer, number)
                    finally:
                        writer.transport.abort()
                self.outcome.by_worker[worker] += 1
            except (OSError, EOFError, FailedError, TimeoutError) as error:
                self.outcome.failed.append((worker, repr(error)))
                await asyncio.sleep(0.01)
            if self._pause:
                await asyncio.sleep(self._pause)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._address, str):
            return await asyncio.open_unix_connection(self._address)
        return await asyncio.open_connection(*self._address)

    async def _deliver(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        for command, code in (
            (b"EHLO chaos.example\r\n", b"250"),
            (b"MAIL FROM:<a@chaos.example>\r\n", b"250"),
            (b"RCPT TO:<b@chaos.example>\r\n", b"250"),
            (b"DATA\r\n", b"354"),
            (message(number) + b".\r\n", b"250"),
        ):
            writer.write(command)
            await _reply(reader, code)
        self.outcome.acknowledged.append(number)
        writer.write(b"QUIT\r\n")
        await _reply(reader, b"221")
        if rest := await reader.read():
            raise FailedError(f"behind the 221: {rest!r}")


async def _reply(reader: asyncio.StreamReader, code: bytes) -> bytes:
    while True:
        line = await reader.readuntil(b"\r\n")
        if line[3:4] != b"-":
            break
    if not line.startswith(code):
        raise FailedError(f"expected {code.decode()}, got {line.decode().strip()}")
    return line


def message(number: int) -> bytes:
    """A message that says which it is, and how many octets its body has."""
    return b"Subject: chaos\r\nX-Chaos: %d %d\r\n\r\n%s" % (number, len(_BODY), _BODY)


def stored(maildir: Path) -> Counter[int]:
    """The messages in a Maildir by their numbers.

    Raises:
        AssertionError: one is not whole.
    """
    found: Counter[int] = Counter()
    for path in (maildir / "new").iterdir():
        octets = path.read_bytes()
        mark = _MARK.search(octets)
        assert mark is not None, f"{path}: half a message"
        body = octets.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
        assert body == _BODY.replace(b"\r\n", b"\n"), f"{path}: half a message"
        found[int(mark[1])] += 1
    return found
