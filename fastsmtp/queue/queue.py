"""`Queue`: what acceptors, handlers, consumers and people at the command line use of a queue."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from fastsmtp.protocol.replies import TEMPORARY_FAILURE

from .consumption import Consumption
from .contract import Item, Mail, QueueError, State, Statistics, Summary
from .leases import Leases
from .schemes import make_backend
from .shard import Filter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from .shard import Backend, Shard

_ID: Final = re.compile(r"([a-z0-9]+)-([0-9]{1,18})", re.ASCII)
_WAITING: Final = frozenset({State.READY, State.DEFERRED})


class Queue:
    """A queue that is open. Made by `open`; belongs to the event loop on which it was opened."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._leases = Leases()

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, slot: int | None = None, create: bool = True) -> AsyncIterator[Queue]:
        """Opens the queue that a URL names; leaving the context gives back the items that are still in hand.

        Args:
            url: ``queue:PATH`` or ``postgresql://...``.
            slot: of the worker that puts; None for everybody else.
            create: whether a queue in a directory is made if it is not there; tables in PostgreSQL always are.

        Raises:
            ValueError: the URL names no queue.
            QueueError: on entering, it cannot be used.
        """
        async with make_backend(url, slot, create) as backend:
            queue = cls(backend)
            try:
                yield queue
            finally:
                await queue._leases.close()

    async def put(self, mails: Sequence[Mail]) -> None:
        """Queues mails; returns when all are durable.

        Raises:
            QueueError: why one of them is not in the queue. The others may be.
        """
        for error in await self.put_each(mails):
            if error is not None:
                raise error

    async def put_each(self, mails: Sequence[Mail]) -> Sequence[QueueError | None]:
        """Queues mails; for each, in their order, None if it is durable, else why it is not there."""
        return await self._backend.put(mails)

    def consume(
        self, *, concurrency: int = 20, per_destination: int = 5, lease: float = 300
    ) -> AsyncGenerator[Item, None]:
        """The items that are ready, as they become ready, for ever; in a fair round over destinations.

        Closing the iterator, or cancelling who waits for it, stops the taking: what was not handed out yet goes back
        to the queue at once. Items that were handed out stay with who has them.

        Args:
            concurrency: items in hand at a time; the next one comes when one has ended.
            per_destination: of these, for one destination.
            lease: seconds after which the items of a consumer that died are handed out again.
        """
        return Consumption(self._backend, self._leases, concurrency, per_destination, lease).run()

    def free_bytes(self) -> int | None:
        """The room there is, in octets; None if it is unknown."""
        return self._backend.free_bytes()

    # -- for people ---------------------------------------------------------------------------------------------------

    async def stats(self) -> Statistics:
        """Counts the items of all shards; one that does not answer is named instead."""
        items = dict.fromkeys(State, 0)
        oldest: list[float] = []
        unreachable: list[str] = []
        for shard in await self._backend.shards():
            try:
                found = await shard.stats()
            except QueueError:
                unreachable.append(shard.name)
                continue
            for state, count in found.items.items():
                items[state] += count
            oldest += [found.oldest] if found.oldest is not None else []
        return Statistics(items, min(oldest, default=None), (*unreachable, *self._backend.missing))

    async def ls(self, state: State | None = None, destination: str | None = None, limit: int = 100) -> list[Summary]:
        """Items of all shards, the oldest first.

        Raises:
            QueueError: a shard does not answer.
        """
        which = Filter(state, destination, limit)
        shards = await self._all_shards()
        found = [item for shard in shards for item in await shard.ls(which)]
        return sorted(found, key=lambda item: item.accepted_at)[:limit]

    async def show(self, item_id: str) -> tuple[Summary, bytes]:
        """An item, and the content of its message.

        Raises:
            KeyError: there is no such item.
            QueueError: its shard does not answer.
        """
        ((shard, (key,)),) = await self._places([item_id])
        found = await shard.show(key)
        if found is None:
            raise KeyError(item_id)
        return found

    async def retry(self, ids: Iterable[str]) -> list[str]:
        """Makes items ready now that wait for their time or are among the dead letters; those start from the beginning.

        Returns:
            The ids of those for which it was so; this holds for `hold`, `release` and `drop`, too.

        Raises:
            KeyError: an id is of no shard.
            QueueError: a shard does not answer.
        """
        origins = {State.READY, State.DEFERRED, State.DEAD}
        return await self._each(ids, lambda shard, keys: shard.move(keys, origins, State.READY))

    async def hold(self, ids: Iterable[str]) -> list[str]:
        """Keeps items that wait from consumers; those in hand are not touched."""
        return await self._each(ids, lambda shard, keys: shard.move(keys, _WAITING, State.HELD))

    async def release(self, ids: Iterable[str]) -> list[str]:
        """Makes items ready that were held."""
        return await self._each(ids, lambda shard, keys: shard.move(keys, {State.HELD}, State.READY))

    async def drop(self, ids: Iterable[str]) -> list[str]:
        """Deletes items for good, in whatever state they are."""
        return await self._each(ids, lambda shard, keys: shard.drop(keys))

    async def _each(
        self, ids: Iterable[str], act: Callable[[Shard, Collection[int]], Awaitable[set[int]]]
    ) -> list[str]:
        done: list[str] = []
        for shard, keys in await self._places(ids):
            done += [f"{shard.name}-{key}" for key in sorted(await act(shard, keys))]
        return done

    async def _all_shards(self) -> Sequence[Shard]:
        shards = await self._backend.shards()
        if self._backend.missing:
            raise QueueError(TEMPORARY_FAILURE, f"not reachable: {', '.join(self._backend.missing)}")
        return shards

    async def _places(self, ids: Iterable[str]) -> list[tuple[Shard, list[int]]]:
        shards = {shard.name: shard for shard in await self._all_shards()}
        keys: dict[str, list[int]] = {}
        for item_id in ids:
            parts = _ID.fullmatch(item_id)
            if parts is None or parts[1] not in shards:
                raise KeyError(item_id)
            keys.setdefault(parts[1], []).append(int(parts[2]))
        return [(shards[name], found) for name, found in keys.items()]
