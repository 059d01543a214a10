"""What a session offers in each situation, and how the parameters that go with it reach the handler."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from fastsmtp import Recipient, Sender, Session
from fastsmtp.protocol.content import ContentSpace
from fastsmtp.protocol.envelope import DeliverBy
from fastsmtp.protocol.extensions import Switches
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.memory import BufferPool
from fastsmtp.protocol.policy import Policy
from fastsmtp.protocol.service import Service
from tests.protocol.driver import HOSTNAME, TLS_FACTS, Driver
from tests.protocol.invariants import replies

EHLO: Final = b"EHLO a\r\n"
STARTTLS: Final = EHLO + b"STARTTLS\r\n"
LOGIN: Final = b"AUTH PLAIN AHUAcA==\r\n"
NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVERYTHING: Final = Switches(
    binarymime=True,
    dsn=True,
    requiretls=True,
    deliverby=True,
    futurerelease=86400,
    mt_priority=True,
)
MAIL_OK: Final = b"250 2.1.0 sender ok\r\n"
BAD: Final = b"501 5.5.4 syntax error in a parameter\r\n"
NOT_OFFERED: Final = b"555 5.5.4 parameter not supported\r\n"


class Clock:
    """The time of day, as the test has it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Envelopes:
    """Takes everything, and remembers senders and recipients."""

    def __init__(self) -> None:
        self.senders: list[Sender] = []
        self.recipients: list[Recipient] = []

    def mail(self, session: Session, subject: Any) -> None:
        self.senders.append(subject)

    def rcpt(self, session: Session, subject: Any) -> None:
        self.recipients.append(subject)


def _driver(
    switches: Switches = EVERYTHING, limits: Limits | None = None, policy: Policy | None = None, *, tls: bool = False
) -> tuple[Driver, Envelopes, Clock]:
    clock, envelopes = Clock(), Envelopes()
    space = ContentSpace(limits or Limits(max_errors=1000, error_delay=0), BufferPool())
    service = Service(HOSTNAME, space, switches, policy or Policy(starttls=True), now=clock)
    driver = Driver(
        service=service,
        deciders={"auth": lambda session, subject: None, "mail": envelopes.mail, "rcpt": envelopes.rcpt},
    )
    if tls:
        driver.send(STARTTLS)
        driver.start_tls(TLS_FACTS)
    return driver, envelopes, clock


def _said(driver: Driver, octets: bytes) -> list[bytes]:
    before = len(driver.output)
    driver.send(octets)
    return replies(driver.output[before:])


def _keywords(driver: Driver, greeting: bytes = EHLO) -> set[bytes]:
    (reply,) = _said(driver, greeting)
    return {line[4:].split()[0] for line in reply.splitlines()[1:]}


# -- what the handler gets --------------------------------------------------------------------------------------------


def test_every_parameter_reaches_the_handler() -> None:
    driver, envelopes, _ = _driver(tls=True)
    driver.send(EHLO + LOGIN + EHLO)
    parameters = (
        b"SIZE=42 BODY=binarymime SMTPUTF8 RET=hdrs ENVID=QQ+2B1 AUTH=c+40d REQUIRETLS BY=-7;nt HOLDFOR=60"
        b" MT-PRIORITY=-4"
    )
    rcpt = b"RCPT TO:<b@b> NOTIFY=delay,SUCCESS ORCPT=RFC822;x+2By@z\r\nRCPT TO:<c@b> NOTIFY=never\r\nRCPT TO:<d@b>\r\n"
    driver.send(b"MAIL FROM:<a@a> " + parameters + b"\r\n" + rcpt)
    assert envelopes.senders == [
        Sender(
            "a",
            "a",
            size=42,
            body="BINARYMIME",
            smtputf8=True,
            ret="HDRS",
            envid="QQ+1",
            auth="c@d",
            require_tls=True,
            deliver_by=DeliverBy(-7, "N", True),
            hold_for=60,
            priority=-4,
        )
    ]
    assert envelopes.recipients == [
        Recipient("b", "b", ("DELAY", "SUCCESS"), ("rfc822", "x+y@z")),
        Recipient("c", "b", ("NEVER",)),
        Recipient("d", "b"),
    ]


