"""What clients say in each scenario: flights of octets, each with the beginning of the reply that it must get."""

from __future__ import annotations

from typing import Final

Flight = tuple[bytes, bytes]
"""What one read brings, and how the reply to it begins."""

EHLO: Final[list[Flight]] = [(b"EHLO load.example\r\n", b"250-")]
QUIT: Final[list[Flight]] = [(b"QUIT\r\n", b"221 ")]
LARGE: Final = 1_000_000  # octets
_MAIL: Final = b"MAIL FROM:<sender@example.org>\r\n"
_RCPT: Final = b"RCPT TO:<recipient@example.org>\r\n"
_DATA: Final = b"DATA\r\n"
_HEADER: Final = b"From: <sender@example.org>\r\nTo: <recipient@example.org>\r\nSubject: load\r\n\r\n"
_LINE: Final = b"x" * 78 + b"\r\n"


def text(size: int) -> bytes:
    """A message of about so many octets, in lines of 80."""
    return _HEADER + _LINE * ((size - len(_HEADER)) // len(_LINE))


def in_turn(size: int) -> list[Flight]:
    """One message, a command a flight."""
    return [(_MAIL, b"250 "), (_RCPT, b"250 "), (_DATA, b"354 "), (text(size) + b".\r\n", b"250 ")]


def pipelined(size: int, recipients: int) -> list[Flight]:
    """One message, its envelope in one flight (RFC 2920)."""
    return [(_MAIL + _RCPT * recipients + _DATA, b"250 "), (text(size) + b".\r\n", b"250 ")]


def chunked(size: int) -> list[Flight]:
    """One message as one chunk (RFC 3030)."""
    content = text(size)
    return [(_MAIL, b"250 "), (_RCPT, b"250 "), (b"BDAT %d LAST\r\n%b" % (len(content), content), b"250 ")]


def refused() -> list[Flight]:
    """A client that gets nothing through: recipients that a hook refuses, commands out of order, unknown, malformed."""
    return [
        (_DATA, b"503 "),
        (b"MAIL FROM:<sender@@example.org>\r\n", b"501 "),
        (_MAIL, b"250 "),
        *[(_RCPT, b"550 ")] * 4,
        (b"WIZ\r\n", b"500 "),
        (b"RSET\r\n", b"250 "),
    ]
