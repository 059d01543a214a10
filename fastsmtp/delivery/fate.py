"""What became of one recipient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastsmtp.client import Hop, Response
from fastsmtp.protocol.envelope import Recipient

Action = Literal["failed", "delayed", "relayed", "delivered"]


@dataclass(frozen=True, slots=True)
class Fate:
    """A recipient after an attempt.

    Attributes:
        recipient: of the item.
        response: the last word on it.
        hop: who said so; None if it did not come to that.
        is_tls: whether TLS protected the conversation.
        told_on: the hop was given the wishes for reports (DSN) and will see to them.
        reason: what the log and those who look into the queue are told instead; never shown to senders.
    """

    recipient: Recipient
    response: Response
    hop: Hop | None = None
    is_tls: bool = False
    told_on: bool = False
    reason: str = ""

    @property
    def explanation(self) -> str:
        """For people who run this."""
        return self.reason or str(self.response)

    @property
    def is_done(self) -> bool:
        """The next hop has it."""
        return self.response.is_ok

    @property
    def is_failed(self) -> bool:
        """Nobody will ever have it."""
        return self.response.is_permanent

    @property
    def is_deferred(self) -> bool:
        return not self.is_done and not self.is_failed

    def wants(self, event: Literal["FAILURE", "DELAY", "SUCCESS"]) -> bool:
        """Whether the sender is to hear of it (RFC 3461 4.1); who says nothing wants to hear of failures and delays."""
        notify = self.recipient.notify
        return event != "SUCCESS" if notify is None else event in notify
