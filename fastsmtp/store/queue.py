"""The stores that are queues: accepted mail waits there for delivery, or for a consumer.

The Received field is put on top at acceptance. Return-Path is not: only final delivery adds it (RFC 5321 4.4).
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, ClassVar

from fastsmtp.protocol.replies import TEMPORARY_FAILURE
from fastsmtp.queue import Mail, Queue, QueueError, check_url, describe

from .contract import StoreError
from .trace import received

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastsmtp.protocol.envelope import Message, Sender


class QueueStore:
    """Puts what a worker accepts into a queue.

    Args:
        location: what stands behind the scheme.
        slot: the worker's slot.
    """

    scheme: ClassVar[str]

    def __init__(self, location: str, slot: int) -> None:
        self._url = f"{self.scheme}:{location}"
        self._slot = slot
        self._stack = AsyncExitStack()

    @classmethod
    def check(cls, location: str) -> None:
        """Validates a location without touching disk or network.

        Raises:
            ValueError: it is malformed.
        """
        check_url(f"{cls.scheme}:{location}")

    @classmethod
    def describe(cls, location: str) -> str:
        return describe(f"{cls.scheme}:{location}")

    async def __aenter__(self) -> QueueStore:
        """Opens the queue.

        Raises:
            StoreError: it cannot be used.
        """
        try:
            self._queue = await self._stack.enter_async_context(Queue.open(self._url, self._slot))
        except QueueError as error:
            raise StoreError(error.reply, error.reason) from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Returns when everything is durable that was accepted."""
        await self._stack.aclose()

    def free_bytes(self) -> int | None:
        return self._queue.free_bytes()

    async def store(self, batch: Sequence[Message]) -> Sequence[StoreError | None]:
        """Queues a batch; see `Store.store`."""
        now = time.time()
        results: list[StoreError | None] = [None] * len(batch)
        mails: list[Mail] = []
        places: list[int] = []  # of the mails, in the batch
        for place, message in enumerate(batch):
            try:
                mails.append(_mail(message, now))
                places.append(place)
            except ValueError as error:
                results[place] = StoreError(TEMPORARY_FAILURE, f"message {message.id}: {error}")
        for place, failed in zip(places, await self._queue.put_each(mails), strict=True):
            if failed is not None:
                results[place] = StoreError(failed.reply, failed.reason)
        return results


class SQLiteQueue(QueueStore):
    """A queue in a directory of this machine."""

    scheme = "queue"


class PostgreSQLQueue(QueueStore):
    """A queue for many machines."""

    scheme = "postgresql"


def _mail(message: Message, now: float) -> Mail:
    return Mail(
        message.sender, message.recipients, message.content, message.id, received(message, now), now,
        _held_until(message.sender, now),
    )  # fmt: skip


def _held_until(sender: Sender, now: float) -> float | None:
    """Until when the sender wants it held back (RFC 4865)."""
    if sender.hold_for is not None:
        return now + sender.hold_for
    return sender.hold_until.timestamp() if sender.hold_until is not None else None
