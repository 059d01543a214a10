"""The data hook's answers for each recipient: LMTP passes them on (RFC 2033 4.2), SMTP has one reply for all."""

from __future__ import annotations

from typing import Any, Final

import pytest

from fastsmtp import ACCEPT, CLOSE, REJECT, Message, Reply, Session
from fastsmtp.protocol.content import ContentSpace
from fastsmtp.protocol.events import FAILED, PENDING, STORE, Decider
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.memory import BufferPool
from fastsmtp.protocol.policy import Policy
from fastsmtp.protocol.service import Service
from fastsmtp.server.dispatch import checked
from tests.protocol.driver import HOSTNAME, TLS_FACTS, Driver
from tests.protocol.invariants import replies

ACCEPTED: Final = b"250 2.0.0 accepted, id.1\r\n"
REFUSED: Final = b"550 5.7.1 rejected by policy\r\n"
REJECTED: Final = b"554 5.7.1 rejected by policy\r\n"
CLOSING: Final = b"421 4.7.0 mx.example closing connection\r\n"
FAILURE: Final = b"451 4.3.0 temporary failure, try again later\r\n"
LATER: Final = Reply(450, "4.2.1", "later")
GLADLY: Final = Reply(250, "2.6.0", "gladly")
FULL: Final = Reply(452, "4.3.1", "full")

MESSAGES: Final = {"data": b"DATA\r\nx\r\n.\r\n", "bdat": b"BDAT 1\r\nxBDAT 2 LAST\r\n\r\n"}
by_each_command = pytest.mark.parametrize("command", MESSAGES)


class Application:
    """A data hook and a store that answer what they are told to.

    Attributes:
        stored: the recipients of each message that the store was given.
    """

    def __init__(self, data: object, store: object = None, later: bool = False) -> None:
        self.stored: list[list[str]] = []
        self._data, self._store, self._later = data, store, later

    @property
    def deciders(self) -> dict[str, Decider]:
        return {"data": self.data, STORE: self.store}

    def data(self, session: Session, subject: Any) -> object:
        return PENDING if self._later else self._data

    def store(self, session: Session, subject: Any) -> object:
        message: Message = subject
        assert bytes(message.content) == b"x\r\n"
        assert message.sender.address == "a@a"
        self.stored.append([recipient.local for recipient in message.recipients])
        return self._store


def _driver(application: Application, limits: Limits | None = None, *, lmtp: bool = True) -> Driver:
    service = Service(HOSTNAME, ContentSpace(limits or Limits(), BufferPool()), policy=Policy(lmtp=lmtp))
    return Driver(service=service, deciders=application.deciders, waits=lambda: True)


def _opening(recipients: int, lmtp: bool = True) -> bytes:
    paths = b"".join(b"RCPT TO:<%b@b>\r\n" % b"bcdefgh"[each : each + 1] for each in range(recipients))
    return (b"LHLO a\r\n" if lmtp else b"EHLO a\r\n") + b"MAIL FROM:<a@a>\r\n" + paths


def _verdicts(driver: Driver, recipients: int, message: bytes, lmtp: bool = True) -> list[bytes]:
    """The replies to the message."""
    driver.send(_opening(recipients, lmtp))
    before = len(driver.output)
    driver.send(message)
    return [reply for reply in replies(driver.output[before:]) if not reply.startswith((b"354", b"250 2.0.0 1 octets"))]


@by_each_command
@pytest.mark.parametrize("later", [False, True], ids=["at_once", "later"])
@pytest.mark.parametrize(
    ("answers", "said", "stored"),
    [
        ([None, ACCEPT], [ACCEPTED, ACCEPTED], ["b", "c"]),
        ([None, REJECT], [ACCEPTED, REFUSED], ["b"]),
        ([REJECT, None], [REFUSED, ACCEPTED], ["c"]),
        ((LATER, GLADLY, None), [LATER.encoded, GLADLY.encoded, ACCEPTED], ["c", "d"]),
        ([None, CLOSE, None], [ACCEPTED, CLOSING, ACCEPTED], ["b", "d"]),
        ([REJECT, LATER], [REFUSED, LATER.encoded], None),
        ([REJECT, REJECT], [REFUSED, REFUSED], None),
        ([CLOSE], [CLOSING], None),
        ([None], [ACCEPTED], ["b"]),
    ],
)
def test_an_answer_for_each_recipient(
    answers: Any, said: list[bytes], stored: list[str] | None, later: bool, command: str
) -> None:
    application = Application(answers, later=later)
    driver = _driver(application)
    if later:
        driver._owed = answers
        _verdicts(driver, len(answers), MESSAGES[command])
        before = len(driver.output)
        driver.send(b"")
        found = replies(driver.output[before:])
    else:
        found = _verdicts(driver, len(answers), MESSAGES[command])
    assert found == said
    assert application.stored == ([stored] if stored else [])
    assert driver.session.closing is (CLOSE in answers)
    assert driver.session.messages == bool(stored)
    assert driver.session.envelope is None


