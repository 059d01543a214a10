"""An SMTP server framework: write a handler, and fastsmtp brings protocol, processes, threads and storage."""

from .handler import Handler, WorkerInfo, inline
from .protocol.envelope import Endpoint, Envelope, Mailbox, Message, Recipient, Sender
from .protocol.events import ACCEPT, CLOSE, REJECT
from .protocol.replies import Reply, SMTPError
from .protocol.session import Session
from .serving import run

__all__ = [
    "ACCEPT",
    "CLOSE",
    "REJECT",
    "Endpoint",
    "Envelope",
    "Handler",
    "Mailbox",
    "Message",
    "Recipient",
    "Reply",
    "SMTPError",
    "Sender",
    "Session",
    "WorkerInfo",
    "inline",
    "run",
]
