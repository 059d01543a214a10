"""XCLIENT (Postfix XCLIENT_README): a trusted proxy tells for whom it speaks.

Every text that comes out of here is printable ASCII; addresses are normalised, and never host names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, TypeVar

from .grammar import is_literal, parse_parameters
from .replies import BAD_PARAMETER, SMTPError
from .xtext import decode_xtext

ATTRIBUTES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
MAX_VALUE: Final = 255  # octets as sent: XCLIENT_README, note 1, and what Postfix takes

_NOT_KNOWN: Final = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_PROTOCOLS: Final = ("SMTP", "ESMTP")
_PREFIX: Final = len("IPV6:")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_MAX_PORT: Final = 65535

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class XClient:
    """The attributes of one XCLIENT; None where one was not given, or was [UNAVAILABLE] or [TEMPUNAVAIL].

    Attributes:
        name: NAME, the client's host name.
        address: ADDR, an IPv4 or IPv6 address, without the prefix ``IPV6:``.
        port: PORT.
        protocol: PROTO, ``"SMTP"`` or ``"ESMTP"``.
        helo: HELO, what the client said there; any word.
        login: LOGIN, the user as whom the client has logged in.
        destination_address: DESTADDR, where the client has connected to; like `address`.
        destination_port: DESTPORT.
    """

    name: str | None = None
    address: str | None = None
    port: int | None = None
    protocol: str | None = None
    helo: str | None = None
    login: str | None = None
    destination_address: str | None = None
    destination_port: int | None = None


def parse_xclient(argument: bytes) -> XClient:
    """Read the argument of XCLIENT.

    Raises:
        SMTPError: there is no attribute, an unknown one, the same one twice, or a value that it cannot have.
    """
    texts = _parse_attributes(argument)
    return XClient(
        name=_read(_word, texts.get("NAME")),
        address=_read(_address, texts.get("ADDR")),
        port=_read(_port, texts.get("PORT")),
        protocol=_read(_protocol, texts.get("PROTO")),
        helo=_read(_word, texts.get("HELO")),
        login=texts.get("LOGIN"),
        destination_address=_read(_address, texts.get("DESTADDR")),
        destination_port=_read(_port, texts.get("DESTPORT")),
    )


def _parse_attributes(argument: bytes) -> dict[str, str | None]:
    texts: dict[str, str | None] = {}
    for keyword, value in parse_parameters(argument):
        name = keyword.decode("ascii")
        if name not in ATTRIBUTES or name in texts or value is None or len(value) > MAX_VALUE:
            raise SMTPError(BAD_PARAMETER)
        text = decode_xtext(value)
        texts[name] = None if text.upper() in _NOT_KNOWN else text
    if not texts:
        raise SMTPError(BAD_PARAMETER)
    return texts


def _read(reader: Callable[[str], _T | None], text: str | None) -> _T | None:
    """What the text means to the reader, which returns None for a text that it does not understand."""
    if text is None:
        return None
    value = reader(text)
    if value is None:
        raise SMTPError(BAD_PARAMETER)
    return value


def _word(text: str) -> str | None:
    return None if " " in text else text


def _address(text: str) -> str | None:
    if not is_literal(f"[{text}]"):
        return None
    return str(IPv6Address(text[_PREFIX:])) if ":" in text else text


def _port(text: str) -> int | None:
    return int(text) if _PORT.fullmatch(text) and int(text) <= _MAX_PORT else None


def _protocol(text: str) -> str | None:
    name = text.upper()
    return name if name in _PROTOCOLS else None
