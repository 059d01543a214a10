"""What a queue is to those who use it: what goes in, what comes out, and what each outcome means.

What it guarantees: a mail whose `put` has returned survives a power cut, and stays until every part of it was
acknowledged or dropped. What it hands out, it hands out at least once: a consumer that dies between its work and its
`ack` leaves the item to another one. No two consumers have an item at the same time, as long as each keeps its lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastsmtp.protocol.envelope import Recipient, Sender
    from fastsmtp.protocol.replies import Reply

    from .leases import Lease


class QueueError(Exception):
    """Why a queue does not have a mail, could not be opened, or has lost track of an item.

    Attributes:
        reply: what a client is told whose message this is about.
        reason: what the log is told; never shown to a client.
    """

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply
        self.reason = reason


class LeaseLostError(QueueError):
    """The item is another consumer's by now, or gone: what was done for it may be done a second time."""


class State(IntEnum):
    """Where an item is in its life; the numbers are what the tables hold.

    Attributes:
        READY: to be taken by the next consumer.
        DEFERRED: ready when its time has come: after a failed attempt, or held back by its sender (RFC 4865).
        LEASED: a consumer works on it.
        HELD: waits until somebody releases it.
        DEAD: given up; among the dead letters until somebody retries or drops it.
    """

    READY = 0
    DEFERRED = 1
    LEASED = 2
    HELD = 3
    DEAD = 4


@dataclass(slots=True)
class Mail:
    """What goes into a queue.

    Attributes:
        sender: the reverse-path with all its parameters.
        recipients: at least one; those of one domain become one `Item`.
        content: header and body, as the next hop or the consumer is to get them.
        message_id: the id that the message has from acceptance to delivery: in the 250, the log and the Received field.
        trace: header fields to put in front of the content.
        accepted_at: when, in Unix seconds; None: now.
        not_before: until when to hold it back, in Unix seconds.
    """

    sender: Sender
    recipients: Sequence[Recipient]
    content: bytes | memoryview
    message_id: str
    trace: bytes = b""
    accepted_at: float | None = None
    not_before: float | None = None


@dataclass(slots=True, weakref_slot=True, eq=False)
class Item:
    """A message with those of its recipients that share a domain, in the hands of one consumer.

    It ends with one of `ack`, `retry` and `reject`; until then its lease is extended by itself, as long as somebody
    refers to it and the queue is open. Belongs to the event loop on which the queue was opened.

    Attributes:
        id: unique in the queue.
        message_id: of the message, from acceptance to delivery; the key for consumers that must not do things twice.
        destination: the domain of the recipients in lower case; empty for ``<postmaster>``.
        sender: with all parameters.
        recipients: at least one.
        content: header and body; the header begins with the Received field of this server. It stays valid as long as
            it is referenced.
        accepted_at: Unix seconds.
        attempts: how many were made before this one; a consumer that dies counts as one.
        reason: why the last attempt failed; None at the first.
        notes: JSON that the consumer keeps with the item; what is changed here is kept by `retry` and `reject`.
    """

    id: str
    message_id: str
    destination: str
    sender: Sender
    recipients: tuple[Recipient, ...]
    content: memoryview
    accepted_at: float
    attempts: int
    reason: str | None
    notes: dict[str, Any]
    _lease: Lease = field(repr=False)

    async def ack(self) -> None:
        """It is done: the item leaves the queue, durably when this returns.

        Raises:
            LeaseLostError: another consumer has it, or it is gone.
            QueueError: the queue cannot be reached; the item will be handed out again.
        """
        await self._lease.ack()

    async def retry(
        self,
        at: float,
        reason: str,
        recipients: Sequence[Recipient] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """It is to be tried again.

        Args:
            at: when, in Unix seconds.
            reason: why, for people.
            recipients: those that are left; None: all. The others leave the queue; without any it is an `ack`.
            notes: to be kept with the item, besides `self.notes`.

        Raises:
            LeaseLostError: another consumer has it, or it is gone.
            QueueError: the queue cannot be reached; the item will be handed out again as it was.
        """
        await self._lease.retry(at, reason, recipients, {**self.notes, **(notes or {})})

    async def reject(self, reason: str) -> None:
        """It is given up, and goes to the dead letters; raises what `retry` raises.

        Args:
            reason: why, for people.
        """
        await self._lease.reject(reason, self.notes)

    async def extend(self) -> None:
        """Extends the lease now; a queue that is open does so by itself. Raises what `retry` raises."""
        await self._lease.extend()


@dataclass(frozen=True, slots=True)
class Summary:
    """An item as `Queue.ls` tells of it.

    Attributes:
        id: of the item.
        message_id: of its message.
        state: of the item.
        destination: domain.
        sender: address; empty for the null sender.
        recipients: addresses.
        size: octets of the content.
        accepted_at: Unix seconds.
        due: when it is ready, or its lease ends, in Unix seconds; None for states without such a time.
        attempts: how many were made.
        reason: why the last one failed.
        notes: what consumers keep with it.
    """

    id: str
    message_id: str
    state: State
    destination: str
    sender: str
    recipients: tuple[str, ...]
    size: int
    accepted_at: float
    due: float | None
    attempts: int
    reason: str | None
    notes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Statistics:
    """How much is in a queue.

    Attributes:
        items: how many, by state; every state is there.
        oldest: when the oldest item that is neither held nor dead was accepted, Unix seconds; None if there is none.
        unreachable: shards that did not answer, and so are not counted.
    """

    items: Mapping[State, int]
    oldest: float | None
    unreachable: tuple[str, ...] = ()

    def as_json(self, now: float) -> dict[str, Any]:
        """As JSON takes it, with the oldest item's age in seconds."""
        return {
            "items": {state.name.lower(): count for state, count in self.items.items()},
            "oldest_age_seconds": None if self.oldest is None else max(0.0, round(now - self.oldest, 3)),
            "unreachable": list(self.unreachable),
        }
