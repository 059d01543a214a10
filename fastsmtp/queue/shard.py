"""What the two engines have in common: a backend has shards, and each shard keeps items by itself.

An item's place is its shard and its key. All times are Unix seconds. A shard answers from the event loop on which it
was opened; what it cannot do it raises as `QueueError`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .contract import Mail, QueueError, State, Statistics, Summary


@dataclass(slots=True)
class Claim:
    """An item as a shard hands it out, its parts still encoded.

    Attributes:
        key: in its shard.
        token: of the lease; who does not know it cannot end the item.
    """

    key: int
    token: int
    message_id: str
    destination: str
    sender: str
    recipients: str
    content: memoryview
    accepted_at: float
    attempts: int
    reason: str | None
    notes: str | None


@dataclass(slots=True)
class Wanted:
    """What a consumer would take from a shard now.

    Attributes:
        count: items.
        per_destination: how many of a destination it works on at a time.
        busy: how many it works on already, by destination.
        after: the destination behind which the round goes on.
        lease: seconds.
    """

    count: int
    per_destination: int
    busy: Mapping[str, int]
    after: str
    lease: float

    def room(self, destination: str) -> int:
        """How many more items of a destination it would take."""
        return min(self.count, self.per_destination - self.busy.get(destination, 0))


@dataclass(slots=True)
class Found:
    """What a shard had.

    Attributes:
        claims: the items.
        after: where the round goes on.
        due: when the next item becomes ready by itself, seconds from now; None: none will.
    """

    claims: list[Claim]
    after: str
    due: float | None


@dataclass(slots=True)
class Outcome:
    """What becomes of an item that a consumer had.

    Attributes:
        key: of the item.
        token: of the lease.
        state: what it is next; None: it is done, and leaves the queue.
        due: when it is ready (`State.DEFERRED`).
        reason: why, for people.
        recipients: those that are left, encoded; None: as they were.
        notes: encoded.
    """

    key: int
    token: int
    state: State | None = None
    due: float | None = None
    reason: str | None = None
    recipients: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items `ls` tells of; None does not narrow."""

    state: State | None = None
    destination: str | None = None
    limit: int = 100


class Shard(Protocol):
    """One database."""

    @property
    def name(self) -> str:
        """Stays the same for as long as the database lives; letters and digits."""
        ...

    async def put(self, mails: Sequence[Mail]) -> Sequence[QueueError | None]:
        """Returns when each mail is durable or refused; never raises for one of them."""
        ...

    async def claim(self, wanted: Wanted) -> Found:
        """Leases items that are ready, in a round over their destinations."""
        ...

    async def finish(self, outcome: Outcome) -> bool:
        """Durably ends a lease; returns whether the lease was still held."""
        ...

    async def extend(self, held: Collection[tuple[int, int]], lease: float) -> set[int]:
        """Extends leases, given as (key, token), to `lease` seconds from now; returns the keys of those lost."""
        ...

    async def give_back(self, held: Collection[tuple[int, int]]) -> None:
        """Makes leased items ready again, as if nobody had taken them."""
        ...

    async def stats(self) -> Statistics:
        """Counts the items."""
        ...

    async def ls(self, which: Filter) -> list[Summary]:
        """Items, the oldest first."""
        ...

    async def show(self, key: int) -> tuple[Summary, bytes] | None:
        """An item and the content of its message."""
        ...

    async def move(self, keys: Collection[int], origins: Collection[State], state: State) -> set[int]:
        """Puts items that are in one of `origins` into `state`; out of DEAD, they count as never tried.

        Returns:
            The keys of those that were moved.
        """
        ...

    async def drop(self, keys: Collection[int]) -> set[int]:
        """Deletes items; returns the keys of those that were there."""
        ...


def statistics(rows: Iterable[tuple[int, int, float]]) -> Statistics:
    """What rows say, each of a state, how many items are in it, and when the oldest of them was accepted."""
    found = list(rows)
    oldest = [accepted_at for state, _, accepted_at in found if state < State.HELD]
    return Statistics({State(state): count for state, count, _ in found}, min(oldest, default=None))


class Backend(Protocol):
    """The shards of a queue. It is entered before it is used, on the event loop."""

    async def __aenter__(self) -> Backend: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def shards(self) -> Sequence[Shard]:
        """All that there are by now and can be used; `missing` names the others."""
        ...

    @property
    def missing(self) -> Sequence[str]:
        """Shards that could not be opened yet, for people."""
        ...

    async def put(self, mails: Sequence[Mail]) -> Sequence[QueueError | None]:
        """As `Shard.put`, into whichever shard is the right one."""
        ...

    async def wait(self, seconds: float) -> None:
        """Returns when something may have come, or the time is over."""
        ...

    def free_bytes(self) -> int | None:
        """The room there is, in octets; None if it is unknown."""
        ...