def test_what_is_not_said_has_no_value() -> None:
    driver, envelopes, _ = _driver()
    driver.send(EHLO + b"MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n")
    assert envelopes.senders == [Sender("a", "a")]
    (sender,) = envelopes.senders
    assert (sender.size, sender.ret, sender.auth, sender.deliver_by, sender.priority) == (None,) * 5
    assert (sender.smtputf8, sender.require_tls) == (False, False)
    assert envelopes.recipients == [Recipient("b", "b", None, None)]


def test_parameters_of_one_mail_are_not_those_of_the_next() -> None:
    driver, envelopes, _ = _driver()
    driver.send(EHLO + b"MAIL FROM:<a@a> RET=FULL SIZE=1 SMTPUTF8\r\nRCPT TO:<b@b> NOTIFY=NEVER\r\nRSET\r\n")
    driver.send(b"MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n")
    assert envelopes.senders[1] == Sender("a", "a")
    assert envelopes.recipients[1] == Recipient("b", "b")


@pytest.mark.parametrize(
    ("login", "parameter", "auth"),
    [
        (b"", b"AUTH=c+40d", ""),
        (b"", b"AUTH=<>", ""),
        (LOGIN, b"AUTH=c+40d", "c@d"),
        (LOGIN, b"AUTH=<>", ""),
        (LOGIN, b"AUTH=+3C+3E", ""),
        (LOGIN, b"", None),
        (b"", b"", None),
    ],
)
def test_whom_auth_names_is_believed_of_those_who_have_logged_in(
    login: bytes, parameter: bytes, auth: str | None
) -> None:
    """RFC 4954 5: from a client that is not trusted it counts as <>."""
    driver, envelopes, _ = _driver(tls=True)
    driver.send(EHLO + login + b"MAIL FROM:<a@a> " + parameter + b"\r\n")
    assert [sender.auth for sender in envelopes.senders] == [auth]


def test_one_bad_parameter_asks_nobody() -> None:
    driver, envelopes, _ = _driver()
    assert _said(driver, EHLO + b"MAIL FROM:<a@a> RET=FULL SIZE=x\r\nMAIL FROM:<a@a> SIZE=1 FOO\r\n")[1:] == [
        BAD,
        NOT_OFFERED,
    ]
    assert envelopes.senders == []


# -- what is offered --------------------------------------------------------------------------------------------------

