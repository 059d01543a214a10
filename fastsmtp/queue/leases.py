"""The items that a consumer has: how they end, and how they are kept until then.

One task for all leases of a queue extends them at a third of their time, in one statement for each shard. An item that
nobody refers to any more without having ended it would be extended for ever; it is given back instead, and logged: it
is a fault of the consumer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import ReferenceType

from fastsmtp.protocol.replies import TEMPORARY_FAILURE

from .codec import encode_notes, encode_recipients
from .contract import Item, LeaseLostError, QueueError, State
from .shard import Outcome

if TYPE_CHECKING:
    from fastsmtp.protocol.envelope import Recipient

    from .shard import Shard

# Seconds between two tries to tell a queue that cannot be reached.
_SHORTEST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_log = logging.getLogger("fastsmtp.queue")


class Lease:
    """What ends one item. Its methods are those of `Item`, which says what they mean."""

    __slots__ = ("_ended", "is_over", "item", "key", "seconds", "shard", "token")

    def __init__(self, shard: Shard, key: int, token: int, seconds: float, ended: Callable[[Lease], None]) -> None:
        self.shard = shard
        self.key = key
        self.token = token
        self.seconds = seconds
        self.item: ReferenceType[Item] | None = None
        self.is_over = False  # nobody extends it any more: it has ended, or the queue was closed
        self._ended = ended

    @property
    def item_id(self) -> str:
        return f"{self.shard.name}-{self.key}"

    async def ack(self) -> None:
        await self._end(Outcome(self.key, self.token))

    async def retry(
        self, at: float, reason: str, recipients: Sequence[Recipient] | None, notes: Mapping[str, Any]
    ) -> None:
        if recipients is not None and not recipients:
            await self.ack()
            return
        left = encode_recipients(recipients) if recipients is not None else None
        await self._end(Outcome(self.key, self.token, State.DEFERRED, at, reason, left, encode_notes(notes)))

    async def reject(self, reason: str, notes: Mapping[str, Any]) -> None:
        await self._end(Outcome(self.key, self.token, State.DEAD, None, reason, None, encode_notes(notes)))

    async def extend(self) -> None:
        if await self.shard.extend([(self.key, self.token)], self.seconds):
            self._ended(self)
            raise self._lost()

    async def _end(self, outcome: Outcome) -> None:
        if self.is_over:
            raise self._lost()
        try:
            held = await self._finish(outcome)
        finally:
            # Also if the shard cannot be reached: nobody extends the lease then, and the item comes back.
            self._ended(self)
        if not held:
            raise self._lost()

    async def _finish(self, outcome: Outcome) -> bool:
        """Tell the shard, again and again if it cannot be reached: what is done already should not be done once more.

        It does no harm to say it twice, or too late: who has the item since then has another token.
        """
        give_up, pause = time.monotonic() + self.seconds, _SHORTEST_PAUSE
        while True:
            try:
                return await self.shard.finish(outcome)
            except QueueError:
                if self.is_over or time.monotonic() + pause > give_up:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _lost(self) -> LeaseLostError:
        return LeaseLostError(TEMPORARY_FAILURE, f"item {self.item_id}: another consumer has it, or it is gone")


class Leases:
    """All leases of one queue. Belongs to the event loop."""

    def __init__(self) -> None:
        self._held: dict[Lease, Callable[[], None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._shortest = 0.0  # seconds of the leases that the task goes by

    def open(self, shard: Shard, key: int, token: int, seconds: float, ended: Callable[[], None]) -> Lease:
        """A new lease; `ended` is called when it ends, for whatever reason."""
        lease = Lease(shard, key, token, seconds, self._forget)
        self._held[lease] = ended
        if self._task and seconds < self._shortest:
            self._task.cancel()
        if self._task is None or self._task.done() or seconds < self._shortest:
            self._shortest = seconds
            self._task = asyncio.get_running_loop().create_task(self._keep())
        return lease

    async def close(self) -> None:
        """Gives back what has not ended."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.give_back(list(self._held))

    async def give_back(self, leases: Sequence[Lease]) -> None:
        """Ends leases as if nobody had taken the items; where that fails, they run out."""
        for shard, held in _by_shard(leases).items():
            for lease in held:
                self._forget(lease)
            with suppress(QueueError):
                await shard.give_back([(lease.key, lease.token) for lease in held])

    def _forget(self, lease: Lease) -> None:
        lease.is_over = True
        if ended := self._held.pop(lease, None):
            ended()

    async def _keep(self) -> None:
        """Extends what is held, for as long as anything is."""
        while self._held:
            await asyncio.sleep(self._shortest / 3)
            await self._give_back_the_lost()
            for seconds in {lease.seconds for lease in self._held}:
                alike = [lease for lease in self._held if lease.seconds == seconds]
                for shard, held in _by_shard(alike).items():
                    try:
                        await self._extend(shard, held, seconds)
                    except QueueError as error:
                        _log.warning("%d leases not extended: %s", len(held), error)

    async def _extend(self, shard: Shard, held: Sequence[Lease], seconds: float) -> None:
        lost = await shard.extend([(lease.key, lease.token) for lease in held], seconds)
        for lease in held:
            if lease.key in lost and lease in self._held:
                _log.warning("item %s: the lease is lost, it may be handled twice", lease.item_id)
                self._forget(lease)

    async def _give_back_the_lost(self) -> None:
        forgotten = [lease for lease in self._held if lease.item is not None and lease.item() is None]
        for lease in forgotten:
            _log.error("item %s: the consumer has dropped it without ack, retry or reject", lease.item_id)
        await self.give_back(forgotten)


def _by_shard(leases: Sequence[Lease]) -> dict[Shard, list[Lease]]:
    result: dict[Shard, list[Lease]] = defaultdict(list)
    for lease in leases:
        result[lease.shard].append(lease)
    return result
