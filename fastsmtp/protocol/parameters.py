"""The parameters of MAIL and RCPT (RFC 5321 4.1.1.11): for each one a reader that knows its syntax and its limits.

A reader is given the value as the client sent it (None: there was none) and puts its meaning into the sender or the
recipient, or raises SMTPError. Which of them a client may use is the business of the extensions. Readers that need
more than the limits are made by a function that ends in `_reader`.

Numbers are ASCII digits. Words are compared in upper case, and `bytes.upper` knows no letters but those of ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from .envelope import DeliverBy, Recipient, Sender
from .grammar import parse_mailbox
from .limits import Limits
from .replies import BAD_PARAMETER, TOO_LARGE, SMTPError
from .xtext import decode_xtext

MailParameter = Callable[[Sender, bytes | None, Limits], None]
RcptParameter = Callable[[Recipient, bytes | None, Limits], None]

MAX_SIZE_DIGITS: Final = 20  # RFC 1870 3
MAX_ENVID: Final = 100  # octets as sent, RFC 3461 4.4
MAX_ORCPT: Final = 500  # octets as sent, RFC 3461 4.2

_RETURNS: Final = {b"FULL": "FULL", b"HDRS": "HDRS"}
_EVENTS: Final = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_BY: Final = re.compile(rb"([+-]?[0-9]{1,9});([RN])(T?)", re.I)  # RFC 2852 4
_INTERVAL: Final = re.compile(rb"[1-9][0-9]{0,8}")  # RFC 4865 3
_PRIORITY: Final = re.compile(rb"0|-?[1-9]")  # RFC 6710 3
_TYPED: Final = re.compile(rb"([\w!#$%&'*+/?^`{|}~-]+);(.+)", re.S)  # RFC 3461 4.2; the type is an atom
_EMBEDDED: Final = re.compile(rb"\\x\{([0-9A-Fa-f]{2,6})\}")  # RFC 6533 3
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
# RFC 3339 5.6, without the leap second: `datetime` has no room for it, and nobody waits for one.
_DATE_TIME: Final = re.compile(
    rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
    rb"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


# -- the message ------------------------------------------------------------------------------------------------------


def read_size(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """SIZE (RFC 1870 6.1): refuse at MAIL what is too large by the client's own word."""
    if value is None or not value.isdigit():
        raise SMTPError(BAD_PARAMETER)
    digits = value.lstrip(b"0") or b"0"
    if len(digits) > MAX_SIZE_DIGITS or int(digits) > limits.max_message_bytes:
        raise SMTPError(TOO_LARGE)
    sender.size = int(digits)


def body_reader(*words: str) -> MailParameter:
    """BODY (RFC 6152 2, RFC 3030 3) with these words. Content of eight bits is carried whatever was said."""
    bodies = {word.encode("ascii"): word for word in words}

    def read_body(sender: Sender, value: bytes | None, limits: Limits) -> None:
        body = bodies.get((value or b"").upper())
        if body is None:
            raise SMTPError(BAD_PARAMETER)
        sender.body = body

    return read_body