@pytest.mark.parametrize(
    ("data", "store", "said"),
    [
        (None, None, [ACCEPTED] * 3),
        (GLADLY, None, [GLADLY.encoded] * 3),
        (None, GLADLY, [GLADLY.encoded] * 3),
        (None, FULL, [FULL.encoded] * 3),
        (None, FAILED, [FAILURE] * 3),
        (None, REJECT, [REJECTED] * 3),
        (None, CLOSE, [CLOSING] * 3),
        (REJECT, None, [REJECTED] * 3),
        (CLOSE, None, [CLOSING] * 3),
        (FAILED, None, [FAILURE] * 3),
        (LATER, None, [LATER.encoded] * 3),
        ([None, REJECT, GLADLY], FULL, [FULL.encoded, REFUSED, FULL.encoded]),
        ([None, REJECT, GLADLY], FAILED, [FAILURE, REFUSED, FAILURE]),
        ([None, REJECT, GLADLY], Reply(250, "2.0.0", "kept"), [b"250 2.0.0 kept\r\n", REFUSED, GLADLY.encoded]),
    ],
)
def test_what_the_store_says_holds_for_those_who_take_the_message(
    data: object, store: object, said: list[bytes]
) -> None:
    driver = _driver(Application(data, store))
    assert _verdicts(driver, 3, MESSAGES["data"]) == said
    assert driver.session.envelope is None


@by_each_command
@pytest.mark.parametrize(
    ("answers", "said", "stored"),
    [
        ([None, ACCEPT, GLADLY], ACCEPTED, ["b", "c", "d"]),
        ([None, LATER, REJECT], LATER.encoded, None),
        ([REJECT, LATER, None], REFUSED, None),
        ([None, None, CLOSE], CLOSING, None),
    ],
)
def test_smtp_says_the_first_refusal(answers: object, said: bytes, stored: list[str] | None, command: str) -> None:
    """A message that some recipients refuse is refused for all: the client cannot be told whose it is."""
    application = Application(answers)
    driver = _driver(application, lmtp=False)
    assert _verdicts(driver, 3, MESSAGES[command], lmtp=False) == [said]
    assert application.stored == ([stored] if stored else [])


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("answers", [[], [None], [None] * 3, [None, 250], [None, Reply(354, None, "go on")], "ab"])
def test_answers_that_are_none_for_each_recipient_are_a_failure(answers: object, lmtp: bool) -> None:
    application = Application(None)
    driver = _driver(application, lmtp=lmtp)
    driver.session.deciders = {
        **application.deciders,
        "data": lambda session, subject: checked(session, "data", answers),
    }
    assert _verdicts(driver, 2, MESSAGES["data"], lmtp) == [FAILURE] * (2 if lmtp else 1)
    assert application.stored == []


def test_verdicts_of_one_message_are_not_said_of_the_next() -> None:
    answers: list[object] = [[None, REJECT], None, [REJECT, REJECT], None]
    driver = Driver(
        service=Service(HOSTNAME, policy=Policy(lmtp=True)),
        deciders={"data": lambda session, subject: answers.pop(0)},
    )
    said = [_verdicts(driver, 2, MESSAGES["bdat"]) for _ in range(4)]
    assert [[reply[:3] for reply in each] for each in said] == [
        [b"250", b"550"],
        [b"250", b"250"],
        [b"550", b"550"],
        [b"250", b"250"],
    ]


def test_the_log_is_told_who_refused() -> None:
    driver = _driver(Application([REJECT, None, LATER]))
    driver.session.receive(_opening(3) + MESSAGES["data"])
    ((message_id, _, size, reply, _, refused),) = driver.session.finished
    assert (message_id, size, reply, refused) == ("id.1", 3, None, 2)


@by_each_command
def test_a_hook_may_still_decide_when_the_client_is_gone(command: str) -> None:
    application = Application(None, later=True)
    driver = _driver(application)
    _verdicts(driver, 2, MESSAGES[command])
    driver.session.disconnected()
    assert driver.session.envelope is None
    assert application.stored == []


# -- errors -----------------------------------------------------------------------------------------------------------