ALWAYS: Final = {b"PIPELINING", b"SIZE", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES", b"CHUNKING", b"LIMITS"}
SWITCHED_ON: Final = {b"BINARYMIME", b"DSN", b"DELIVERBY", b"MT-PRIORITY"}
INSIDE: Final = {b"AUTH", b"REQUIRETLS"}


def test_what_is_offered_in_each_situation() -> None:
    driver, _, _ = _driver()
    assert _keywords(driver) == ALWAYS | SWITCHED_ON | {b"STARTTLS"}
    driver.send(b"STARTTLS\r\n")
    driver.start_tls()
    assert _keywords(driver) == ALWAYS | SWITCHED_ON | INSIDE
    driver.send(LOGIN)
    assert _keywords(driver) == ALWAYS | SWITCHED_ON | INSIDE | {b"FUTURERELEASE"}


_SWITCHES: Final = (
    ("size", b"SIZE", b"MAIL FROM:<a@a> SIZE=1\r\n"),
    ("eightbitmime", b"8BITMIME", b""),  # BODY stays as long as BINARYMIME does
    ("smtputf8", b"SMTPUTF8", b"MAIL FROM:<a@a> SMTPUTF8\r\n"),
    ("pipelining", b"PIPELINING", b""),
    ("enhancedstatuscodes", b"ENHANCEDSTATUSCODES", b""),
    ("limits", b"LIMITS", b""),
    ("dsn", b"DSN", b"MAIL FROM:<a@a> RET=FULL\r\nMAIL FROM:<a@a> ENVID=x\r\n"),
    ("requiretls", b"REQUIRETLS", b"MAIL FROM:<a@a> REQUIRETLS\r\n"),
    ("deliverby", b"DELIVERBY", b"MAIL FROM:<a@a> BY=1;R\r\n"),
    ("futurerelease", b"FUTURERELEASE", b"MAIL FROM:<a@a> HOLDFOR=1\r\nMAIL FROM:<a@a> HOLDUNTIL=x\r\n"),
    ("mt_priority", b"MT-PRIORITY", b"MAIL FROM:<a@a> MT-PRIORITY=1\r\n"),
)


@pytest.mark.parametrize(("name", "keyword", "commands"), _SWITCHES)
def test_an_extension_that_is_switched_off(name: str, keyword: bytes, commands: bytes) -> None:
    """A: a keyword is offered exactly where its parameter is honoured."""
    on = {each: getattr(EVERYTHING, each) for each in EVERYTHING.__slots__}
    driver, _, _ = _driver(Switches(**{**on, name: 0}), tls=True)
    driver.send(EHLO + LOGIN)
    found = _keywords(driver)
    assert found == (ALWAYS | SWITCHED_ON | INSIDE | {b"FUTURERELEASE"}) - {keyword}
    assert _said(driver, commands) == [NOT_OFFERED] * commands.count(b"\n")


# -- FUTURERELEASE ----------------------------------------------------------------------------------------------------


def test_future_release_is_offered_with_the_next_ehlo_behind_a_login() -> None:
    """A: what counts is the last EHLO reply."""
    driver, _, _ = _driver(tls=True)
    driver.send(EHLO + LOGIN)
    assert _said(driver, b"MAIL FROM:<a@a> HOLDFOR=60\r\n") == [NOT_OFFERED]
    driver.send(EHLO)
    assert b"FUTURERELEASE 86400 2026-01-02T12:00:00Z\r\n" in driver.output
    assert _said(driver, b"MAIL FROM:<a@a> HOLDFOR=60\r\n") == [MAIL_OK]


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        (b"HOLDFOR=1", MAIL_OK),
        (b"HOLDFOR=86400", MAIL_OK),
        (b"HOLDFOR=86401", BAD),
        (b"HOLDFOR=0", BAD),
        (b"HOLDFOR=-1", BAD),
        (b"HOLDFOR=1234567890", BAD),
        (b"HOLDFOR=", BAD),
        (b"HOLDFOR", BAD),
        (b"HOLDUNTIL=2026-01-01T12:00:00Z", MAIL_OK),
        (b"HOLDUNTIL=2026-01-02T12:00:00Z", MAIL_OK),
        (b"HOLDUNTIL=2026-01-02T14:00:00+02:00", MAIL_OK),
        (b"HOLDUNTIL=2026-01-02T12:00:01Z", BAD),
        (b"HOLDUNTIL=2026-01-01T11:59:59Z", BAD),
        (b"HOLDUNTIL=2026-02-30T12:00:00Z", BAD),
        (b"HOLDUNTIL=2026-01-01T13:00:00", BAD),
        (b"HOLDUNTIL=tomorrow", BAD),
        (b"HOLDUNTIL", BAD),
        (b"HOLDFOR=60 HOLDUNTIL=2026-01-01T13:00:00Z", BAD),
        (b"HOLDUNTIL=2026-01-01T13:00:00Z HOLDFOR=60", BAD),
        (b"HOLDFOR=60 HOLDFOR=60", BAD),
    ],
)
def test_future_release(parameters: bytes, reply: bytes) -> None:
    """RFC 4865 4."""
    driver, envelopes, _ = _driver(tls=True)
    driver.send(EHLO + LOGIN + EHLO)
    assert _said(driver, b"MAIL FROM:<a@a> " + parameters + b"\r\n") == [reply]
    assert len(envelopes.senders) == (reply is MAIL_OK)


