"""What is offered in EHLO, in which situation, and that exactly the parameters that go with it are honoured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.protocol.envelope import DeliverBy, Recipient, Sender
from fastsmtp.protocol.extensions import MAX_INTERVAL, Offer, Switches, offer
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.replies import BAD_PARAMETER, PARAMETER_NOT_SUPPORTED, TOO_LARGE, Reply, SMTPError

LIMITS: Final = Limits(max_message_bytes=1000, max_recipients=100)
NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
EVERYTHING: Final = Switches(
    binarymime=True, dsn=True, requiretls=True, deliverby=True, futurerelease=86400, mt_priority=True
)
NOTHING: Final = Switches(
    pipelining=False,
    size=False,
    eightbitmime=False,
    enhancedstatuscodes=False,
    smtputf8=False,
    limits=False,
    chunking=False,
)


class Situation(NamedTuple):
    """What matters of a client."""

    tls: bool
    authenticated: bool
    starttls: bool
    mechanisms: tuple[str, ...]
    xclient: bool


STRANGER: Final = Situation(tls=False, authenticated=False, starttls=False, mechanisms=(), xclient=False)
FRIEND: Final = Situation(tls=True, authenticated=True, starttls=True, mechanisms=("PLAIN", "LOGIN"), xclient=True)


def _offer(
    switches: Switches = EVERYTHING,
    situation: Situation = FRIEND,
    *,
    limits: Limits = LIMITS,
    now: datetime = NOW,
) -> Offer:
    return offer(switches, limits, **situation._asdict(), now=lambda: now)


def _mail(offered: Offer, parameters: bytes) -> Sender:
    sender = Sender("a", "a.example")
    offered.read_mail(sender, parameters)
    return sender


def _rcpt(offered: Offer, parameters: bytes, smtputf8: bool = False) -> Recipient:
    recipient = Recipient("b", "b.example")
    offered.read_rcpt(recipient, parameters, smtputf8)
    return recipient


def _mail_refusal(offered: Offer, parameters: bytes) -> Reply | None:
    try:
        _mail(offered, parameters)
    except SMTPError as error:
        return error.reply
    return None


def _rcpt_refusal(offered: Offer, parameters: bytes, smtputf8: bool = False) -> Reply | None:
    try:
        _rcpt(offered, parameters, smtputf8)
    except SMTPError as error:
        return error.reply
    return None


# -- the lines --------------------------------------------------------------------------------------------------------


def test_everything_in_its_order() -> None:
    assert _offer().keywords == (
        "PIPELINING",
        "SIZE 1000",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "BINARYMIME",
        "LIMITS RCPTMAX=100",
        "DSN",
        "STARTTLS",
        "AUTH PLAIN LOGIN",
        "REQUIRETLS",
        "DELIVERBY",
        "FUTURERELEASE 86400 2030-01-02T00:00:00Z",
        "MT-PRIORITY",
        "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
    )


def test_what_a_stranger_is_offered_by_default() -> None:
    assert _offer(Switches(), STRANGER).keywords == (
        "PIPELINING",
        "SIZE 1000",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "LIMITS RCPTMAX=100",
    )


def test_nothing_at_all() -> None:
    assert _offer(NOTHING, STRANGER).keywords == ()


def test_the_numbers_are_those_in_force() -> None:
    limits = Limits(max_message_bytes=1, max_recipients=2, max_messages=3)
    keywords = _offer(replace(EVERYTHING, deliverby_min=60, futurerelease=7), limits=limits).keywords
    assert {"SIZE 1", "LIMITS RCPTMAX=2 MAILMAX=3", "DELIVERBY 60", "FUTURERELEASE 7 2030-01-01T00:00:07Z"} <= set(
        keywords
    )


def test_a_keyword_is_offered_without_the_rest_of_its_line() -> None:
    offered = _offer()
    assert offered.offers("CHUNKING")
    assert offered.offers("SIZE")
    assert offered.offers("AUTH")
    assert not offered.offers("SIZE 1000")
    assert not offered.offers("")
    assert not _offer(replace(EVERYTHING, size=False)).offers("SIZE")


@pytest.mark.parametrize("name", ["deliverby_min", "futurerelease"])
@pytest.mark.parametrize("seconds", [-1, MAX_INTERVAL + 1])
def test_times_that_cannot_be_offered(name: str, seconds: int) -> None:
    times: dict[str, Any] = {name: seconds}
    with pytest.raises(ValueError, match=name):
        Switches(**times)


# -- a keyword and its parameters -------------------------------------------------------------------------------------

# Each parameter, and the keyword that it needs.
MAIL_PARAMETERS: Final[dict[bytes, str]] = {
    b"SIZE=1000": "SIZE",
    b"BODY=8BITMIME": "8BITMIME",
    b"BODY=BINARYMIME": "BINARYMIME",
    b"SMTPUTF8": "SMTPUTF8",
    b"RET=HDRS": "DSN",
    b"ENVID=QQ314159": "DSN",
    b"AUTH=a@a.example": "AUTH",
    b"AUTH=<>": "AUTH",
    b"REQUIRETLS": "REQUIRETLS",
    b"BY=120;R": "DELIVERBY",
    b"HOLDFOR=60": "FUTURERELEASE",
    b"HOLDUNTIL=2030-01-01T12:00:00Z": "FUTURERELEASE",
    b"MT-PRIORITY=-9": "MT-PRIORITY",
}
RCPT_PARAMETERS: Final[dict[bytes, str]] = {
    b"NOTIFY=SUCCESS,DELAY": "DSN",
    b"ORCPT=rfc822;Bob@b.example": "DSN",
}
WITHOUT_PARAMETERS: Final = {"PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "LIMITS", "STARTTLS", "XCLIENT"}


def _switches() -> Iterator[Switches]:
    """All on, all off; each one alone, each one missing."""
    yield EVERYTHING
    yield NOTHING
    for name in (field.name for field in fields(Switches)):
        yield replace(NOTHING, **{name: getattr(EVERYTHING, name)})
        yield replace(EVERYTHING, **{name: getattr(NOTHING, name)})


def _situations() -> Iterator[Situation]:
    for tls, authenticated, starttls, auth, xclient in product((False, True), repeat=5):
        yield Situation(tls, authenticated, starttls, ("PLAIN",) if auth else (), xclient)


def _expected(switches: Switches, situation: Situation) -> set[str]:
    """The keywords of an offer, said once more."""
    rules: dict[str, object] = {
        "PIPELINING": switches.pipelining,
        "SIZE": switches.size,
        "8BITMIME": switches.eightbitmime,
        "SMTPUTF8": switches.smtputf8,
        "ENHANCEDSTATUSCODES": switches.enhancedstatuscodes,
        "CHUNKING": switches.chunking,
        "BINARYMIME": switches.binarymime and switches.chunking,
        "LIMITS": switches.limits,
        "DSN": switches.dsn,
        "STARTTLS": situation.starttls,
        "AUTH": situation.mechanisms,
        "REQUIRETLS": switches.requiretls and situation.tls,
        "DELIVERBY": switches.deliverby,
        "FUTURERELEASE": switches.futurerelease and situation.authenticated,
        "MT-PRIORITY": switches.mt_priority,
        "XCLIENT": situation.xclient,
    }
    return {keyword for keyword, offered in rules.items() if offered}


def _check(offered: Offer, names: set[str]) -> None:
    for parameter, keyword in MAIL_PARAMETERS.items():
        # BODY is a parameter of two extensions: one of them without the other makes the value wrong, not the name.
        half = parameter.startswith(b"BODY=") and names & {"8BITMIME", "BINARYMIME"}
        refusal = BAD_PARAMETER if half else PARAMETER_NOT_SUPPORTED
        assert _mail_refusal(offered, parameter) is (None if keyword in names else refusal)
        assert _rcpt_refusal(offered, parameter) is PARAMETER_NOT_SUPPORTED
    for parameter, keyword in RCPT_PARAMETERS.items():
        for smtputf8 in (False, True):
            expected = None if keyword in names else PARAMETER_NOT_SUPPORTED
            assert _rcpt_refusal(offered, parameter, smtputf8) is expected
        assert _mail_refusal(offered, parameter) is PARAMETER_NOT_SUPPORTED


def test_every_keyword_is_offered_exactly_where_its_parameters_are_honoured() -> None:
    for switches in _switches():
        for situation in _situations():
            offered = _offer(switches, situation)
            names = [keyword.partition(" ")[0] for keyword in offered.keywords]
            assert len(names) == len(set(names))
            assert set(names) == _expected(switches, situation)
            _check(offered, set(names))


def test_the_table_of_parameters_is_whole() -> None:
    names = {keyword.partition(" ")[0] for keyword in _offer().keywords}
    assert {*MAIL_PARAMETERS.values(), *RCPT_PARAMETERS.values()} | WITHOUT_PARAMETERS == names


def test_nothing_is_honoured_after_helo() -> None:
    nothing = Offer([], LIMITS)
    assert nothing.keywords == ()
    _check(nothing, set())
    assert _mail_refusal(nothing, b"") is None
    assert _rcpt_refusal(nothing, b"") is None


def test_eight_bits_and_seven_beside_binary() -> None:
    assert _mail(_offer(), b"BODY=8BITMIME").body == "8BITMIME"
    assert _mail(_offer(), b"BODY=7BIT").body == "7BIT"
    assert _mail(_offer(replace(EVERYTHING, binarymime=False)), b"BODY=7BIT").body == "7BIT"
    assert _mail(_offer(replace(EVERYTHING, eightbitmime=False)), b"BODY=7BIT").body == "7BIT"


# -- several parameters -----------------------------------------------------------------------------------------------


def test_many_in_any_order() -> None:
    sender = _mail(
        _offer(), b"body=8BITMIME  ENVID=x\tSIZE=5 SMTPUTF8 RET=FULL AUTH=<> REQUIRETLS BY=9;NT MT-PRIORITY=3"
    )
    assert (sender.body, sender.envid, sender.size, sender.smtputf8) == ("8BITMIME", "x", 5, True)
    assert (sender.ret, sender.auth, sender.require_tls, sender.priority) == ("FULL", "", True, 3)
    assert sender.deliver_by == DeliverBy(9, "N", True)
    recipient = _rcpt(_offer(), b"orcpt=rfc822;b@b notify=NEVER")
    assert (recipient.orcpt, recipient.notify) == (("rfc822", "b@b"), ("NEVER",))


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        (b"SIZE=1001", TOO_LARGE),
        (b"SIZE=5 SIZE=5", BAD_PARAMETER),
        (b"SIZE=5 BODY=7BIT size=6", BAD_PARAMETER),
        (b"REQUIRETLS REQUIRETLS", BAD_PARAMETER),
        (b"SMTPUTF8 SIZE=5 SIZE=5 SMTPUTF8", BAD_PARAMETER),
        (b"X=1 X=2", BAD_PARAMETER),
        (b"SMTPUTF8 SMTPUTF8=", BAD_PARAMETER),
        (b"SMTPUTF8 SMTPUTF8=1", BAD_PARAMETER),
        (b"SIZE=", BAD_PARAMETER),
        (b"=5", BAD_PARAMETER),
        (b"SIZE=5 =", BAD_PARAMETER),
        (b"SIZE=5 X-UNKNOWN=1", PARAMETER_NOT_SUPPORTED),
        (b"NOTIFY=NEVER", PARAMETER_NOT_SUPPORTED),
        (b"HOLDFOR=60 HOLDUNTIL=2030-01-01T12:00:00Z", BAD_PARAMETER),
        (b"HOLDUNTIL=2030-01-01T12:00:00Z HOLDFOR=60", BAD_PARAMETER),
        (b"HOLDFOR=60 HOLDFOR=60", BAD_PARAMETER),
        (b"BY=0;R", BAD_PARAMETER),
        (b"MT-PRIORITY=10", BAD_PARAMETER),
        (b"REQUIRETLS=1", BAD_PARAMETER),
    ],
)
def test_one_bad_parameter_refuses_mail(parameters: bytes, reply: Reply) -> None:
    assert _mail_refusal(_offer(), parameters) is reply


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        (b"NOTIFY=NEVER NOTIFY=NEVER", BAD_PARAMETER),
        (b"NOTIFY=NEVER,DELAY", BAD_PARAMETER),
        (b"ORCPT=bob", BAD_PARAMETER),
        (b"NOTIFY=NEVER SIZE=5", PARAMETER_NOT_SUPPORTED),
        (b"SMTPUTF8", PARAMETER_NOT_SUPPORTED),
    ],
)
def test_one_bad_parameter_refuses_rcpt(parameters: bytes, reply: Reply) -> None:
    assert _rcpt_refusal(_offer(), parameters) is reply
    assert _rcpt_refusal(_offer(), parameters, smtputf8=True) is reply


def test_smtputf8_may_be_repeated() -> None:
    assert _mail(_offer(), b"SMTPUTF8 smtputf8 SIZE=5 SMTPUTF8").smtputf8


def test_orcpt_in_utf8_where_the_transaction_is() -> None:
    parameters = "ORCPT=utf-8;jürgen@b.example".encode()
    assert _rcpt(_offer(), parameters, smtputf8=True).orcpt == ("utf-8", "jürgen@b.example")
    assert _rcpt_refusal(_offer(), parameters) is BAD_PARAMETER


# -- numbers that are offered and enforced ----------------------------------------------------------------------------


def test_deliverby_with_a_shortest_time() -> None:
    offered = _offer(replace(EVERYTHING, deliverby_min=60))
    assert _mail_refusal(offered, b"BY=59;R") is BAD_PARAMETER
    assert _mail(offered, b"BY=60;R").deliver_by == DeliverBy(60, "R", False)
    assert _mail_refusal(_offer(), b"BY=1;R") is None


def test_the_latest_date_is_the_one_that_was_offered() -> None:
    now = NOW + timedelta(microseconds=999999)
    clock = [now]
    offered = offer(EVERYTHING, LIMITS, **FRIEND._asdict(), now=lambda: clock[0])
    assert "FUTURERELEASE 86400 2030-01-02T00:00:00Z" in offered.keywords
    clock[0] = now + timedelta(hours=1)
    assert _mail(offered, b"HOLDUNTIL=2030-01-02T00:00:00Z").hold_until == NOW + timedelta(days=1)
    assert _mail_refusal(offered, b"HOLDUNTIL=2030-01-02T00:00:00.5Z") is BAD_PARAMETER
    assert _mail_refusal(offered, b"HOLDUNTIL=2030-01-01T00:30:00Z") is BAD_PARAMETER
    assert _mail(offered, b"HOLDFOR=86400").hold_for == 86400
    assert _mail_refusal(offered, b"HOLDFOR=86401") is BAD_PARAMETER


def test_the_latest_date_is_in_utc() -> None:
    offered = _offer(now=NOW.astimezone(timezone(timedelta(hours=5, minutes=30))))
    assert "FUTURERELEASE 86400 2030-01-02T00:00:00Z" in offered.keywords


def test_the_longest_interval_can_be_offered() -> None:
    keywords = _offer(replace(EVERYTHING, futurerelease=MAX_INTERVAL)).keywords
    assert "FUTURERELEASE 999999999 2061-09-09T01:46:39Z" in keywords


# -- hostile input ----------------------------------------------------------------------------------------------------

_NAMES: Final = [parameter.partition(b"=")[0] for parameter in (*MAIL_PARAMETERS, *RCPT_PARAMETERS)]
_WORDS: Final = st.tuples(st.sampled_from(_NAMES), st.sampled_from([b"", b"="]), st.binary(max_size=20)).map(b"".join)
_PARAMETERS: Final = st.binary(max_size=100) | st.lists(_WORDS, max_size=6).map(b" ".join)


@given(parameters=_PARAMETERS)
def test_arbitrary_octets_raise_nothing_else(parameters: bytes) -> None:
    offered = _offer()
    allowed = {None, 501, 552, 553, 555}
    refusals = [_mail_refusal(offered, parameters)]
    refusals += [_rcpt_refusal(offered, parameters, smtputf8) for smtputf8 in (False, True)]
    assert {refusal and refusal.code for refusal in refusals} <= allowed


@given(chosen=st.permutations(sorted({*MAIL_PARAMETERS} - {b"AUTH=<>", b"BODY=8BITMIME", b"HOLDFOR=60"})))
def test_order_does_not_matter(chosen: list[bytes]) -> None:
    assert _mail(_offer(), b" ".join(chosen)) == _mail(_offer(), b" ".join(sorted(chosen)))
