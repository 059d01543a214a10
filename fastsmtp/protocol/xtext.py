"""xtext: arbitrary text in the value of a parameter (RFC 3461 4), as DSN, AUTH= and XCLIENT use it."""

from __future__ import annotations

import re
from typing import Final

from .replies import BAD_PARAMETER, SMTPError

_XTEXT: Final = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*+")
_HEX: Final = re.compile(rb"\+([0-9A-F]{2})")


def decode_xtext(octets: bytes) -> str:
    """The text that an xtext stands for: printable ASCII, spaces included.

    Raises:
        SMTPError: it is no xtext, or it stands for octets that have no place in a header or a log line.
    """
    if not _XTEXT.fullmatch(octets):
        raise SMTPError(BAD_PARAMETER)
    text = _HEX.sub(lambda match: bytes((int(match[1], 16),)), octets).decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        raise SMTPError(BAD_PARAMETER)
    return text


def encode_xtext(text: str) -> str:
    """The xtext of printable ASCII, for whoever passes a value on."""
    return "".join(char if "!" <= char <= "~" and char not in "+=" else f"+{ord(char):02X}" for char in text)
