"""Reports to the sender: bounces, notices of delay, and of success where it was asked for (RFC 3464, 3462, 6533)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from fastsmtp.protocol.envelope import Sender

from .fate import Action, Fate

_SUBJECTS: Final[dict[Action, str]] = {
    "failed": "Undelivered mail, returned to its sender",
    "delayed": "Mail that is delayed",
    "relayed": "Mail that was passed on",
    "delivered": "Mail that was delivered",
}
_TEXTS: Final[dict[Action, str]] = {
    "failed": "Your message could not be delivered to these recipients, and will not be tried again:",
    "delayed": "Your message could not be delivered to these recipients yet. It will be tried again; you need\r\n"
    "not do anything:",
    "relayed": "Your message was passed on to a system that does not send reports, for these recipients:",
    "delivered": "Your message was delivered to these recipients:",
}
_MAX_RETURNED_HEADER: Final = 2**18  # octets


@dataclass(frozen=True, slots=True)
class Report:
    """One report on one message.

    Attributes:
        action: what happened to all of these recipients.
        fates: the recipients.
        sender: of the message; the report goes there.
        message_id: the message's, for people.
        content: of the message.
        accepted_at: when it was accepted, Unix seconds.
        retry_until: for delays: when it will be given up, Unix seconds.
    """

    action: Action
    fates: Sequence[Fate]
    sender: Sender
    message_id: str
    content: memoryview
    accepted_at: float
    retry_until: float | None = None

    def encode(self, reporting: str, report_id: str, now: float) -> bytes:
        """The report as a message.

        Args:
            reporting: the name of this machine.
            report_id: for its Message-ID.
            now: Unix seconds.
        """
        boundary = f"={secrets.token_hex(16)}="
        head = (
            f"From: Mail Delivery System <MAILER-DAEMON@{reporting}>\r\n"
            f"To: <{self.sender.address}>\r\n"
            f"Subject: {_SUBJECTS[self.action]}\r\n"
            f"Date: {_date(now)}\r\n"
            f"Message-ID: <{report_id}@{reporting}>\r\n"
            "Auto-Submitted: auto-replied\r\n"  # RFC 3834 5
            "MIME-Version: 1.0\r\n"
            f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"\r\n'
            "\r\n"
        )
        parts = (self._text(reporting), self._status(reporting, now), self._returned())
        delimiter = f"--{boundary}\r\n".encode()
        body = b"".join(delimiter + part + b"\r\n" for part in parts)
        return head.encode() + body + f"--{boundary}--\r\n".encode()

    # -- for people ---------------------------------------------------------------------------------------------------

    def _text(self, reporting: str) -> bytes:
        lines = [f"This is the mail system at {reporting}.", "", *_TEXTS[self.action].split("\r\n"), ""]
        for fate in self.fates:
            lines += [f"<{fate.recipient.address}>", f"    {fate.response}"]
        if self.retry_until is not None:
            lines += ["", f"It will be returned to you if it cannot be delivered until {_date(self.retry_until)}."]
        lines += ["", f"The message's identifier here is {self.message_id}."]
        return _part("text/plain; charset=utf-8", "\r\n".join(lines).encode() + b"\r\n")

    # -- for programs -------------------------------------------------------------------------------------------------

    def _status(self, reporting: str, now: float) -> bytes:
        envid = [f"Original-Envelope-Id: {self.sender.envid}"] if self.sender.envid else []
        groups = [[*envid, f"Reporting-MTA: dns; {reporting}", f"Arrival-Date: {_date(self.accepted_at)}"]]
        groups += [self._status_of(fate, now) for fate in self.fates]
        text = "\r\n".join("\r\n".join(group) + "\r\n" for group in groups)
        kind = "message/global-delivery-status" if not text.isascii() else "message/delivery-status"
        return _part(kind, text.encode())

    def _status_of(self, fate: Fate, now: float) -> list[str]:
        lines = [f"Original-Recipient: {'; '.join(fate.recipient.orcpt)}"] if fate.recipient.orcpt else []
        address = fate.recipient.address
        lines += [
            f"Final-Recipient: {'rfc822' if address.isascii() else 'utf-8'}; {address}",
            f"Action: {self.action}",
            f"Status: {fate.response.status}",
        ]
        if fate.hop and not fate.response.local:
            lines += [f"Remote-MTA: dns; {fate.hop.host}", f"Diagnostic-Code: smtp; {fate.response}"]
        lines.append(f"Last-Attempt-Date: {_date(now)}")
        if self.retry_until is not None:
            lines.append(f"Will-Retry-Until: {_date(self.retry_until)}")
        return lines

    # -- what is returned ---------------------------------------------------------------------------------------------

    def _returned(self) -> bytes:
        """The message where it failed and the sender wants it back (RFC 3461 4.3), else its header section.

        Binary content stands in no report: it would take a next hop that can do BINARYMIME.
        """
        if self.action == "failed" and self.sender.ret == "FULL" and self.sender.body != "BINARYMIME":
            octets, kinds = bytes(self.content), ("message/rfc822", "message/global")
        else:
            octets, kinds = self._header(), ("text/rfc822-headers", "message/global-headers")
        header_is_ascii = self._header().isascii()
        return _part(kinds[0] if header_is_ascii else kinds[1], octets)

    def _header(self) -> bytes:
        return bytes(self.content[:_MAX_RETURNED_HEADER]).partition(b"\r\n\r\n")[0] + b"\r\n"


def _part(kind: str, octets: bytes) -> bytes:
    encoding = "7bit" if octets.isascii() else "8bit"
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + octets


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC))
