"""Mails for the queue's tests, and consumers that take them out again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from fastsmtp.protocol.envelope import Recipient, Sender
from fastsmtp.queue import Item, Mail, Queue

T = TypeVar("T")
ALICE = Sender("alice", "example.com")
CONTENT = b"Subject: test\r\n\r\nhello\r\n"
DEADLINE = 20.0  # seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE):
            return await main

    return asyncio.run(bounded())


def mail(message_id: str, *recipients: str, content: bytes = CONTENT, sender: Sender = ALICE, **more: Any) -> Mail:
    """A mail; without recipients, for bob@example.org."""
    addresses = [each.rpartition("@") for each in recipients or ("bob@example.org",)]
    return Mail(sender, [Recipient(local, domain) for local, _, domain in addresses], content, message_id, **more)


async def take(queue: Queue, count: int, **limits: Any) -> list[Item]:
    """The next items, which stay in hand."""
    items: list[Item] = []
    if count:
        async with aclosing(queue.consume(**limits)) as consumption:
            async for item in consumption:
                items.append(item)
                if len(items) == count:
                    break
    return items


async def drain(queue: Queue) -> list[Item]:
    """All items that there are, acknowledged."""
    counts = (await queue.stats()).items
    items = await take(queue, sum(counts.values()), concurrency=10_000, per_destination=10_000)
    await asyncio.gather(*(item.ack() for item in items))
    return items


async def counts(queue: Queue) -> dict[str, int]:
    """The states that there are items in."""
    return {state.name: count for state, count in (await queue.stats()).items.items() if count}


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Queue, Queue]]:
    """The same queue opened twice, as two processes would."""
    async with Queue.open(url) as one, Queue.open(url) as other:
        yield one, other