def read_smtputf8(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """SMTPUTF8 (RFC 6531 3.4): no value."""
    if value is not None:
        raise SMTPError(BAD_PARAMETER)
    sender.smtputf8 = True


def read_auth(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """AUTH (RFC 4954 5): who submitted the message, ``<>`` for nobody that is known."""
    submitter = _visible(value or b"")
    # Behind the xtext, not in front of it: +3C+3E must not become somebody of the name <>.
    sender.auth = "" if submitter == "<>" else submitter


def _visible(octets: bytes) -> str:
    """The text of an xtext that says something."""
    text = decode_xtext(octets)
    if not text.strip():
        raise SMTPError(BAD_PARAMETER)
    return text


# -- its delivery -----------------------------------------------------------------------------------------------------


def read_requiretls(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """REQUIRETLS (RFC 8689 2): no value."""
    if value is not None:
        raise SMTPError(BAD_PARAMETER)
    sender.require_tls = True


def by_reader(shortest: int) -> MailParameter:
    """BY (RFC 2852 4).

    Args:
        shortest: seconds, the least that can be promised; 0: any time that has not passed. A message that is only
            traced or told about (mode N) needs no promise.
    """

    def read_by(sender: Sender, value: bytes | None, limits: Limits) -> None:
        match = _BY.fullmatch(value or b"")
        if not match:
            raise SMTPError(BAD_PARAMETER)
        seconds, mode = int(match[1]), match[2].decode("ascii").upper()
        if mode == "R" and seconds < max(shortest, 1):
            raise SMTPError(BAD_PARAMETER)
        sender.deliver_by = DeliverBy(seconds, mode, bool(match[3]))

    return read_by


def hold_for_reader(longest: int) -> MailParameter:
    """HOLDFOR (RFC 4865 3), up to `longest` seconds, and not beside HOLDUNTIL."""

    def read_hold_for(sender: Sender, value: bytes | None, limits: Limits) -> None:
        match = _INTERVAL.fullmatch(value or b"")
        if not match or int(match[0]) > longest or sender.hold_until is not None:
            raise SMTPError(BAD_PARAMETER)
        sender.hold_for = int(match[0])

    return read_hold_for


def hold_until_reader(latest: datetime, now: Callable[[], datetime]) -> MailParameter:
    """HOLDUNTIL (RFC 4865 3), not later than `latest`, not in the past, and not beside HOLDFOR."""

    def read_hold_until(sender: Sender, value: bytes | None, limits: Limits) -> None:
        until = _date_time(value or b"")
        if sender.hold_for is not None or not now() <= until <= latest:
            raise SMTPError(BAD_PARAMETER)
        sender.hold_until = until

    return read_hold_until


def _date_time(octets: bytes) -> datetime:
    """RFC 3339 5.6, in UTC."""
    octets = octets.upper()  # its T and Z may be small
    if not _DATE_TIME.fullmatch(octets):
        raise SMTPError(BAD_PARAMETER)
    try:
        return datetime.fromisoformat(octets.decode("ascii")).astimezone(UTC)
    except (ValueError, OverflowError):  # no such day; or none any more in UTC
        raise SMTPError(BAD_PARAMETER) from None


def read_priority(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """MT-PRIORITY (RFC 6710 3)."""
    match = _PRIORITY.fullmatch(value or b"")
    if not match:
        raise SMTPError(BAD_PARAMETER)
    sender.priority = int(match[0])


# -- its notifications ------------------------------------------------------------------------------------------------


def read_ret(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """RET (RFC 3461 4.3)."""
    ret = _RETURNS.get((value or b"").upper())
    if ret is None:
        raise SMTPError(BAD_PARAMETER)
    sender.ret = ret


def read_envid(sender: Sender, value: bytes | None, limits: Limits) -> None:
    """ENVID (RFC 3461 4.4)."""
    if value is None or len(value) > MAX_ENVID:
        raise SMTPError(BAD_PARAMETER)
    sender.envid = decode_xtext(value)


def read_notify(recipient: Recipient, value: bytes | None, limits: Limits) -> None:
    """NOTIFY (RFC 3461 4.1): NEVER, or a list of events, each once."""
    words = tuple((value or b"").upper().decode("latin-1").split(","))
    listed = set(words)
    if words != ("NEVER",) and (len(listed) < len(words) or not listed <= _EVENTS):
        raise SMTPError(BAD_PARAMETER)
    recipient.notify = words


def read_orcpt(recipient: Recipient, value: bytes | None, limits: Limits) -> None:
    """ORCPT (RFC 3461 4.2): the type of an address, in small letters here, and the address in xtext."""
    kind, address = _typed(value)
    recipient.orcpt = kind, _visible(address)


def read_orcpt_utf8(recipient: Recipient, value: bytes | None, limits: Limits) -> None:
    """ORCPT where the transaction is an internationalised one (RFC 6533 3)."""
    kind, address = _typed(value)
    recipient.orcpt = kind, _unitext(address) if kind == "utf-8" else _visible(address)


def _typed(value: bytes | None) -> tuple[str, bytes]:
    match = _TYPED.fullmatch(value or b"")
    if not match or len(match[0]) > MAX_ORCPT:
        raise SMTPError(BAD_PARAMETER)
    return match[1].decode("ascii").lower(), match[2]


def _unitext(octets: bytes) -> str:
    r"""The mailbox that is meant by UTF-8 in which any character may stand as ``\x{HEX}`` (RFC 6533 3).

    A plus sign is one: none of the forms of RFC 6533 has the ``+HH`` of xtext.
    """
    mailbox = _EMBEDDED.sub(_embedded, octets)
    if _CONTROL.search(mailbox):
        raise SMTPError(BAD_PARAMETER)
    parse_mailbox(mailbox, True, BAD_PARAMETER)  # "MUST follow utf-8-address ABNF when dequoted"
    return mailbox.decode("utf-8")


def _embedded(match: re.Match[bytes]) -> bytes:
    try:
        return chr(int(match[1], 16)).encode("utf-8")
    except ValueError:  # beyond Unicode, or a surrogate
        raise SMTPError(BAD_PARAMETER) from None
