"""Service extensions (RFC 5321 2.2): the EHLO keywords, and the parameters of MAIL and RCPT that each one brings.

A keyword is offered exactly where its parameters are honoured: both come from the same `Offer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .envelope import Recipient, Sender
from .grammar import parse_parameters
from .limits import Limits
from .replies import BAD_PARAMETER, PARAMETER_NOT_SUPPORTED, TOO_LARGE, SMTPError

MailParameter = Callable[[Sender, bytes | None, Limits], None]
"""Reads a parameter's value (None: none was given) into the sender, or raises SMTPError."""
RcptParameter = Callable[[Recipient, bytes | None, Limits], None]

_REPEATABLE: Final = frozenset({b"SMTPUTF8"})  # it has no value that could differ


@dataclass(frozen=True, slots=True)
class Extension:
    """One EHLO keyword.

    Attributes:
        keyword: the line in the EHLO reply.
        mail: parameters of MAIL that it brings, by their name in upper case.
        rcpt: likewise for RCPT.
    """

    keyword: str
    mail: Mapping[bytes, MailParameter] = field(default_factory=dict)
    rcpt: Mapping[bytes, RcptParameter] = field(default_factory=dict)


class Offer:
    """What a server grants to a client: the lines of its EHLO reply, and the parameters that go with them."""

    __slots__ = ("_limits", "_mail", "_rcpt", "keywords")

    def __init__(self, extensions: Sequence[Extension], limits: Limits) -> None:
        self._limits = limits
        self.keywords: tuple[str, ...] = tuple(extension.keyword for extension in extensions)
        self._mail: dict[bytes, MailParameter] = {}
        self._rcpt: dict[bytes, RcptParameter] = {}
        for extension in extensions:
            self._mail.update(extension.mail)
            self._rcpt.update(extension.rcpt)

    def offers(self, keyword: str) -> bool:
        """Whether the keyword was in the EHLO reply."""
        return keyword in self.keywords

    def read_mail(self, sender: Sender, parameters: bytes) -> None:
        """Read the parameters of MAIL into `sender`.

        Raises:
            SMTPError: one is malformed, stands there twice, was not offered, or cannot be granted.
        """
        for name, value in _once_each(parameters):
            reader = self._mail.get(name)
            if reader is None:
                raise SMTPError(PARAMETER_NOT_SUPPORTED)
            reader(sender, value, self._limits)

    def read_rcpt(self, recipient: Recipient, parameters: bytes) -> None:
        """Read the parameters of RCPT into `recipient`; raises as `read_mail` does."""
        for name, value in _once_each(parameters):
            reader = self._rcpt.get(name)
            if reader is None:
                raise SMTPError(PARAMETER_NOT_SUPPORTED)
            reader(recipient, value, self._limits)


def _once_each(parameters: bytes) -> Sequence[tuple[bytes, bytes | None]]:
    found = list(parse_parameters(parameters))
    names = [name for name, _ in found if name not in _REPEATABLE]
    if len(names) > len(set(names)):
        raise SMTPError(BAD_PARAMETER)
    return found


# -- the extensions ---------------------------------------------------------------------------------------------------


def _size(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """RFC 1870 6.1: refuse at MAIL what is too large by the client's own word."""
    if value is None or not value.isdigit():
        raise SMTPError(BAD_PARAMETER)
    digits = value.lstrip(b"0") or b"0"
    if len(digits) > 20 or int(digits) > limits.max_message_bytes:  # RFC 1870 4: up to 20 digits
        raise SMTPError(TOO_LARGE)
    sender.size = int(digits)


_BODIES: Final = {b"7BIT": "7BIT", b"8BITMIME": "8BITMIME"}


def _body(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """RFC 6152 2. Content of eight bits is carried whatever was said."""
    body = _BODIES.get((value or b"").upper())
    if body is None:
        raise SMTPError(BAD_PARAMETER)
    sender.body = body


def _smtputf8(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """RFC 6531 3.4: no value."""
    if value is not None:
        raise SMTPError(BAD_PARAMETER)
    sender.smtputf8 = True


PIPELINING: Final = Extension("PIPELINING")  # RFC 2920
EIGHTBITMIME: Final = Extension("8BITMIME", mail={b"BODY": _body})
ENHANCEDSTATUSCODES: Final = Extension("ENHANCEDSTATUSCODES")  # RFC 2034
SMTPUTF8: Final = Extension("SMTPUTF8", mail={b"SMTPUTF8": _smtputf8})


def size(limits: Limits) -> Extension:
    """SIZE with the limit that is enforced (RFC 1870)."""
    return Extension(f"SIZE {limits.max_message_bytes}", mail={b"SIZE": _size})


def limits_of(limits: Limits) -> Extension:
    """LIMITS with the numbers that are enforced (RFC 9422)."""
    mailmax = f" MAILMAX={limits.max_messages}" if limits.max_messages else ""
    return Extension(f"LIMITS RCPTMAX={limits.max_recipients}{mailmax}")
