"""What is posted to a webhook: a body, the envelope, and a signature over both.

The signature is that of Standard Webhooks: HMAC-SHA256 over ``id.timestamp.body``, in the header webhook-signature,
which libraries for many languages can check. A raw body does not hold the envelope, so this has a header and a
signature of its own, over ``id.timestamp.envelope``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from dataclasses import dataclass
from email.message import EmailMessage
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fastsmtp.protocol.envelope import Message, Recipient, Sender
    from fastsmtp.protocol.session import Session

_log = logging.getLogger("fastsmtp.store")
_JSON: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


class Format(Enum):
    """How a message is posted."""

    RAW = "raw"  # its octets as they are; the envelope in a header field
    JSON = "json"  # one object: envelope, parsed headers, text and html, and the octets in base64


@dataclass(frozen=True, slots=True)
class Request:
    """One message as HTTP carries it.

    Attributes:
        content_type: of the body.
        body: octets.
        envelope: the value of the field Fastsmtp-Envelope; empty where the body holds it.
    """

    content_type: str
    body: memoryview
    envelope: str

    def headers(self, message_id: str, key: bytes, now: int) -> dict[str, str]:
        """The header fields, signed if there is a key; `now` in Unix seconds lets the endpoint refuse old ones."""
        headers = {"Content-Type": self.content_type, "webhook-id": message_id, "webhook-timestamp": str(now)}
        begin = f"{message_id}.{now}.".encode()
        if self.envelope:
            headers["Fastsmtp-Envelope"] = self.envelope
        if key:
            headers["webhook-signature"] = _signature(key, begin, self.body)
        if key and self.envelope:
            headers["Fastsmtp-Envelope-Signature"] = _signature(key, begin, memoryview(self.envelope.encode()))
        return headers


def make_request(message: Message, format: Format, now: float) -> Request:
    """Puts a message into a request. It may take long, and copies the content for JSON: not for the event loop.

    Args:
        message: the message.
        format: of the body.
        now: when it was received, Unix seconds.
    """
    envelope = _described(message, now)
    if format is Format.RAW:
        return Request("message/rfc822", message.content, _JSON.encode(envelope))
    document = {**envelope, **_parsed(message), "raw": base64.b64encode(message.content).decode("ascii")}
    return Request("application/json", memoryview(_JSON.encode(document).encode("ascii")), "")


def _signature(key: bytes, begin: bytes, signed: memoryview) -> str:
    mac = hmac.new(key, begin, hashlib.sha256)
    mac.update(signed)
    return "v1," + base64.b64encode(mac.digest()).decode("ascii")


def _described(message: Message, now: float) -> dict[str, Any]:
    return {
        "id": message.id,
        "received_at": round(now, 3),
        "size": message.size,
        "session": _session(message.session),
        "sender": _sender(message.sender),
        "recipients": [_recipient(recipient) for recipient in message.recipients],
    }


def _session(session: Session) -> dict[str, Any]:
    return {
        "peer": str(session.peer),
        "client_name": session.client_name,
        "server_name": session.server_name,
        "protocol": session.protocol,
        "user": session.user,
    }


def _sender(sender: Sender) -> dict[str, Any]:
    said = {"body": sender.body, "smtputf8": sender.smtputf8 or None, "ret": sender.ret, "envid": sender.envid}
    return {"address": sender.address, **_without_none(said)}


def _recipient(recipient: Recipient) -> dict[str, Any]:
    said = {"notify": recipient.notify, "orcpt": recipient.orcpt and ";".join(recipient.orcpt)}
    return {"address": recipient.address, **_without_none(said)}


def _without_none(pairs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in pairs.items() if value is not None}


def _parsed(message: Message) -> dict[str, Any]:
    """Headers and texts; nulls where the message is no MIME that can be understood."""
    try:
        parsed = message.parse()
        headers = [[name, str(value)] for name, value in parsed.items()]
        return {"headers": headers, "text": _text(parsed, "plain"), "html": _text(parsed, "html")}
    except Exception:  # the parser raises all kinds of things at hostile input; the octets go out all the same
        _log.warning("message %s: its MIME cannot be parsed", message.id, exc_info=True)
        return {"headers": None, "text": None, "html": None}


def _text(parsed: EmailMessage, kind: str) -> str | None:
    part = parsed.get_body((kind,))
    return None if part is None else str(part.get_content())
