"""The values of the parameters of MAIL and RCPT: what each reader takes, what it makes of it, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastsmtp.protocol.envelope import DeliverBy, Recipient, Sender
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.parameters import (
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
from fastsmtp.protocol.replies import ADDRESS_NOT_ALLOWED, BAD_PARAMETER, BAD_UTF8, TOO_LARGE, Reply, SMTPError
from fastsmtp.protocol.xtext import encode_xtext

Mailbox = TypeVar("Mailbox", Sender, Recipient)

LIMITS: Final = Limits(max_message_bytes=1000)
NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
LATEST: Final = NOW + timedelta(days=1)
NOT_NUMBERS: Final = [None, b"", b"-1", b"+1", b"1_0", b"0x1", b" 1", b"1 ", b"1\n", b"1.0", b"\xb2", "\u0661".encode()]

read_body: Final = body_reader("7BIT", "8BITMIME")
read_binary_body: Final = body_reader("7BIT", "8BITMIME", "BINARYMIME")
read_by: Final = by_reader(0)
read_by_from_60: Final = by_reader(60)
read_hold_for: Final = hold_for_reader(86400)
read_hold_until: Final = hold_until_reader(LATEST, lambda: NOW)

MAIL_READERS: Final[list[MailParameter]] = [
    read_size,
    read_body,
    read_smtputf8,
    read_auth,
    read_requiretls,
    read_by,
    read_hold_for,
    read_hold_until,
    read_priority,
    read_ret,
    read_envid,
]
RCPT_READERS: Final[list[RcptParameter]] = [read_notify, read_orcpt, read_orcpt_utf8]


def _sender(reader: MailParameter, value: bytes | None, before: Sender | None = None) -> Sender:
    sender = before or Sender("a", "a.example")
    reader(sender, value, LIMITS)
    return sender


def _recipient(reader: RcptParameter, value: bytes | None) -> Recipient:
    recipient = Recipient("b", "b.example")
    reader(recipient, value, LIMITS)
    return recipient


def _refusal(
    reader: Callable[[Mailbox, bytes | None, Limits], None], mailbox: Mailbox, value: bytes | None
) -> Reply | None:
    """The reply to a value, which leaves no trace if there is one; None if the value is taken."""
    before = repr(mailbox)
    try:
        reader(mailbox, value, LIMITS)
    except SMTPError as error:
        assert repr(mailbox) == before
        return error.reply
    return None


def _mail_refusal(reader: MailParameter, value: bytes | None, before: Sender | None = None) -> Reply | None:
    return _refusal(reader, before or Sender("a", "a.example"), value)


def _rcpt_refusal(reader: RcptParameter, value: bytes | None) -> Reply | None:
    return _refusal(reader, Recipient("b", "b.example"), value)


# -- SIZE (RFC 1870) --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "size"), [(b"0", 0), (b"1", 1), (b"0999", 999), (b"1000", 1000), (b"0" * 500, 0)])
def test_sizes(value: bytes, size: int) -> None:
    assert _sender(read_size, value).size == size


@pytest.mark.parametrize("value", [b"1001", b"9" * 20, b"9" * 21, b"9" * 5000])
def test_sizes_over_the_limit(value: bytes) -> None:
    assert _mail_refusal(read_size, value) is TOO_LARGE


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_what_is_no_size(value: bytes | None) -> None:
    assert _mail_refusal(read_size, value) is BAD_PARAMETER


# -- BODY (RFC 6152, RFC 3030), SMTPUTF8 (RFC 6531), REQUIRETLS (RFC 8689) --------------------------------------------


@pytest.mark.parametrize(("value", "body"), [(b"7BIT", "7BIT"), (b"8bitmime", "8BITMIME"), (b"8BitMIME", "8BITMIME")])
def test_bodies(value: bytes, body: str) -> None:
    assert _sender(read_body, value).body == body
    assert _sender(read_binary_body, value).body == body


def test_a_binary_body_where_it_may_be_one() -> None:
    assert _sender(read_binary_body, b"BinaryMIME").body == "BINARYMIME"
    assert _mail_refusal(read_body, b"BINARYMIME") is BAD_PARAMETER


@pytest.mark.parametrize("value", [None, b"", b"8BIT", b"8BITMIME ", b"BINARY", "\u017fBITMIME".encode()])
def test_what_is_no_body(value: bytes | None) -> None:
    assert _mail_refusal(read_body, value) is BAD_PARAMETER
    assert _mail_refusal(read_binary_body, value) is BAD_PARAMETER


def test_words_without_a_value() -> None:
    assert _sender(read_smtputf8, None).smtputf8
    assert _sender(read_requiretls, None).require_tls


@pytest.mark.parametrize("value", [b"", b"1", b"YES"])
@pytest.mark.parametrize("reader", [read_smtputf8, read_requiretls])
def test_words_that_take_no_value(reader: MailParameter, value: bytes) -> None:
    assert _mail_refusal(reader, value) is BAD_PARAMETER


# -- AUTH (RFC 4954 5) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "auth"),
    [
        (b"a@a.example", "a@a.example"),
        (b"e+3Dmc2@example.com", "e=mc2@example.com"),
        (b"user", "user"),
        (b'"a+20b"@c', '"a b"@c'),
        (b"<>", ""),
        (b"+3C+3E", ""),  # it must not become somebody whose name is <>
    ],
)
def test_submitters(value: bytes, auth: str) -> None:
    assert _sender(read_auth, value).auth == auth


@pytest.mark.parametrize(
    "value", [None, b"", b"+20", b"a b", b"a=b", b"a+", b"a+2", b"a+3d", b"a+0D+0Ab", b"a+00", b"a+7F", b"\xc3\xbc@a"]
)
def test_what_is_no_submitter(value: bytes | None) -> None:
    assert _mail_refusal(read_auth, value) is BAD_PARAMETER


# -- BY (RFC 2852) ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "deliver_by"),
    [
        (b"120;R", DeliverBy(120, "R", False)),
        (b"120;RT", DeliverBy(120, "R", True)),
        (b"+1;r", DeliverBy(1, "R", False)),
        (b"0;N", DeliverBy(0, "N", False)),
        (b"-5;nt", DeliverBy(-5, "N", True)),
        (b"000000120;R", DeliverBy(120, "R", False)),
        (b"999999999;R", DeliverBy(999999999, "R", False)),
        (b"-999999999;N", DeliverBy(-999999999, "N", False)),
    ],
)
def test_times_to_deliver(value: bytes, deliver_by: DeliverBy) -> None:
    assert _sender(read_by, value).deliver_by == deliver_by


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"120",
        b"120;",
        b";R",
        b"12;X",
        b"12;T",
        b"12;TR",
        b"12;RTT",
        b"12;RN",
        b"1234567890;R",
        b"+-1;R",
        b"12; R",
        b"12;R\n",
        b"1_2;R",
        b"0x1;R",
        "\u0661;R".encode(),
        b"12;R;T",
        b"1.5;R",
    ],
)
def test_what_is_no_time_to_deliver(value: bytes | None) -> None:
    assert _mail_refusal(read_by, value) is BAD_PARAMETER


@pytest.mark.parametrize("value", [b"0;R", b"-0;R", b"-5;R", b"-5;RT"])
def test_a_return_in_the_past(value: bytes) -> None:
    assert _mail_refusal(read_by, value) is BAD_PARAMETER


def test_less_time_than_the_server_needs() -> None:
    assert _mail_refusal(read_by_from_60, b"59;R") is BAD_PARAMETER
    assert _sender(read_by_from_60, b"60;R").deliver_by == DeliverBy(60, "R", False)
    assert _sender(read_by_from_60, b"59;N").deliver_by == DeliverBy(59, "N", False)


# -- HOLDFOR and HOLDUNTIL (RFC 4865) ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "seconds"), [(b"1", 1), (b"60", 60), (b"86400", 86400)])
def test_intervals(value: bytes, seconds: int) -> None:
    assert _sender(read_hold_for, value).hold_for == seconds


@pytest.mark.parametrize("value", [b"0", b"01", b"86401", b"999999999", b"1" * 10, b"9" * 5000, *NOT_NUMBERS])
def test_what_is_no_interval(value: bytes | None) -> None:
    assert _mail_refusal(read_hold_for, value) is BAD_PARAMETER


@pytest.mark.parametrize(
    ("value", "until"),
    [
        (b"2030-01-01T00:00:00Z", NOW),
        (b"2030-01-02T00:00:00Z", LATEST),
        (b"2030-01-01t12:00:00z", NOW + timedelta(hours=12)),
        (b"2030-01-01T12:00:00.5Z", NOW + timedelta(hours=12, seconds=0.5)),
        (b"2030-01-01T12:00:00.123456789Z", NOW + timedelta(hours=12, microseconds=123456)),
        (b"2030-01-01T12:00:00+02:00", NOW + timedelta(hours=10)),
        (b"2029-12-31T23:30:00-05:30", NOW + timedelta(hours=5)),
        (b"2030-01-01T12:00:00-00:00", NOW + timedelta(hours=12)),
        (b"2030-01-02T23:59:00+23:59", LATEST),
    ],
)
def test_dates(value: bytes, until: datetime) -> None:
    found = _sender(read_hold_until, value).hold_until
    assert found == until
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"2030-01-01",
        b"2030-01-01T12:00:00",
        b"2030-01-01T12:00Z",
        b"2030-01-01 12:00:00Z",
        b"20300101T120000Z",
        b"2030-01-01T12:00:00,5Z",
        b"2030-01-01T12:00:00.Z",
        b"2030-01-01T12:00:00+0200",
        b"2030-01-01T12:00:00+02",
        b"2030-01-01T24:00:00Z",
        b"2030-01-01T12:60:00Z",
        b"2030-01-01T12:00:60Z",
        b"2030-01-01T12:00:00+24:00",
        b"2030-02-30T12:00:00Z",
        b"2030-13-01T12:00:00Z",
        b"2030-00-01T12:00:00Z",
        b"0000-01-01T00:00:00Z",
        b"0001-01-01T00:00:00+23:59",
        b"9999-12-31T23:59:59-23:59",
        b"2030-W01-1T12:00:00Z",
        b"2030-01-01T12:00:00Z\n",
        "\u0662030-01-01T12:00:00Z".encode(),
        b"1893499200",
    ],
)
def test_what_is_no_date(value: bytes | None) -> None:
    assert _mail_refusal(hold_until_reader(datetime.max.replace(tzinfo=UTC), lambda: NOW), value) is BAD_PARAMETER


@pytest.mark.parametrize(
    "value", [b"2029-12-31T23:59:59Z", b"2030-01-02T00:00:01Z", b"2030-01-02T00:00:00-00:01", b"1970-01-01T00:00:00Z"]
)
def test_dates_that_are_past_or_too_far(value: bytes) -> None:
    assert _mail_refusal(read_hold_until, value) is BAD_PARAMETER


def test_the_past_moves_on() -> None:
    reader = hold_until_reader(LATEST, lambda: NOW + timedelta(hours=1))
    assert _mail_refusal(reader, b"2030-01-01T00:59:59Z") is BAD_PARAMETER
    assert _sender(reader, b"2030-01-01T01:00:00Z").hold_until == NOW + timedelta(hours=1)


def test_one_of_the_two_only() -> None:
    held = _sender(read_hold_for, b"60")
    assert _mail_refusal(read_hold_until, b"2030-01-01T12:00:00Z", held) is BAD_PARAMETER
    held = _sender(read_hold_until, b"2030-01-01T12:00:00Z")
    assert _mail_refusal(read_hold_for, b"60", held) is BAD_PARAMETER


# -- MT-PRIORITY (RFC 6710) -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", range(-9, 10))
def test_priorities(priority: int) -> None:
    assert _sender(read_priority, b"%d" % priority).priority == priority


@pytest.mark.parametrize(
    "value", [None, b"", b"10", b"-10", b"x", b"-0", b"00", b"05", b"+5", b"-", b"5\n", "\u0665".encode()]
)
def test_what_is_no_priority(value: bytes | None) -> None:
    assert _mail_refusal(read_priority, value) is BAD_PARAMETER


# -- DSN (RFC 3461) ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "ret"), [(b"FULL", "FULL"), (b"hdrs", "HDRS"), (b"Hdrs", "HDRS")])
def test_what_to_return(value: bytes, ret: str) -> None:
    assert _sender(read_ret, value).ret == ret


@pytest.mark.parametrize("value", [None, b"", b"HEADERS", b"FULL,HDRS", b"FULL "])
def test_what_cannot_be_returned(value: bytes | None) -> None:
    assert _mail_refusal(read_ret, value) is BAD_PARAMETER


@pytest.mark.parametrize(
    ("value", "envid"), [(b"QQ314159", "QQ314159"), (b"a+2Bb+3Dc+20d", "a+b=c d"), (b"a" * 100, "a" * 100)]
)
def test_envelope_identifiers(value: bytes, envid: str) -> None:
    assert _sender(read_envid, value).envid == envid


@pytest.mark.parametrize("value", [None, b"a" * 101, b"+41" * 34, b"a+", b"a+4g", b"a+2b", b"+0A", b"+FF", b"\xc3\xbc"])
def test_what_is_no_envelope_identifier(value: bytes | None) -> None:
    assert _mail_refusal(read_envid, value) is BAD_PARAMETER


@pytest.mark.parametrize(
    ("value", "notify"),
    [
        (b"NEVER", ("NEVER",)),
        (b"never", ("NEVER",)),
        (b"SUCCESS", ("SUCCESS",)),
        (b"Failure,delay", ("FAILURE", "DELAY")),
        (b"DELAY,SUCCESS,FAILURE", ("DELAY", "SUCCESS", "FAILURE")),
    ],
)
def test_notifications(value: bytes, notify: tuple[str, ...]) -> None:
    assert _recipient(read_notify, value).notify == notify


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b",",
        b"SUCCESS,",
        b",SUCCESS",
        b"SUCCESS,,DELAY",
        b"SUCCESS, DELAY",
        b"SUCCESS;DELAY",
        b"SOMETIMES",
        b"NEVER,SUCCESS",
        b"SUCCESS,NEVER",
        b"NEVER,NEVER",
        b"SUCCESS,success",
        "\u017fUCCESS".encode(),
        b"\xff",
    ],
)
def test_what_is_no_notification(value: bytes | None) -> None:
    assert _rcpt_refusal(read_notify, value) is BAD_PARAMETER


@pytest.mark.parametrize("reader", [read_orcpt, read_orcpt_utf8])
@pytest.mark.parametrize(
    ("value", "orcpt"),
    [
        (b"rfc822;Bob@b.example", ("rfc822", "Bob@b.example")),
        (b"RFC822;a+2Bb@c", ("rfc822", "a+b@c")),
        (b"rfc822;a;b", ("rfc822", "a;b")),
        (b"x400;/C+3DUS/", ("x400", "/C=US/")),
        (b"rfc822;\\x{E9}", ("rfc822", "\\x{E9}")),
        (b"utf-8;a@b", ("utf-8", "a@b")),
        (b"rfc822;" + b"a" * 493, ("rfc822", "a" * 493)),
    ],
)
def test_original_recipients(reader: RcptParameter, value: bytes, orcpt: tuple[str, str]) -> None:
    assert _recipient(reader, value).orcpt == orcpt


@pytest.mark.parametrize("reader", [read_orcpt, read_orcpt_utf8])
@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"bob",
        b";bob",
        b"rfc822;",
        b"rfc822",
        b"rfc 822;a",
        b"a.b;c",
        b"(x);a",
        b"\xc3\xbc;a",
        b"rfc822;+20",
        b"rfc822;b+0D+0Ax",
        b"rfc822;b+00",
        b"rfc822;b+",
        b"rfc822;b+2b",
        b"rfc822;a=b",
        b"rfc822;a b",
        b"rfc822;a\n",
        b"rfc822;\xc3\xbc@b",
        b"rfc822;" + b"a" * 494,
        b"utf-8;",
        b"utf-8;a b@c",
        b"utf-8;a\r@c",
        b"utf-8;" + b"+41" * 165,
    ],
)
def test_what_is_no_original_recipient(reader: RcptParameter, value: bytes | None) -> None:
    assert _rcpt_refusal(reader, value) is BAD_PARAMETER


# -- ORCPT in UTF-8 (RFC 6533 3) --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("utf-8;jürgen@bücher.example".encode(), "jürgen@bücher.example"),
        (b"UTF-8;j\\x{FC}rgen@b\\x{fc}cher.example", "jürgen@bücher.example"),
        (b"utf-8;\\x{10FFFD}@b.example", "\U0010fffd@b.example"),
        (b"utf-8;a+b@c", "a+b@c"),  # no xtext: a plus sign is one
        (b"utf-8;a\\x{2B}b@c", "a+b@c"),
        (b"utf-8;a\\x{3D}b@c", "a=b@c"),
        (b'utf-8;"a\\x{20}b"@c', '"a b"@c'),
        (b'utf-8;"a\\x{5C}\\x{5C}b"@c', '"a\\\\b"@c'),
        (b"utf-8;a\xe2\x80\x8cb@c", "a\u200cb@c"),
        (b"utf-8;" + b"a" * 492 + b"@c", "a" * 492 + "@c"),
    ],
)
def test_original_recipients_in_utf8(value: bytes, address: str) -> None:
    assert _recipient(read_orcpt_utf8, value).orcpt == ("utf-8", address)


@pytest.mark.parametrize(
    ("value", "reply"),
    [
        (b"utf-8;bob", BAD_PARAMETER),  # no mailbox
        (b"utf-8;<a@b>", BAD_PARAMETER),
        (b"utf-8;a\\x{0D}\\x{0A}b@c", BAD_PARAMETER),
        (b'utf-8;"a\\x{0D}\\x{0A}b"@c', BAD_PARAMETER),
        (b'utf-8;"a\\x{00}b"@c', BAD_PARAMETER),
        (b'utf-8;"a\\x{7F}b"@c', BAD_PARAMETER),
        (b'utf-8;"a\\x{1B}b"@c', BAD_PARAMETER),
        (b"utf-8;a\\x{20}b@c", BAD_PARAMETER),
        (b"utf-8;\\x{D800}@c", BAD_PARAMETER),
        (b"utf-8;\\x{110000}@c", BAD_PARAMETER),
        (b"utf-8;\\x{FFFFFF}@c", BAD_PARAMETER),
        (b"utf-8;\\x{}@c", BAD_PARAMETER),
        (b"utf-8;\\x{G0}@c", BAD_PARAMETER),
        (b"utf-8;\\x{FC@c", BAD_PARAMETER),
        (b"utf-8;\\xFC@c", BAD_PARAMETER),
        (b"utf-8;\\x{00000FC}@c", BAD_PARAMETER),
        (b"utf-8;\xfc@c", BAD_UTF8),
        (b"utf-8;\xc0\xaf@c", BAD_UTF8),
        (b"utf-8;\xed\xa0\x80@c", BAD_UTF8),
        (b"utf-8;\xc3\\x{BC}@c", BAD_UTF8),
        ("utf-8;a\u202eb@c".encode(), ADDRESS_NOT_ALLOWED),
        (b"utf-8;a\\x{200B}b@c", ADDRESS_NOT_ALLOWED),
        (b"utf-8;a\\x{85}b@c", ADDRESS_NOT_ALLOWED),
        (b"utf-8;" + b"a" * 493 + b"@c", BAD_PARAMETER),
    ],
)
def test_what_is_no_original_recipient_in_utf8(value: bytes, reply: Reply) -> None:
    assert _rcpt_refusal(read_orcpt_utf8, value) is reply


def test_utf8_elsewhere_is_xtext() -> None:
    assert _recipient(read_orcpt, b"utf-8;j\\x{FC}rgen@b").orcpt == ("utf-8", "j\\x{FC}rgen@b")
    assert _rcpt_refusal(read_orcpt, "utf-8;jürgen@b".encode()) is BAD_PARAMETER
    assert _rcpt_refusal(read_orcpt, b"utf-8;a+b@c") is BAD_PARAMETER


# -- all of them ------------------------------------------------------------------------------------------------------

_ALPHABET: Final = st.sampled_from(b'0123456789ABFRTNZabfrtnz+-;:,.=\\x{}@<>"% \r\n\x00\x7f\xc3\xbc\xe2\x80\x8b\xff')
_OCTETS: Final = st.none() | st.binary(max_size=40) | st.lists(_ALPHABET, max_size=40).map(bytes)
_PREFIXED: Final = st.tuples(st.sampled_from([b"utf-8;", b"rfc822;", b"2030-01-01T"]), _OCTETS)
_VALUES: Final = _OCTETS | _PREFIXED.map(lambda parts: parts[0] + (parts[1] or b""))


@given(value=_VALUES)
@example(value=b"9" * 5000)
@example(value=b"2030-01-01T00:00:00." + b"9" * 5000 + b"Z")
def test_mail_readers_raise_nothing_else(value: bytes | None) -> None:
    for reader in MAIL_READERS:
        _mail_refusal(reader, value)


@given(value=_VALUES)
@example(value=b"utf-8;" + b"\\x{10FFFF}" * 50)
def test_rcpt_readers_raise_nothing_else(value: bytes | None) -> None:
    for reader in RCPT_READERS:
        _rcpt_refusal(reader, value)


@given(value=_VALUES)
def test_no_control_octet_gets_through(value: bytes | None) -> None:
    sender, recipient = Sender("a", "a.example"), Recipient("b", "b.example")
    for mail_reader in (read_auth, read_envid):
        _refusal(mail_reader, sender, value)
    for rcpt_reader in RCPT_READERS:
        _refusal(rcpt_reader, recipient, value)
    read = "".join((sender.auth or "", sender.envid or "", *(recipient.orcpt or ()), *(recipient.notify or ())))
    assert not any(char < " " or "\x7f" <= char <= "\x9f" for char in read)


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=33))
def test_what_is_encoded_comes_back(text: str) -> None:
    octets = encode_xtext(text).encode("ascii")
    assert _sender(read_envid, octets).envid == text
    if text.strip():
        assert _sender(read_auth, octets).auth == ("" if text == "<>" else text)
        assert _recipient(read_orcpt, b"rfc822;" + octets).orcpt == ("rfc822", text)