@by_each_command
def test_a_message_that_all_refuse_is_one_error(command: str) -> None:
    """S: it is a reply to a message that counts, not its copies."""
    driver = _driver(Application(REJECT), Limits(max_errors=2))
    assert _verdicts(driver, 3, MESSAGES[command]) == [REJECTED] * 3
    assert (driver.session.errors, driver.session.closing) == (1, False)
    driver.send(_opening(3) + MESSAGES[command] + b"NOOP\r\n")
    assert replies(driver.output)[-4:] == [REJECTED] * 3 + [b"421 4.7.0 mx.example too many errors\r\n"]
    assert driver.session.closing


@pytest.mark.parametrize("answers", [[REJECT, LATER], [LATER, REJECT]])
def test_an_error_counts_wherever_it_stands(answers: object) -> None:
    driver = _driver(Application(answers))
    _verdicts(driver, 2, MESSAGES["data"])
    assert driver.session.errors == 1


@pytest.mark.parametrize("answers", [[REJECT, None], [None, REJECT]])
def test_a_message_that_somebody_takes_clears_the_errors(answers: object) -> None:
    driver = _driver(Application(answers), Limits(max_errors=2))
    driver.send(b"FOO\r\n")
    _verdicts(driver, 2, MESSAGES["data"])
    assert (driver.session.errors, driver.session.messages, driver.session.closing) == (0, 1, False)


# -- its name ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lmtp", "tls", "user", "greeting", "names"),
    [
        (False, False, None, b"HELO a", ["SMTP", "SMTP"]),
        (False, True, "u", b"HELO a", ["SMTP", "SMTP"]),
        (False, False, None, b"EHLO a", ["ESMTP", "UTF8SMTP"]),
        (False, True, None, b"EHLO a", ["ESMTPS", "UTF8SMTPS"]),
        (False, False, "u", b"EHLO a", ["ESMTPA", "UTF8SMTPA"]),
        (False, True, "u", b"EHLO a", ["ESMTPSA", "UTF8SMTPSA"]),
        (True, False, None, b"LHLO a", ["LMTP", "UTF8LMTP"]),
        (True, True, None, b"LHLO a", ["LMTPS", "UTF8LMTPS"]),
        (True, False, "u", b"LHLO a", ["LMTPA", "UTF8LMTPA"]),
        (True, True, "u", b"LHLO a", ["LMTPSA", "UTF8LMTPSA"]),
    ],
)
def test_the_protocol_has_the_name_that_a_received_field_gives_it(
    lmtp: bool, tls: bool, user: str | None, greeting: bytes, names: list[str]
) -> None:
    """RFC 3848, RFC 6531 4.3."""
    policy = Policy(lmtp=lmtp, starttls=True, auth_requires_tls=False)
    driver = Driver(service=Service(HOSTNAME, policy=policy), deciders={"auth": lambda session, subject: None})
    if tls:
        driver.send((b"LHLO a" if lmtp else b"EHLO a") + b"\r\nSTARTTLS\r\n")
        driver.start_tls(TLS_FACTS)
    driver.send(greeting + b"\r\n" + (b"AUTH PLAIN AHUAcA==\r\n" if user else b""))
    found = [driver.session.protocol]
    driver.send(b"MAIL FROM:<a@a> SMTPUTF8\r\n")
    assert [*found, driver.session.protocol] == names
    driver.send(b"RSET\r\n")
    assert driver.session.protocol == names[0]
    assert driver.session.user == user


@pytest.mark.parametrize(
    ("data", "store", "said"),
    [
        (None, [None, FULL, None], [ACCEPTED, FULL.encoded, ACCEPTED]),
        (GLADLY, [FULL, None, None], [FULL.encoded, GLADLY.encoded, GLADLY.encoded]),
        ([None, REJECT, GLADLY], [FULL, None], [FULL.encoded, REFUSED, GLADLY.encoded]),
        ([None, REJECT, GLADLY], [None, FULL], [ACCEPTED, REFUSED, FULL.encoded]),
        ([None, REJECT, GLADLY], [LATER, FULL], [LATER.encoded, REFUSED, FULL.encoded]),
        (None, [LATER, FULL, FULL], [LATER.encoded, FULL.encoded, FULL.encoded]),
    ],
)
def test_a_store_may_have_the_message_for_some(data: object, store: object, said: list[bytes]) -> None:
    driver = _driver(Application(data, store))
    assert _verdicts(driver, 3, MESSAGES["data"]) == said
    assert driver.session.messages == any(reply.startswith(b"2") for reply in said)
    assert driver.session.envelope is None


@pytest.mark.parametrize("store", [[LATER, Reply(550, "5.1.1", "no"), None], [Reply(550, "5.1.1", "no"), None, LATER]])
def test_smtp_has_the_least_final_of_them(store: object) -> None:
    driver = _driver(Application(None, store), lmtp=False)
    assert _verdicts(driver, 3, MESSAGES["data"], lmtp=False) == [LATER.encoded]
    assert driver.session.messages == 0
