"""What is said for one message, made from its plan."""

from __future__ import annotations

from dataclasses import dataclass

from .mix import Mix, Plan
from .payloads import Payload, payload_of


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is said for one message (RFC 5321 3.3).

    Args:
        sender: of MAIL.
        recipients: of RCPT, each to be accepted.
        refused: a recipient to be refused; empty for none.
        payload: the message.
    """

    sender: str
    recipients: tuple[str, ...]
    refused: str
    payload: Payload

    @classmethod
    def of(cls, plan: Plan, mix: Mix) -> Transaction:
        return cls(
            mix.sender,
            tuple(mix.recipient.format(number) for number in range(plan.recipients)),
            mix.refused_recipient if plan.refused else "",
            mix.payload or payload_of(plan.octets),
        )

    def mail(self, size_offered: bool) -> bytes:
        """The MAIL command, with SIZE= (RFC 1870) where it is offered."""
        size = f" SIZE={len(self.payload.octets)}" if size_offered else ""
        return f"MAIL FROM:<{self.sender}>{size}\r\n".encode()
