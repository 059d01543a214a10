"""What every store promises: an answer of None means that the message survives a power cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastsmtp.protocol.envelope import Message
    from fastsmtp.protocol.replies import Reply


class StoreError(Exception):
    """Why a store does not have a message, or could not be opened.

    Attributes:
        reply: what the client is told.
        reason: what the log is told; never shown to a client.
        replies: where the store has the message for some of its recipients: None for each of those, in their order, and
            the refusal for each of the others. An LMTP client is told each of them.
    """

    def __init__(self, reply: Reply, reason: str, replies: Sequence[Reply | None] = ()) -> None:
        super().__init__(reason)
        self.reply = reply
        self.reason = reason
        self.replies = replies


class Store(Protocol):
    """Where accepted mail goes.

    A store takes batches, because one sync for many messages is what makes durability cheap. It is opened once per
    worker process and used on that worker's event loop.
    """

    async def store(self, batch: Sequence[Message]) -> Sequence[StoreError | None]:
        """Stores messages; returns when each of them is durable or refused.

        The trouble of one message never touches the others of its batch and is never raised. If the call is
        cancelled, none of the batch may count as stored, and the store removes what it can of it; the contents may
        still be read for a moment after that.

        Args:
            batch: messages whose contents stay unchanged until the call returns.

        Returns:
            One result per message, in the batch's order: None if it is durable, else why it was refused.
        """
        ...

    def free_bytes(self) -> int | None:
        """The room there is, in octets; None if it is unknown or has no end. Asked once a second, on the loop."""
        ...
