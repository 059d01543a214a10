"""Who a message is from, whom it is for, and the message itself (RFC 5321 2.3.1)."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass, field
from datetime import datetime
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


class DeliverBy(NamedTuple):
    """BY= of MAIL (RFC 2852 4).

    Attributes:
        seconds: from now; with mode N it may be negative.
        mode: ``"R"``: return the message if it is late; ``"N"``: tell the sender, and go on.
        trace: whether to tell about each hop.
    """

    seconds: int
    mode: str
    trace: bool


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
        body: ``"7BIT"``, ``"8BITMIME"`` (RFC 6152) or ``"BINARYMIME"`` (RFC 3030), None if not said.
        smtputf8: the transaction may carry UTF-8 in addresses and headers (RFC 6531).
        ret: what a bounce is to return, ``"FULL"`` or ``"HDRS"`` (RFC 3461 4.3).
        envid: the sender's own identifier of this envelope (RFC 3461 4.4).
        auth: who submitted the message (AUTH=, RFC 4954 5), ``""`` for ``<>``, and for clients that have not logged in.
        require_tls: the message must never travel in clear text (RFC 8689).
        deliver_by: until when it should be delivered (RFC 2852).
        hold_for: seconds for which to hold it back (RFC 4865).
        hold_until: until when to hold it back, in UTC (RFC 4865).
        priority: -9 to 9, 0 is normal (MT-PRIORITY, RFC 6710).
    """

    size: int | None = None
    body: str | None = None
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    auth: str | None = None
    require_tls: bool = False
    deliver_by: DeliverBy | None = None
    hold_for: int | None = None
    hold_until: datetime | None = None
    priority: int | None = None

    @property
    def is_null(self) -> bool:
        """Whether this is ``<>``, the sender of bounces, which must never be answered with one (RFC 5321 4.5.5)."""
        return not self.local and not self.domain


@dataclass(slots=True)
class Recipient(Mailbox):
    """One forward-path of RCPT and what its parameters said.

    Attributes:
        notify: when to tell the sender: NEVER, or any of SUCCESS, FAILURE, DELAY (RFC 3461 4.1); None if not said.
        orcpt: the address that this one was made from, as ``(type, address)`` (RFC 3461 4.2).
    """

    notify: tuple[str, ...] | None = None
    orcpt: tuple[str, str] | None = None


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
