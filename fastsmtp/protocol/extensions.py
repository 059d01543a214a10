"""Service extensions (RFC 5321 2.2): the EHLO keywords, and the parameters of MAIL and RCPT that each one brings.

A keyword is offered exactly where its parameters are honoured: both come from the same `Offer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from .envelope import Recipient, Sender
from .grammar import parse_parameters
from .limits import Limits
from .parameters import (
    MailParameter,
    RcptParameter,
    body_reader,
    by_reader,
    hold_for_reader,
    hold_until_reader,
    read_auth,
    read_envid,
    read_notify,
    read_orcpt,
    read_orcpt_utf8,
    read_priority,
    read_requiretls,
    read_ret,
    read_size,
    read_smtputf8,
)
from .replies import BAD_PARAMETER, PARAMETER_NOT_SUPPORTED, Reply, SMTPError

MAX_INTERVAL: Final = 999_999_999  # seconds: nine digits, RFC 2852 4, RFC 4865 3

_REPEATABLE: Final = frozenset({b"SMTPUTF8"})  # it has no value that could differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """What a listener offers, to those clients that may have it; the names are those of the settings.

    Raises:
        ValueError: a time is negative, or has more than nine digits.
    """

    pipelining: bool = True
    size: bool = True
    eightbitmime: bool = True
    enhancedstatuscodes: bool = True  # the keyword; the codes stand in the replies anyway
    smtputf8: bool = True
    limits: bool = True
    chunking: bool = True
    binarymime: bool = False  # only together with chunking
    dsn: bool = False
    requiretls: bool = False
    deliverby: bool = False
    deliverby_min: int = 0  # seconds; 0: not stated
    futurerelease: int = 0  # seconds, the longest time to hold; 0: off
    mt_priority: bool = False

    def __post_init__(self) -> None:
        for name in ("deliverby_min", "futurerelease"):
            if not 0 <= getattr(self, name) <= MAX_INTERVAL:
                raise ValueError(f"{name} {getattr(self, name)}: must be 0 to {MAX_INTERVAL} seconds")


@dataclass(frozen=True, slots=True)
class Extension:
    """One EHLO keyword.

    Attributes:
        keyword: the line in the EHLO reply.
        mail: parameters of MAIL that it brings, by their name in upper case.
        rcpt: likewise for RCPT.
        rcpt_utf8: those of RCPT that are read in another way where MAIL said SMTPUTF8.
    """

    keyword: str
    mail: Mapping[bytes, MailParameter] = field(default_factory=dict)
    rcpt: Mapping[bytes, RcptParameter] = field(default_factory=dict)
    rcpt_utf8: Mapping[bytes, RcptParameter] = field(default_factory=dict)


class Offer:
    """What a server grants to a client: the lines of its EHLO reply, and the parameters that go with them.

    Args:
        extensions: in the order of the reply; a parameter that two of them bring is read as the later one says.
            Without any this is what a client gets that said HELO.
        limits: the numbers that the parameters are held against.

    Attributes:
        keywords: the lines of the reply behind the first one.
        reply: the reply to EHLO, once it was made.
    """

    __slots__ = ("_limits", "_mail", "_names", "_rcpt", "_rcpt_utf8", "keywords", "reply")

    def __init__(self, extensions: Sequence[Extension], limits: Limits) -> None:
        self._limits = limits
        self.reply: Reply | None = None
        self.keywords: tuple[str, ...] = tuple(extension.keyword for extension in extensions)
        self._names = frozenset(keyword.partition(" ")[0] for keyword in self.keywords)
        self._mail: dict[bytes, MailParameter] = {}
        self._rcpt: dict[bytes, RcptParameter] = {}
        self._rcpt_utf8: dict[bytes, RcptParameter] = {}
        for extension in extensions:
            self._mail.update(extension.mail)
            self._rcpt.update(extension.rcpt)
            self._rcpt_utf8.update({**extension.rcpt, **extension.rcpt_utf8})

    def offers(self, keyword: str) -> bool:
        """Whether the keyword, without what may follow it in its line, was in the EHLO reply."""
        return keyword in self._names

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

    def read_rcpt(self, recipient: Recipient, parameters: bytes, smtputf8: bool = False) -> None:
        """Read the parameters of RCPT into `recipient`; raises as `read_mail` does.

        Args:
            recipient: whom they are about.
            parameters: what stands behind the path.
            smtputf8: whether the transaction is an internationalised one (RFC 6531).
        """
        readers = self._rcpt_utf8 if smtputf8 else self._rcpt
        for name, value in _once_each(parameters):
            reader = readers.get(name)
            if reader is None:
                raise SMTPError(PARAMETER_NOT_SUPPORTED)
            reader(recipient, value, self._limits)


def _once_each(parameters: bytes) -> Sequence[tuple[bytes, bytes | None]]:
    found = list(parse_parameters(parameters))
    if len(found) > 1 and len(dict(found)) < len(found):
        names = [name for name, _ in found if name not in _REPEATABLE]
        if len(set(names)) < len(names):
            raise SMTPError(BAD_PARAMETER)
    return found


# -- the extensions ---------------------------------------------------------------------------------------------------

PIPELINING: Final = Extension("PIPELINING")  # RFC 2920
EIGHTBITMIME: Final = Extension("8BITMIME", mail={b"BODY": body_reader("7BIT", "8BITMIME")})  # RFC 6152
SMTPUTF8: Final = Extension("SMTPUTF8", mail={b"SMTPUTF8": read_smtputf8})  # RFC 6531
ENHANCEDSTATUSCODES: Final = Extension("ENHANCEDSTATUSCODES")  # RFC 2034
CHUNKING: Final = Extension("CHUNKING")  # RFC 3030
DSN: Final = Extension(  # RFC 3461, RFC 6533
    "DSN",
    mail={b"RET": read_ret, b"ENVID": read_envid},
    rcpt={b"NOTIFY": read_notify, b"ORCPT": read_orcpt},
    rcpt_utf8={b"ORCPT": read_orcpt_utf8},
)
STARTTLS: Final = Extension("STARTTLS")  # RFC 3207
REQUIRETLS: Final = Extension("REQUIRETLS", mail={b"REQUIRETLS": read_requiretls})  # RFC 8689
MT_PRIORITY: Final = Extension("MT-PRIORITY", mail={b"MT-PRIORITY": read_priority})  # RFC 6710
XCLIENT: Final = Extension("XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT")  # Postfix XCLIENT


def _size(limits: Limits) -> Extension:
    """SIZE with the limit that is enforced (RFC 1870)."""
    return Extension(f"SIZE {limits.max_message_bytes}", mail={b"SIZE": read_size})


def _binarymime(eightbitmime: bool) -> Extension:
    """BINARYMIME: one more word for BODY (RFC 3030)."""
    words = ("7BIT", "8BITMIME", "BINARYMIME") if eightbitmime else ("7BIT", "BINARYMIME")
    return Extension("BINARYMIME", mail={b"BODY": body_reader(*words)})


def _limits_of(limits: Limits) -> Extension:
    """LIMITS with the numbers that are enforced (RFC 9422)."""
    mailmax = f" MAILMAX={limits.max_messages}" if limits.max_messages else ""
    return Extension(f"LIMITS RCPTMAX={limits.max_recipients}{mailmax}")


def _auth(mechanisms: Sequence[str]) -> Extension:
    """AUTH, and AUTH= of MAIL from every client; whom to believe is not decided here (RFC 4954 5)."""
    return Extension(" ".join(("AUTH", *mechanisms)), mail={b"AUTH": read_auth})


def _deliverby(shortest: int) -> Extension:
    """DELIVERBY with the shortest time that is promised, if there is one (RFC 2852)."""
    return Extension(f"DELIVERBY {shortest}" if shortest else "DELIVERBY", mail={b"BY": by_reader(shortest)})


def _futurerelease(longest: int, now: Callable[[], datetime]) -> Extension:
    """FUTURERELEASE with the latest date as it is now, to be enforced as long as this extension is (RFC 4865)."""
    latest = now().astimezone(UTC).replace(microsecond=0) + timedelta(seconds=longest)
    return Extension(
        f"FUTURERELEASE {longest} {latest:%Y-%m-%dT%H:%M:%SZ}",
        mail={b"HOLDFOR": hold_for_reader(longest), b"HOLDUNTIL": hold_until_reader(latest, now)},
    )


def offer(
    switches: Switches,
    limits: Limits,
    *,
    tls: bool,
    authenticated: bool,
    starttls: bool,
    mechanisms: Sequence[str],
    xclient: bool,
    now: Callable[[], datetime],
) -> Offer:
    """What a client is offered in its situation.

    An offer with FUTURERELEASE names a date that moves with the clock: it is made anew at each EHLO. All others stay
    true and can be kept.

    Args:
        switches: what the listener offers.
        limits: the numbers that are offered, and enforced.
        tls: the connection is encrypted.
        authenticated: the client has logged in.
        starttls: it may begin TLS now.
        mechanisms: of SASL, those that it may use now; none: AUTH is not offered.
        xclient: it may speak for others.
        now: the time, with a time zone.
    """
    granted: tuple[tuple[bool, Extension], ...] = (
        (switches.pipelining, PIPELINING),
        (switches.size, _size(limits)),
        (switches.eightbitmime, EIGHTBITMIME),
        (switches.smtputf8, SMTPUTF8),
        (switches.enhancedstatuscodes, ENHANCEDSTATUSCODES),
        (switches.chunking, CHUNKING),
        (switches.chunking and switches.binarymime, _binarymime(switches.eightbitmime)),
        (switches.limits, _limits_of(limits)),
        (switches.dsn, DSN),
        (starttls, STARTTLS),
        (bool(mechanisms), _auth(mechanisms)),
        (switches.requiretls and tls, REQUIRETLS),
        (switches.deliverby, _deliverby(switches.deliverby_min)),
        (switches.futurerelease > 0 and authenticated, _futurerelease(switches.futurerelease, now)),
        (switches.mt_priority, MT_PRIORITY),
        (xclient, XCLIENT),
    )
    return Offer([extension for grant, extension in granted if grant], limits)
