"""What answers of hooks do to a session, and what else a driver may tell it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from fastsmtp import ACCEPT, CLOSE, REJECT, Endpoint, Message, Recipient, Reply, Sender, Session
from fastsmtp.protocol.events import FAILED, HOOKS, PENDING, STORE, Decider
from fastsmtp.protocol.limits import Limits
from tests.protocol.driver import Driver

BANNER: Final = b"220 mx.example ESMTP\r\n"
OPENING: Final = b"HELO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n"
MESSAGE: Final = OPENING + b"DATA\r\nx\r\n.\r\n"
# What brings each hook's question up; the answer to it is the last reply.
ASKS: Final = {
    "welcome": b"",
    "helo": b"HELO a\r\n",
    "ehlo": b"EHLO a\r\n",
    "mail": b"HELO a\r\nMAIL FROM:<a@a>\r\n",
    "rcpt": OPENING,
    "data": MESSAGE,
    STORE: MESSAGE,
    "rset": b"RSET\r\n",
    "noop": b"NOOP\r\n",
    "vrfy": b"VRFY x\r\n",
    "help": b"HELP\r\n",
    "error": b"FOO\r\n",
}


def driver_with(hook: str, answer: object, limits: Limits | None = None) -> Driver:
    """A driver whose only hook always answers the same."""
    return Driver(limits, deciders={hook: lambda session, subject: answer})


def last(driver: Driver) -> bytes:
    """The last reply."""
    return driver.output.splitlines(keepends=True)[-1]


@pytest.mark.parametrize("hook", ASKS)
def test_accept_is_as_if_nobody_decided(hook: str) -> None:
    outputs = []
    for deciders in ({}, {hook: _always(None)}, {hook: _always(ACCEPT)}):
        driver = Driver(deciders=deciders)
        driver.send(ASKS[hook])
        outputs.append(driver.output)
    assert outputs[0] == outputs[1] == outputs[2]


def _always(answer: object) -> Decider:
    return lambda session, subject: answer


@pytest.mark.parametrize(
    ("hook", "code"),
    [
        *((hook, b"554 5.7.1") for hook in ("welcome", "data", STORE)),
        *((hook, b"550 5.7.1") for hook in ("helo", "ehlo", "mail", "rcpt")),
    ],
)
def test_reject(hook: str, code: bytes) -> None:
    driver = driver_with(hook, REJECT)
    driver.send(ASKS[hook])
    assert last(driver) == code + b" rejected by policy\r\n"
    assert not driver.session.closing
    assert driver.session.messages == 0


@pytest.mark.parametrize("hook", ASKS)
def test_close(hook: str) -> None:
    driver = driver_with(hook, CLOSE)
    driver.send(ASKS[hook] + b"NOOP\r\nQUIT\r\n")
    assert last(driver) == b"421 4.7.0 mx.example closing connection\r\n"
    assert driver.session.closing
    assert not driver.session.said_goodbye
    assert driver.session.messages == 0


@pytest.mark.parametrize("hook", ASKS)
@pytest.mark.parametrize(
    "reply", [Reply(450, "4.7.1", "later"), Reply(550, "5.7.1", "never"), Reply(554, "5.0.0", "off", close=True)]
)
def test_a_reply_that_refuses(hook: str, reply: Reply) -> None:
    driver = driver_with(hook, reply)
    driver.send(ASKS[hook])
    assert driver.output.endswith(reply.encoded)
    assert driver.output.count(reply.encoded) == 1
    assert driver.session.closing is reply.close
    assert driver.session.messages == 0


@pytest.mark.parametrize("hook", sorted(set(ASKS) - {"ehlo", "error"}))
@pytest.mark.parametrize("close", [False, True])
def test_a_reply_that_accepts(hook: str, close: bool) -> None:
    reply = Reply(259, "2.9.9", "gladly", close=close)
    driver = driver_with(hook, reply)
    driver.send(ASKS[hook])
    assert last(driver) == b"259 2.9.9 gladly\r\n"
    assert driver.session.closing is close
    assert driver.session.messages == (hook in ("data", STORE))


def test_a_reply_that_accepts_ehlo_stands_behind_the_name() -> None:
    driver = driver_with("ehlo", Reply(250, None, "greets you"))
    driver.send(b"EHLO a\r\nMAIL FROM:<a@a> SIZE=1\r\n")
    assert driver.output.splitlines()[1] == b"250-mx.example greets you"
    assert driver.output.splitlines()[2] == b"250-PIPELINING"
    assert last(driver) == b"250 2.1.0 sender ok\r\n"


@pytest.mark.parametrize("hook", sorted(set(ASKS) - {"error"}))
def test_a_hook_that_fails(hook: str) -> None:
    """E 18: 451, the transaction ends, the session goes on; only a connection that nobody welcomed ends."""
    driver = driver_with(hook, FAILED)
    driver.send(ASKS[hook])
    assert last(driver) == b"451 4.3.0 temporary failure, try again later\r\n"
    assert driver.session.closing is (hook == "welcome")
    assert driver.session.envelope is None
    assert driver.session.messages == 0


@pytest.mark.parametrize("hook", ["rset", "noop", "vrfy", "help", "rcpt", "ehlo", "helo"])
def test_a_hook_that_fails_ends_the_transaction(hook: str) -> None:
    driver = Driver(deciders={})
    driver.send(OPENING)
    driver.session.deciders = {hook: _always(FAILED)}
    driver.send(ASKS[hook].removeprefix(OPENING[: -len(b"RCPT TO:<b@b>\r\n")]) + b"DATA\r\n")
    assert last(driver) == b"503 5.5.1 bad sequence of commands, MAIL first\r\n"


def test_an_error_hook_that_fails_changes_nothing() -> None:
    driver = driver_with("error", FAILED)
    driver.send(b"FOO\r\n")
    assert last(driver) == b"500 5.5.2 command not recognized\r\n"


def test_the_error_hook_sees_each_refusal_of_the_protocol() -> None:
    seen: list[Reply] = []

    def note(session: Session, subject: Any) -> None:
        seen.append(subject)

    driver = Driver(Limits(max_message_bytes=10), deciders={"error": note, "mail": _always(REJECT)})
    driver.send(b"FOO\r\nHELO\r\nMAIL FROM:<a@a>\r\nHELO a\r\nMAIL FROM:<a@a>\r\n")
    assert [reply.code for reply in seen] == [500, 501, 503]  # the REJECT of a hook is no fault of the client
    driver.session.deciders = {"error": note}
    driver.send(OPENING + b"DATA\r\n12345678901\r\n.\r\nNOOP\n")
    assert [reply.code for reply in seen] == [500, 501, 503, 552, 521]
    assert driver.session.closing


def test_a_fault_that_closes_does_so_whatever_the_error_hook_says() -> None:
    driver = driver_with("error", Reply(550, "5.0.0", "hm"))
    driver.send(b"NOOP\nNOOP\r\n")
    assert driver.output == BANNER + b"550 5.0.0 hm\r\n"
    assert driver.session.closing


# -- the banner -------------------------------------------------------------------------------------------------------


def test_a_client_that_is_turned_away_may_only_quit() -> None:
    """RFC 5321 3.1: behind a 554 instead of the banner, 503 to everything but QUIT."""
    driver = driver_with("welcome", REJECT)
    driver.send(b"EHLO a\r\nNOOP\r\nMAIL FROM:<a@a>\r\nFOO\r\nQUIT\r\n")
    assert [line[:3] for line in driver.output.splitlines()] == [b"554", b"503", b"503", b"503", b"500", b"221"]
    assert driver.session.said_goodbye


def test_commands_wait_for_the_banner() -> None:
    driver = Driver(deciders={"welcome": _always(PENDING)}, waits=lambda: True)
    assert driver.output == b""
    driver._owed = None
    driver.send(b"NOOP\r\n")
    assert driver.output == BANNER + b"250 2.0.0 ok\r\n"


def test_turn_away() -> None:
    driver = Driver(deciders={})
    driver.session.turn_away(driver.session.service.replies.too_busy)
    assert driver.session.output == [b"421 4.3.2 mx.example too busy, try again later\r\n"]
    assert driver.session.closing


def test_overload() -> None:
    driver = Driver(deciders={"welcome": _always(PENDING)}, waits=lambda: True)
    assert driver.session.overloaded_reply().encoded == b"421 4.3.2 mx.example too busy, try again later\r\n"
    driver.session.answer(None)
    assert driver.session.overloaded_reply().encoded == b"451 4.3.2 too busy, try again later\r\n"


# -- what hooks see ---------------------------------------------------------------------------------------------------


def test_the_subjects_of_hooks() -> None:
    asked: list[tuple[str, Any]] = []

    def note(hook: str) -> Callable[[Session, Any], None]:
        return lambda session, subject: asked.append((hook, subject))

    driver = Driver(deciders={hook: note(hook) for hook in (*HOOKS, STORE)})
    driver.send(b"NOOP  an argument \r\nVRFY  x\xc3\xbc \r\nHELP\r\nHELO h\r\nEHLO e\r\nRSET\r\n")
    driver.send(
        b'MAIL FROM:<"A b"@A.Example> SIZE=5 BODY=8bitmime SMTPUTF8\r\nRCPT TO:<Postmaster>\r\nDATA\r\n..x\r\n.\r\n'
    )
    driver.session.time_out()
    driver.session.disconnected()
    assert [hook for hook, _ in asked] == [
        *("welcome", "noop", "vrfy", "help", "helo", "ehlo", "rset", "mail", "rcpt", "data", STORE, "timeout", "closed")
    ]
    subjects = dict(asked)
    assert subjects["welcome"] is subjects["rset"] is subjects["timeout"] is subjects["closed"] is None
    assert subjects["vrfy"] == "x\u00fc"
    assert subjects["help"] == ""
    assert (subjects["helo"], subjects["ehlo"]) == ("h", "e")
    assert subjects["mail"] == Sender("A b", "a.example", size=5, body="8BITMIME", smtputf8=True)
    assert subjects["rcpt"] == Recipient("Postmaster", "")
    message = subjects["data"]
    assert subjects[STORE] is message
    assert isinstance(message, Message)
    assert (message.id, message.size, bytes(message.content)) == ("id.1", 4, b".x\r\n")
    assert message.content.readonly
    assert message.session is driver.session


def test_what_a_session_tells() -> None:
    driver = Driver(deciders={})
    session = driver.session
    assert (session.server_name, session.id) == ("mx.example", "id")
    assert (session.peer, session.local) == (Endpoint("192.0.2.1", 50000), Endpoint("192.0.2.25", 25))
    assert (session.client_name, session.esmtp, session.protocol, session.envelope) == ("", False, "SMTP", None)
    driver.send(b"HELO h\r\n")
    assert (session.client_name, session.esmtp, session.protocol) == ("h", False, "SMTP")
    driver.send(b"EHLO e\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n")
    assert (session.client_name, session.esmtp, session.protocol) == ("e", True, "ESMTP")
    assert session.envelope is not None
    assert session.envelope.recipients == [Recipient("b", "b")]
    driver.send(b"RSET\r\nMAIL FROM:<> SMTPUTF8\r\nFOO\r\n")
    assert (session.protocol, session.errors) == ("UTF8SMTP", 1)
    assert session.envelope.sender.is_null
    driver.send(b"RCPT TO:<b@b>\r\nDATA\r\n.\r\n")
    assert (session.protocol, session.errors, session.messages) == ("ESMTP", 0, 1)
    session.user_data["x"] = 1
    assert session.user_data == {"x": 1}


def test_ids_are_unique_within_a_session() -> None:
    driver = Driver()
    driver.send(OPENING + b"RSET\r\n" + MESSAGE * 2)
    assert len({message.id for message in driver.messages}) == 2


def test_recipients_are_shown_as_they_are_accepted() -> None:
    counts: list[int] = []

    def count(session: Session, subject: Any) -> None:
        assert session.envelope is not None
        counts.append(len(session.envelope.recipients))

    Driver(deciders={"rcpt": count}).send(OPENING + b"RCPT TO:<c@c>\r\n")
    assert counts == [0, 1]


# -- the store --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "store", "reply", "stored"),
    [
        (None, None, b"250 2.0.0 accepted, id.1\r\n", True),
        (Reply(250, "2.6.0", "mine"), None, b"250 2.6.0 mine\r\n", True),
        (Reply(250, "2.6.0", "mine"), Reply(452, "4.3.1", "full"), b"452 4.3.1 full\r\n", True),
        (REJECT, None, b"554 5.7.1 rejected by policy\r\n", False),
        (FAILED, None, b"451 4.3.0 temporary failure, try again later\r\n", False),
        (None, FAILED, b"451 4.3.0 temporary failure, try again later\r\n", True),
    ],
)
def test_only_what_the_data_hook_accepts_is_stored(data: object, store: object, reply: bytes, stored: bool) -> None:
    asked: list[object] = []

    def keep(session: Session, subject: Any) -> object:
        asked.append(subject)
        return store

    driver = Driver(deciders={"data": _always(data), STORE: keep})
    driver.send(MESSAGE)
    assert last(driver) == reply
    assert bool(asked) is stored


def test_a_reply_of_one_message_is_not_said_to_the_next() -> None:
    answers = [Reply(250, "2.6.0", "mine"), None]
    driver = Driver(deciders={"data": lambda session, subject: answers.pop(0), STORE: _always(None)})
    driver.send(MESSAGE * 2)
    assert last(driver) == b"250 2.0.0 accepted, id.2\r\n"


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, ACCEPT, FAILED, REJECT, Reply(421, "4.4.2", "mine")])
def test_a_time_out_closes_whatever_the_hook_says(answer: object) -> None:
    driver = driver_with("timeout", answer)
    driver.send(OPENING)
    driver.session.time_out()
    assert len(driver.session.output) == 1
    if answer in (None, ACCEPT, FAILED):
        assert driver.session.output == [b"421 4.4.2 mx.example timeout, closing connection\r\n"]
    assert driver.session.closing
    assert driver.session.envelope is None


def test_a_time_out_in_mid_data() -> None:
    driver = Driver()
    driver.send(OPENING + b"DATA\r\nx\r\n")
    driver.session.time_out()
    assert driver.session.output == [b"421 4.4.2 mx.example timeout, closing connection\r\n"]
    assert driver.session.reader is None
    assert driver.messages == []


def test_shut_down() -> None:
    driver = Driver()
    driver.session.shut_down()
    assert driver.session.output == [b"421 4.3.2 mx.example shutting down, try again\r\n"]
    assert driver.session.closing


def test_disconnected_in_mid_data() -> None:
    closed: list[bool] = []
    driver = Driver(deciders={"closed": lambda session, subject: closed.append(session.envelope is None)})
    driver.send(OPENING + b"DATA\r\nx\r\n.")
    driver.session.disconnected()
    assert closed == [True]
    assert driver.session.output == []
    assert driver.session.closing


def test_nobody_may_answer_what_was_not_asked() -> None:
    with pytest.raises(AssertionError, match="nothing was asked"):
        Driver().session.answer(None)


def test_in_command() -> None:
    driver = Driver()
    states = [driver.session.in_command]
    for octets in (b"NOO", b"P\r\n"):
        driver.send(octets)
        states.append(driver.session.in_command)
    assert states == [False, True, False]


def test_a_hook_that_waits_keeps_what_is_behind_it_in_order() -> None:
    driver = Driver(deciders={"mail": _always(PENDING)}, waits=lambda: True)
    driver.send(b"HELO a\r\nNOOP\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nHELP\r\n")
    assert last(driver) == b"250 2.0.0 ok\r\n"
    assert driver.session.pending is not None
    driver._owed = Reply(450, "4.7.1", "later")
    driver.send(b"NOOP\r\n")
    assert [line[:3] for line in driver.output.splitlines()[-4:]] == [b"450", b"503", b"214", b"250"]


def test_finished_messages_are_told_to_the_driver() -> None:
    driver = Driver()
    session = driver.session
    session.receive(OPENING + b"RCPT TO:<reject@b>\r\nDATA\r\nx\r\n.\r\n")
    (finished,) = session.finished
    assert finished[0] == "id.1"
    session.finished.clear()
    session.receive(b"MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\na\nb\r\n.\r\n")
    assert len(session.finished) == 1
    session.receive(b"MAIL FROM:<a@a>\r\nRSET\r\n")
    assert len(session.finished) == 1


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_max_errors_counts_the_refusals_of_hooks(limit: int) -> None:
    driver = driver_with("mail", REJECT, Limits(max_errors=limit))
    driver.send(b"HELO a\r\n" + b"MAIL FROM:<a@a>\r\n" * 5)
    assert driver.output.count(b"550 5.7.1") == limit
    assert last(driver) == b"421 4.7.0 mx.example too many errors\r\n"
