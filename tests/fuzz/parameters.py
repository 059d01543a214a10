"""Arguments of MAIL, RCPT, EHLO, XCLIENT and BDAT: nothing but SMTPError comes of them, and what is read is sound."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

from fastsmtp.protocol.chunking import parse_chunk
from fastsmtp.protocol.envelope import Mailbox, Recipient, Sender
from fastsmtp.protocol.extensions import Offer, Switches, offer
from fastsmtp.protocol.grammar import SIMPLE_OCTETS, SIMPLE_PATH, parse_client_name, parse_mailbox, split_path
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.replies import BAD_SENDER, SMTPError
from fastsmtp.protocol.xclient import parse_xclient
from fastsmtp.protocol.xtext import decode_xtext, encode_xtext
from tests.fuzz.engine import run
from tests.fuzz.octets import Octets

_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_LIMITS: Final = Limits()
_LONGEST: Final = 86400
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# What nobody may say in a header or in a log, whatever it was decoded from.
_UNSAFE: Final = re.compile("[\0-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")


def _offer(minimum: int) -> Offer:
    switches = Switches(
        binarymime=True, dsn=True, requiretls=True, deliverby=True, deliverby_min=minimum, futurerelease=_LONGEST,
        mt_priority=True,
    )  # fmt: skip
    return offer(
        switches, _LIMITS, tls=True, authenticated=True, starttls=False, mechanisms=("PLAIN",), xclient=True,
        now=lambda: _NOW,
    )  # fmt: skip


_OFFERS: Final = (_offer(0), _offer(60), Offer([], _LIMITS))


def fuzz_one(octets: bytes) -> None:
    """The octets: which command, what is offered, whether UTF-8 is, the argument."""
    choices = Octets(octets)
    read, offered, utf8 = choices.one_of(_COMMANDS), choices.one_of(_OFFERS), choices.flag()
    if _CONTROL.search(choices.rest):  # no such line is read so far
        return
    try:
        read(choices.rest, offered, utf8)
    except SMTPError as error:
        refusal = error.reply
    else:
        return
    assert refusal.code in (501, 521, 552, 553, 555)
    assert refusal.enhanced


def _mail(argument: bytes, offered: Offer, utf8: bool) -> None:
    path, parameters = _split(argument)
    sender = Sender(*_mailbox(path, utf8))
    offered.read_mail(sender, parameters)
    _check_mailbox(sender)
    assert sender.size is None or 0 <= sender.size <= _LIMITS.max_message_bytes
    assert sender.priority is None or -9 <= sender.priority <= 9
    assert sender.hold_for is None or 0 < sender.hold_for <= _LONGEST
    assert sender.hold_until is None or sender.hold_until >= _NOW
    assert sender.hold_for is None or sender.hold_until is None
    assert sender.deliver_by is None or abs(sender.deliver_by.seconds) < 10**9
    for xtext in (sender.envid, sender.auth):
        assert decode_xtext(encode_xtext(xtext or "").encode()) == (xtext or "")


def _rcpt(argument: bytes, offered: Offer, utf8: bool) -> None:
    path, parameters = _split(argument)
    recipient = Recipient(*_mailbox(path, utf8))
    offered.read_rcpt(recipient, parameters, utf8)
    _check_mailbox(recipient)
    if recipient.notify:
        assert len(recipient.notify) == 1 or "NEVER" not in recipient.notify
    if recipient.orcpt:
        assert utf8 or recipient.orcpt[1].isascii()


def _split(argument: bytes) -> tuple[bytes, bytes]:
    parts = split_path(argument)
    # The short way of `transaction` must find what the long way finds.
    simple = SIMPLE_PATH.fullmatch(argument) if len(argument) < SIMPLE_OCTETS else None
    if simple:
        assert parts is not None
        assert parts[0] == simple[1] + b"@" + simple[2]
        assert parts[1].split() == (simple[3] or b"").split()
        assert parse_mailbox(parts[0], False, BAD_SENDER) == (simple[1].decode(), simple[2].decode().lower())
    if parts is None:
        raise SMTPError(BAD_SENDER)
    return parts


def _mailbox(path: bytes, utf8: bool) -> tuple[str, str]:
    local, domain = parse_mailbox(path, utf8, BAD_SENDER)
    if not utf8:
        assert local.isascii()
        assert domain.isascii()
    assert parse_mailbox(Mailbox(local, domain).address.encode(), True, BAD_SENDER) == (local, domain)
    return local, domain


def _check_mailbox(mailbox: Sender | Recipient) -> None:
    for each in fields(mailbox):
        value: Any = getattr(mailbox, each.name)
        for text in value if isinstance(value, tuple) else (value,):
            assert not isinstance(text, str) or not _UNSAFE.search(text), text


def _ehlo(argument: bytes, offered: Offer, utf8: bool) -> None:
    name = parse_client_name(argument)
    assert name is None or (name.isascii() and name.isprintable() and not re.search(r"[\s();<>,]", name))


def _xclient(argument: bytes, offered: Offer, utf8: bool) -> None:
    told = parse_xclient(argument)
    for each in fields(told):
        text = getattr(told, each.name)
        assert not isinstance(text, str) or (text.isascii() and text.isprintable())
    for address in (told.address, told.destination_address):
        assert address is None or str(ip_address(address)) == address
    for port in (told.port, told.destination_port):
        assert port is None or 0 <= port <= 65535


def _bdat(argument: bytes, offered: Offer, utf8: bool) -> None:
    chunk = parse_chunk(argument, _LIMITS.max_message_bytes)
    size, *last = argument.decode("ascii").split()
    assert chunk == (int(size), bool(last))
    assert len(size) <= 19


_COMMANDS: Final[tuple[Callable[[bytes, Offer, bool], None], ...]] = (_mail, _rcpt, _ehlo, _xclient, _bdat)


if __name__ == "__main__":
    run(fuzz_one)
