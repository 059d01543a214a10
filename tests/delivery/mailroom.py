"""A queue and its deliverer, on a test's loop, between next hops that the test makes."""

from __future__ import annotations

import asyncio
import email
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from email.message import Message
from pathlib import Path

from fastsmtp.client import Hop, Patience
from fastsmtp.delivery.attempt import Attempts
from fastsmtp.delivery.deliverer import Deliverer, Limits
from fastsmtp.delivery.dkim import Signer
from fastsmtp.delivery.log import DeliveryLog
from fastsmtp.delivery.pace import Pace
from fastsmtp.delivery.pools import Pools
from fastsmtp.delivery.routes import NO_SUCH_DOMAIN, NoRouteError
from fastsmtp.delivery.schedule import Schedule
from fastsmtp.protocol.envelope import Recipient, Sender
from fastsmtp.queue import Mail, Queue, State
from tests.client.hops import CONTENT, to

PATIENCE = Patience(connect=5, command=5, block=5, end=5)
ALICE = Sender("alice", "home.example")
QUICK = Schedule(first=0.02, longest=0.05)


class Map:
    """Routes as a test wants them: a domain that is not on the map does not exist."""

    def __init__(self, hops: Mapping[str, Sequence[Hop]]) -> None:
        self._hops = hops

    async def hops(self, domain: str) -> Sequence[Hop]:
        if domain not in self._hops:
            raise NoRouteError(NO_SUCH_DOMAIN)
        return self._hops[domain]


class Mailroom:
    """A queue with a deliverer at work.

    Attributes:
        queue: the queue.
        log: what the deliverer wrote.
    """

    def __init__(self, queue: Queue, log: DeliveryLog, file: Path) -> None:
        self.queue = queue
        self.log = log
        self._file = file

    async def put(
        self,
        *recipients: str | Recipient,
        sender: Sender = ALICE,
        content: bytes = CONTENT,
        accepted_at: float | None = None,
    ) -> None:
        found = [each if isinstance(each, Recipient) else to(each)[0] for each in recipients]
        await self.queue.put([Mail(sender, found, content, "M1", accepted_at=accepted_at)])

    async def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s; log: {self.lines}"
            await asyncio.sleep(0.01)

    async def until_empty(self, seconds: float = 15.0) -> None:
        """Waits until nothing is in the queue."""
        end = time.monotonic() + seconds
        while any((await self.queue.stats()).items.values()):
            assert time.monotonic() < end, f"not within {seconds} s; log: {self.lines}"
            await asyncio.sleep(0.02)

    async def count(self, state: State) -> int:
        return (await self.queue.stats()).items[state]

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()]


@asynccontextmanager
async def mailroom(
    directory: Path,
    hops: Mapping[str, Sequence[Hop]],
    schedule: Schedule = QUICK,
    signers: Sequence[Signer] = (),
    max_received: int = 50,
    per_minute: float = 0,
) -> AsyncIterator[Mailroom]:
    """A mailroom at work."""
    file = directory / "delivery.log"
    descriptor = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    log = DeliveryLog("json", descriptor)
    pools = Pools("mx.example", PATIENCE)
    try:
        async with Queue.open(f"queue:{directory}/queue") as queue:
            attempts = Attempts(Map(hops), pools, signers, max_received)
            deliverer = Deliverer(queue, attempts, schedule, "mx.example", log, Pace(per_minute))
            running = asyncio.ensure_future(deliverer.run(Limits(20, 5, 60)))
            try:
                yield Mailroom(queue, log, file)
            finally:
                running.cancel()
                await asyncio.wait((running,))
                await deliverer.finish(5)
    finally:
        await pools.close()
        os.close(descriptor)


def status_of(report: bytes) -> tuple[Message, list[Message]]:
    """What programs read in a report: the fields of the message, and those of each recipient."""
    parsed = email.message_from_bytes(report)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    _, status, _ = parts_of(parsed)
    first, *rest = parts_of(status)
    return first, rest


def parts_of(message: Message) -> list[Message]:
    """The parts of a message that has some."""
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert all(isinstance(part, Message) for part in parts)
    return parts  # type: ignore[return-value]  # the line above
