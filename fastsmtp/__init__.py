"""An SMTP server framework: write a handler, and fastsmtp brings protocol, processes, threads and storage."""

from .handler import Handler, WorkerInfo, inline
from .protocol.credentials import Credentials, ScramKey
from .protocol.envelope import DeliverBy, Endpoint, Envelope, Mailbox, Message, Recipient, Sender
from .protocol.events import ACCEPT, CLOSE, REJECT, Answer, AuthAnswer, DataAnswer
from .protocol.replies import Reply, SMTPError
from .protocol.session import Session
from .protocol.tls import TLS
from .serving import run

__all__ = [
    "ACCEPT",
    "CLOSE",
    "REJECT",
    "TLS",
    "Answer",
    "AuthAnswer",
    "Credentials",
    "DataAnswer",
    "DeliverBy",
    "Endpoint",
    "Envelope",
    "Handler",
    "Mailbox",
    "Message",
    "Recipient",
    "Reply",
    "SMTPError",
    "ScramKey",
    "Sender",
    "Session",
    "WorkerInfo",
    "inline",
    "run",
]
