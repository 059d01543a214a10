"""From accepted messages to the store, in batches.

While one batch is being stored the next one gathers: the busier the worker, the larger the batches, and the cheaper
each message's share of a sync. Nothing is ever held back to wait for company. Runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from ..protocol.envelope import Message
from ..protocol.replies import TEMPORARY_FAILURE, Reply
from ..store import Store, StoreError
from .columns import STORE_SECONDS

_MAX_BATCH: Final = 256  # messages
_log = logging.getLogger("fastsmtp.store")

Outcome = Reply | Sequence[Reply | None] | None
"""None if the message is durable, else the reply that says why it is not, or one or None for each recipient."""
Stored = Callable[[Outcome], None]

_Delivery = tuple[Message, Stored, float]  # when it was put here, by the monotonic clock


class Intake:
    """Hands messages to a store and brings back what became of each.

    Args:
        store: takes them.
        cells: of the worker's row in the scoreboard.
    """

    def __init__(self, store: Store, cells: memoryview[int]) -> None:
        self._store = store
        self._cells = cells
        self._waiting: list[_Delivery] = []
        # A store that writes to a disk has one batch at a time. One that waits for others says how many, and each is of
        # one message: outcomes are told by the batch, and a slow one would hold up those that came with it.
        self._parallel_batches: int = getattr(store, "parallel_batches", 1)
        self._most = _MAX_BATCH if self._parallel_batches == 1 else 1
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, message: Message, stored: Stored) -> None:
        """Store a message; `stored` is called once, later."""
        self._waiting.append((message, stored, monotonic()))
        if len(self._tasks) < self._parallel_batches:
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            outcomes = await self._store_batch([message for message, _, _ in batch])
            for _, _, began in batch:
                STORE_SECONDS.observe(self._cells, monotonic() - began)
            # Not from within this task: what follows may start a hook, which is a task of its own.
            asyncio.get_running_loop().call_soon(_tell, batch, outcomes)
        self._tasks.discard(asyncio.current_task())

    async def _store_batch(self, messages: list[Message]) -> list[Outcome]:
        try:
            results = await self._store.store(messages)
        except Exception:
            _log.exception("the store failed; %d messages refused", len(messages))
            return [TEMPORARY_FAILURE] * len(messages)
        return [_outcome(message, error) for message, error in zip(messages, results, strict=True)]


def _outcome(message: Message, error: StoreError | None) -> Outcome:
    if error is None:
        return None
    _log.error("message %s not stored: %s", message.id, error)
    replies = error.replies
    if replies and (len(replies) != len(message.recipients) or not any(replies)):
        _log.error("message %s: the store's replies must be one for each recipient, and one a refusal", message.id)
        return error.reply
    return replies or error.reply


def _tell(batch: list[_Delivery], outcomes: list[Outcome]) -> None:
    for (message, stored, _), outcome in zip(batch, outcomes, strict=True):
        try:
            stored(outcome)
        except Exception:
            _log.exception("message %s: its session could not go on", message.id)
