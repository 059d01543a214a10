"""Traces, in the admin process: each is a stream of records, one JSON object a line, until its reader goes away.

A reader that is slower than the sessions loses records, and is told how many; nobody waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import parse_qsl

from ..networks import Networks
from .trace_link import MOST_TRACES, Filter, TraceLink

_MOST_WAITING: Final = 4096  # records of one trace


def read_trace(query: str, listeners: Sequence[str]) -> tuple[Filter, float | None]:
    """What a request wants traced, and for how many seconds.

    Args:
        query: of the request: peer, rcpt, listener, duration.
        listeners: those that there are, with their options.

    Raises:
        ValueError: something in it makes no sense; the message is for users.
    """
    given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    duration = float(given.pop("duration", "inf"))
    if not duration > 0:
        raise ValueError("duration: more than 0 seconds")
    if unknown := [name for name in given if name not in Filter._fields]:
        raise ValueError(f"{unknown[0]}: there is {', '.join(Filter._fields)}, duration")
    wanted = Filter(**given)
    if wanted.peer is not None:
        Networks([wanted.peer])
    if wanted.rcpt is not None:
        wanted = wanted._replace(rcpt=wanted.rcpt.lower())
        if not wanted.rcpt or len(wanted.rcpt) > 255:
            raise ValueError("rcpt: a domain")
    addresses = [each.partition(" ")[0] for each in listeners]
    if wanted.listener is not None and wanted.listener not in addresses:
        raise ValueError(f"listener: there is {', '.join(addresses)}")
    return wanted, None if duration == math.inf else duration


class TraceStream:
    """What one reader gets."""

    def __init__(self) -> None:
        self._waiting: deque[dict[str, Any]] = deque()
        self._dropped = 0
        self._bell = asyncio.Event()

    def put(self, record: dict[str, Any]) -> None:
        """A record has come."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(record)
        else:
            self._dropped += 1
        self._bell.set()

    async def pieces(self, duration: float | None) -> AsyncGenerator[bytes]:
        """The lines, in pieces as they come; until so many seconds have passed."""
        loop = asyncio.get_running_loop()
        end = None if duration is None else loop.time() + duration
        while True:
            try:
                async with asyncio.timeout_at(end):
                    await self._bell.wait()
            except TimeoutError:
                yield _line({"time": time.time(), "event": "over"})
                return
            self._bell.clear()
            if lines := b"".join(map(_line, self._take())):
                yield lines

    def _take(self) -> Iterator[dict[str, Any]]:
        while self._waiting:
            yield self._waiting.popleft()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            yield {"time": time.time(), "event": "dropped", "records": dropped}


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


class TraceStreams:
    """All traces of a server. Runs on the loop of the admin process.

    Args:
        link: to the workers.
    """

    def __init__(self, link: TraceLink) -> None:
        self._link = link
        self._streams: dict[int, TraceStream] = {}
        self._filters: dict[int, Filter] = {}
        # Ids are not used again, not even by an admin process that follows this one.
        self._ids = itertools.count(time.time_ns() // 1000)
        link.write({})  # what one before us has left

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take what the workers send."""
        loop.add_reader(self._link, self._receive)

    @property
    def is_full(self) -> bool:
        """Whether there are as many traces as there may be."""
        return len(self._streams) >= MOST_TRACES

    async def trace(self, wanted: Filter, duration: float | None) -> AsyncGenerator[bytes]:
        """Trace the sessions that begin from now on; workers take up to a second to begin."""
        number, stream = next(self._ids), TraceStream()
        self._streams[number], self._filters[number] = stream, wanted
        try:
            self._link.write(self._filters)
            async with aclosing(stream.pieces(duration)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            del self._streams[number], self._filters[number]
            self._link.write(self._filters)

    def _receive(self) -> None:
        for to, record in self._link.received():
            for number in to:
                if stream := self._streams.get(number):
                    stream.put(record)
