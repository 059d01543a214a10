"""Messages, made once for each size: on the wire form, dots and all, so that a generator only sends them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

_HEADER = (
    b"From: Load Test <load@sender.example>\r\n"
    b"To: Somebody <somebody@recipient.example>\r\n"
    b"Subject: load test\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    b"Message-ID: <load-test@sender.example>\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n"
    b"\r\n"
)
_LINE = b"The quick brown fox jumps over the lazy dog, and over forty more of them.....\r\n"
_DOTTED = b".a line that begins with a dot, as RFC 5321 4.5.2 has a rule for it\r\n"
_DOTTED_EVERY = 50  # lines; the server's search for dots then has something to find


@dataclass(frozen=True, slots=True)
class Payload:
    """A message.

    Args:
        octets: the message as the server is to store it.
        wire: the same with its dots stuffed, and the dot that ends it (RFC 5321 4.5.2).
    """

    octets: bytes
    wire: bytes

    @classmethod
    def of(cls, message: bytes) -> Payload:
        """A message of one's own, its line ends CR LF, one at its very end."""
        stuffed = message.replace(b"\r\n.", b"\r\n..")
        return cls(message, (b"." if message.startswith(b".") else b"") + stuffed + b".\r\n")


@functools.cache
def payload_of(octets: int) -> Payload:
    """The message of a size; the smallest is the header section and a line end.

    Args:
        octets: of the message as it is stored, header section and line ends included.
    """
    return Payload.of(_message(octets))


def _message(octets: int) -> bytes:
    wanted = max(0, octets - len(_HEADER) - len(b"\r\n"))
    block = _DOTTED + _LINE * (_DOTTED_EVERY - 1)
    body = (block * (wanted // len(block) + 1))[:wanted]
    # What was cut within a line end, or would end in a lone CR, is filled up instead.
    return _HEADER + body.rstrip(b"\r\n").ljust(wanted, b"x") + b"\r\n"
