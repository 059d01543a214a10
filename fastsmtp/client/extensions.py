"""What the next hop offers, and what of a message it can therefore take.

A hop that lacks what a message needs does not get it: nothing is converted on the way, for that breaks signatures
(RFC 6152 3, RFC 6531 3.2, RFC 3030 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fastsmtp.protocol.envelope import Recipient
from fastsmtp.protocol.xtext import encode_xtext

from .outgoing import Outgoing
from .responses import Response, local_response

NO_UTF8_ADDRESS: Final = local_response(553, "5.6.7", "the next hop takes no UTF-8 addresses (SMTPUTF8)")
NO_UTF8_HEADER: Final = local_response(550, "5.6.9", "the next hop takes no UTF-8 headers (SMTPUTF8)")
NO_EIGHT_BIT: Final = local_response(554, "5.6.3", "the next hop takes no 8-bit content (8BITMIME)")
NO_BINARY: Final = local_response(554, "5.6.3", "the next hop takes no binary content (BINARYMIME)")
NO_REQUIRETLS: Final = local_response(550, "5.7.30", "the next hop does not support REQUIRETLS")
TOO_LARGE: Final = local_response(552, "5.3.4", "message too large for the next hop")


@dataclass(frozen=True, slots=True)
class Extensions:
    """The keywords of an EHLO reply, in upper case, with their arguments; and whether TLS protects what is said.

    Attributes:
        keywords: from keyword to arguments.
        verified: the certificate was a good one for the host.
    """

    keywords: Mapping[str, str]
    verified: bool

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def max_bytes(self) -> int | None:
        """The largest message it takes; None if it does not say or has no limit (RFC 1870 4)."""
        size = self.keywords.get("SIZE", "")
        return int(size) or None if size.isascii() and size.isdigit() and len(size) < 20 else None

    def refusal(self, outgoing: Outgoing) -> Response | None:
        """Why the hop cannot take a message, whoever it is for; None if it can."""
        if outgoing.sender.require_tls and not ("REQUIRETLS" in self and self.verified):
            return NO_REQUIRETLS
        if self.max_bytes is not None and outgoing.size > self.max_bytes:
            return TOO_LARGE
        if outgoing.is_binary:
            return None if "BINARYMIME" in self and "CHUNKING" in self else NO_BINARY
        return self._refusal_of_octets(outgoing)

    def _refusal_of_octets(self, outgoing: Outgoing) -> Response | None:
        if "SMTPUTF8" not in self and not outgoing.sender.address.isascii():
            return NO_UTF8_ADDRESS
        if "8BITMIME" in self and "SMTPUTF8" in self:
            return None  # no need to look
        if "SMTPUTF8" not in self and outgoing.sender.smtputf8 and not outgoing.header_is_ascii:
            return NO_UTF8_HEADER
        return None if "8BITMIME" in self or outgoing.is_ascii else NO_EIGHT_BIT

    def refusal_of(self, recipient: Recipient) -> Response | None:
        """Why the hop cannot take a recipient."""
        return None if "SMTPUTF8" in self or recipient.address.isascii() else NO_UTF8_ADDRESS

    def mail(self, outgoing: Outgoing) -> bytes:
        """The MAIL command."""
        sender = outgoing.sender
        words = [f"MAIL FROM:<{sender.address}>"]
        if "SIZE" in self:
            words.append(f"SIZE={outgoing.size}")
        if outgoing.is_binary:
            words.append("BODY=BINARYMIME")
        elif "8BITMIME" in self and (sender.body == "8BITMIME" or not outgoing.is_ascii):
            words.append("BODY=8BITMIME")
        if sender.smtputf8 and "SMTPUTF8" in self:
            words.append("SMTPUTF8")
        if sender.require_tls:
            words.append("REQUIRETLS")
        if sender.deliver_by and "DELIVERBY" in self:
            by = sender.deliver_by
            words.append(f"BY={by.seconds};{by.mode}{'T' if by.trace else ''}")
        if sender.priority is not None and "MT-PRIORITY" in self:
            words.append(f"MT-PRIORITY={sender.priority}")
        if "DSN" in self:
            words += [f"RET={sender.ret}"] if sender.ret else []
            words += [f"ENVID={encode_xtext(sender.envid)}"] if sender.envid else []
        return _line(words)

    def rcpt(self, recipient: Recipient) -> bytes:
        """The RCPT command."""
        words = [f"RCPT TO:<{recipient.address}>"]
        if "DSN" in self:
            words += [f"NOTIFY={','.join(recipient.notify)}"] if recipient.notify else []
            words += [_orcpt(*recipient.orcpt)] if recipient.orcpt else []
        return _line(words)


def read_extensions(ehlo: Response, verified: bool) -> Extensions:
    """What a reply to EHLO or LHLO offers (RFC 5321 4.1.1.1): behind its first line, a keyword a line."""
    keywords: dict[str, str] = {}
    for line in ehlo.lines[1:]:
        keyword, _, arguments = line.strip().partition(" ")
        keywords[keyword.upper()] = arguments.strip()
        if keyword.upper().startswith("AUTH="):  # what some wrote before RFC 2554
            keywords.setdefault("AUTH", f"{keyword[5:]} {arguments}")
    return Extensions(keywords, verified)


def _orcpt(kind: str, address: str) -> str:
    """ORCPT= (RFC 3461 4.2). An address in UTF-8 goes as utf-8-addr-unitext, which needs SMTPUTF8 (RFC 6533 3)."""
    return f"ORCPT={kind};{encode_xtext(address) if address.isascii() else address}"


def _line(words: list[str]) -> bytes:
    return " ".join(words).encode() + b"\r\n"
