"""Who a message is from, whom it is for, and the message itself (RFC 5321 2.3.1)."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .session import Session

# RFC 5321 4.1.2 Dot-string, with dots anywhere; anything else needs quotes to be written down.
_UNQUOTED = re.compile(r"[\w!#$%&'*+/=?^`{|}~.\x80-\U0010ffff-]+")


class Endpoint(NamedTuple):
    """One end of a connection. A unix socket's host is ``"unix"`` and its port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if self.host == "unix":
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True)
class Mailbox:
    """An address: ``local`` as the client wrote it, without quotes; ``domain`` in lower case (RFC 5321 2.3.11).

    Both are empty for the null sender ``<>``; only the domain is for ``<postmaster>``. A domain may be an address
    literal in brackets.
    """

    local: str
    domain: str

    @property
    def address(self) -> str:
        """The mailbox as it stands between the brackets of a path, quoted where RFC 5321 4.1.2 asks for it."""
        local = self.local
        if not _UNQUOTED.fullmatch(local) and (local or self.domain):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local

    def __str__(self) -> str:
        return self.address


@dataclass(slots=True)
class Sender(Mailbox):
    """The reverse-path of MAIL and what its parameters said; a parameter that was not given has its default.

    Attributes:
        size: octets announced with SIZE= (RFC 1870), None if not announced.
        body: ``"7BIT"``, ``"8BITMIME"`` (RFC 6152), None if not said.
        smtputf8: the transaction may carry UTF-8 in addresses and headers (RFC 6531).
    """

    size: int | None = None
    body: str | None = None
    smtputf8: bool = False

    @property
    def is_null(self) -> bool:
        """Whether this is ``<>``, the sender of bounces, which must never be answered with one (RFC 5321 4.5.5)."""
        return not self.local and not self.domain


@dataclass(slots=True)
class Recipient(Mailbox):
    """One forward-path of RCPT."""


@dataclass(slots=True)
class Envelope:
    """A mail transaction: the sender, and the recipients accepted so far (RFC 5321 3.3)."""

    sender: Sender
    recipients: list[Recipient] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Message:
    """An envelope with its content, complete and checked.

    Attributes:
        id: unique over all workers and machines; stands in the 250, in the log and in the Received field.
        content: header and body as the client meant them (dots unstuffed), a read-only bytes-like object over the
            memory or the file mapping that the message was received into. It stays valid as long as it is referenced.
        session: the session that brought it.
    """

    id: str
    envelope: Envelope
    content: memoryview
    session: Session

    @property
    def sender(self) -> Sender:
        return self.envelope.sender

    @property
    def recipients(self) -> list[Recipient]:
        return self.envelope.recipients

    @property
    def size(self) -> int:
        """Octets of the content, line ends included."""
        return len(self.content)

    def parse(self) -> EmailMessage:
        """The content as an ``email.message.EmailMessage`` (this copies it)."""
        return email.message_from_bytes(bytes(self.content), EmailMessage, policy=email.policy.SMTP)
