"""One consumer's way through a queue: a fair round over destinations, so that no domain makes the others wait.

Each look at a shard goes on behind the destination where the last one ended, and takes of each no more than the
consumer may work on at a time. So a domain with a million messages gets its few places, and the domain with one message
is next. Shards take turns too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import ref

from .codec import decode_notes, decode_recipients, decode_sender
from .contract import Item, QueueError, State
from .shard import Outcome, Wanted

if TYPE_CHECKING:
    from .leases import Leases
    from .shard import Backend, Claim, Found, Shard

# Seconds between two looks where nothing rings: another machine's clock or a lost bell must not stop the mail.
_LONGEST_WAIT: Final = 5.0
_SHORTEST_WAIT: Final = 0.05
_log = logging.getLogger("fastsmtp.queue")


class Consumption:
    """Takes items for one consumer.

    Args:
        backend: where from.
        leases: keep what was taken.
        concurrency: items in hand at a time.
        per_destination: of these, for one destination.
        lease: seconds.
    """

    def __init__(self, backend: Backend, leases: Leases, concurrency: int, per_destination: int, lease: float) -> None:
        self._backend = backend
        self._leases = leases
        self._concurrency = concurrency
        self._per_destination = per_destination
        self._lease = lease
        self._busy: Counter[str] = Counter()  # items in hand, by destination
        self._after: dict[Shard, str] = {}
        self._turn = 0
        self._moved = asyncio.Event()  # an item has ended

    async def run(self) -> AsyncGenerator[Item, None]:
        """The items; closing it gives back those that it has not handed out yet."""
        taken: list[Item] = []
        try:
            while True:
                self._moved.clear()
                patience = await self._take(taken)
                taken.reverse()
                if not taken:
                    await self._wait(patience)
                while taken:
                    yield taken.pop()
        finally:
            await self._leases.give_back([item._lease for item in taken])

    @property
    def _room(self) -> int:
        return self._concurrency - self._busy.total()

    async def _take(self, taken: list[Item]) -> float:
        """Adds what is ready, as far as there is room; returns for how long nothing will be."""
        shards = await self._backend.shards()
        patience = _LONGEST_WAIT
        for number in range(len(shards)):
            if self._room <= 0:
                break
            shard = shards[(self._turn + number) % len(shards)]
            try:
                due = await self._take_from(shard, taken)
            except QueueError as error:
                _log.warning("%s", error)
                continue
            patience = min(patience, _LONGEST_WAIT if due is None else max(due, _SHORTEST_WAIT))
        self._turn += 1
        return patience

    async def _take_from(self, shard: Shard, taken: list[Item]) -> float | None:
        found = await self._claim(shard)
        self._after[shard] = found.after
        unreadable: list[tuple[Claim, Exception]] = []
        for claim in found.claims:  # without waiting: as long as a claim is no item, nobody would give it back
            try:
                taken.append(self._item(shard, claim))
            except (ValueError, TypeError) as error:
                unreadable.append((claim, error))
        for claim, fault in unreadable:
            await _hold(shard, claim, fault)
        return found.due

    async def _claim(self, shard: Shard) -> Found:
        """Whoever is cancelled meanwhile gives back what was taken, or nobody would have it until the lease is over."""
        wanted = Wanted(self._room, self._per_destination, self._busy, self._after.get(shard, ""), self._lease)
        claiming = asyncio.ensure_future(shard.claim(wanted))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(QueueError, TimeoutError):
                found = await asyncio.wait_for(claiming, _LONGEST_WAIT)
                await shard.give_back([(claim.key, claim.token) for claim in found.claims])
            raise

    def _item(self, shard: Shard, claim: Claim) -> Item:
        """The item of a claim.

        Raises:
            ValueError, TypeError: it cannot be read.
        """
        sender, recipients = decode_sender(claim.sender), decode_recipients(claim.recipients)
        notes = decode_notes(claim.notes)
        destination = claim.destination
        self._busy[destination] += 1
        lease = self._leases.open(shard, claim.key, claim.token, self._lease, partial(self._has_ended, destination))
        item = Item(
            lease.item_id, claim.message_id, destination, sender, recipients, claim.content,
            claim.accepted_at, claim.attempts, claim.reason, notes, lease,
        )  # fmt: skip
        lease.item = ref(item)
        return item

    def _has_ended(self, destination: str) -> None:
        self._busy[destination] -= 1
        if not self._busy[destination]:
            del self._busy[destination]
        self._moved.set()

    async def _wait(self, patience: float) -> None:
        """Until there is room, or something may be ready."""
        moved = asyncio.ensure_future(self._moved.wait())
        if self._room <= 0:
            await moved
            return
        rung = asyncio.ensure_future(self._backend.wait(patience))
        try:
            await asyncio.wait((moved, rung), return_when=asyncio.FIRST_COMPLETED)
        finally:
            moved.cancel()
            rung.cancel()


async def _hold(shard: Shard, claim: Claim, error: Exception) -> None:
    """Puts aside what cannot be read, for another version may know how."""
    reason = f"cannot be read: {error}"
    _log.error("item %s-%d is held: %s", shard.name, claim.key, reason)
    await shard.finish(Outcome(claim.key, claim.token, State.HELD, reason=reason, notes=claim.notes))