def test_the_latest_date_is_that_of_the_last_ehlo() -> None:
    driver, envelopes, clock = _driver(tls=True)
    driver.send(EHLO + LOGIN + EHLO)
    clock.now += timedelta(hours=1)
    later = b"MAIL FROM:<a@a> HOLDUNTIL=2026-01-02T13:00:00Z\r\n"
    assert _said(driver, later) == [BAD]
    driver.send(EHLO)
    assert _said(driver, later) == [MAIL_OK]
    assert envelopes.senders[0].hold_until == NOON + timedelta(hours=25)


# -- delays -----------------------------------------------------------------------------------------------------------


def test_errors_wait_from_the_one_that_the_setting_names() -> None:
    """S: from error_delay_after on each error reply waits; what is no error does not."""
    driver = Driver(Limits(error_delay_after=3, error_delay=0.5))
    driver.send(b"FOO\r\nNOOP\r\nFOO\r\n")
    assert driver.delays == []
    driver.send(b"FOO\r\nNOOP\r\nFOO\r\n")
    assert driver.delays == [0.5, 0.5]
    assert driver.output.count(b"500 5.5.2") == 4


def test_an_accepted_message_ends_the_waiting() -> None:
    driver = Driver(Limits(error_delay_after=2))
    driver.send(b"FOO\r\nFOO\r\nEHLO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nBDAT 0 LAST\r\nFOO\r\n")
    assert driver.delays == [1.0]


@pytest.mark.parametrize(
    "octets",
    [b"BDAT 5\r\nabcde", b"BDAT 0 LAST\r\n", b"VRFY reject\r\n", b"RCPT TO:<b@b>\r\n", b"EHLO\r\n", b"DATA\r\n"],
)
def test_each_kind_of_error_waits(octets: bytes) -> None:
    driver = Driver(Limits(error_delay_after=1))
    driver.send(octets + b"NOOP\r\n")
    assert driver.delays == [1.0]
    assert driver.output.endswith(b"250 2.0.0 ok\r\n")


def test_temporary_refusals_do_not_wait() -> None:
    driver = Driver(Limits(error_delay_after=1))
    driver.send(b"EHLO a\r\nMAIL FROM:<busy@a>\r\nMAIL FROM:<broken@a>\r\n")
    assert driver.delays == []


def test_the_last_error_waits_with_its_goodbye() -> None:
    driver = Driver(Limits(error_delay_after=2, max_errors=2))
    driver.send(b"FOO\r\nFOO\r\nFOO\r\n")
    assert driver.delays == [1.0]
    assert driver.output.endswith(b"421 4.7.0 mx.example too many errors\r\n")
    assert driver.session.closing


def test_nothing_is_executed_while_a_reply_waits() -> None:
    driver = Driver(Limits(error_delay_after=1))
    session = driver.session
    session.receive(b"FOO\r\nNOOP\r\n")
    assert (session.delay, session.stopped, len(session.output)) == (1.0, True, 1)
    session.go_on()
    assert (session.delay, session.stopped) == (0.0, False)
    assert session.output[1:] == [b"250 2.0.0 ok\r\n"]


def test_a_message_that_is_refused_for_many_waits_once() -> None:
    limits = Limits(error_delay_after=1)
    service = Service(HOSTNAME, ContentSpace(limits, BufferPool()), policy=Policy(lmtp=True))
    driver = Driver(service=service)
    driver.send(b"LHLO a\r\nMAIL FROM:<a@a>\r\n" + b"RCPT TO:<b@b>\r\n" * 3 + b"BDAT 1 LAST\r\n\r")
    assert driver.delays == [1.0]
    assert driver.output.count(b"550 5.5.2") == 3
