"""What the deliverer makes of its queue: deliveries, retries, and who hears of what."""

from __future__ import annotations

import email
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fastsmtp.client import Hop
from fastsmtp.delivery.dkim import Signer
from fastsmtp.delivery.schedule import Schedule
from fastsmtp.protocol.envelope import DeliverBy, Recipient, Sender
from fastsmtp.protocol.replies import TEMPORARY_FAILURE
from fastsmtp.queue import Mail, QueueError
from tests.client.hops import CLOSE, CONTENT, EVERYTHING, PLAIN, FakeHop, run, running
from tests.delivery.mailroom import ALICE, QUICK, Mailroom, mailroom, parts_of, status_of

NOBODY = Hop("127.0.0.1", 1, security="off")
WITHOUT_DSN = tuple(keyword for keyword in EVERYTHING if keyword != "DSN")


def play(
    directory: Path,
    act: Callable[[Mailroom], Awaitable[object]],
    *away: FakeHop,
    home: FakeHop | None = None,
    schedule: Schedule = QUICK,
    before: tuple[Hop, ...] = (),
    signers: tuple[Signer, ...] = (),
    max_received: int = 50,
    per_minute: float = 0,
) -> None:
    """Lets a mailroom work between a sender's host, home.example, and the hosts of away.example."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            near = await stack.enter_async_context(running(home or FakeHop()))
            far = [(await stack.enter_async_context(running(fake))).hop for fake in away]
            ways = {"home.example": [near.hop], "away.example": [*before, *far]}
            room = mailroom(directory, ways, schedule, signers, max_received, per_minute)
            await act(await stack.enter_async_context(room))

    run(main())


def reports(home: FakeHop) -> list[bytes]:
    """The reports that the sender's host got; each is from the null sender, and asks for no report."""
    assert [command for command in home.commands if command.startswith("MAIL") and "FROM:<>" not in command] == []
    recipients = [command for command in home.commands if command.startswith("RCPT")]
    assert recipients == ["RCPT TO:<alice@home.example> NOTIFY=NEVER"] * len(home.contents)
    return home.contents


# -- delivered --------------------------------------------------------------------------------------------------------


def test_mail_is_delivered_and_leaves_the_queue(tmp_path: Path) -> None:
    away, home = FakeHop(), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example", "eve@away.example")
        await room.until_empty()
        first, second = room.lines
        assert (first["to"], first["status"], first["reply"]) == ("<bob@away.example>", "sent", "250 2.0.0 taken")
        assert (second["to"], second["message"], second["attempt"]) == ("<eve@away.example>", "M1", 1)

    play(tmp_path, act, away, home=home)
    assert away.contents == [CONTENT]
    assert reports(home) == []


def test_a_temporary_refusal_is_tried_again(tmp_path: Path) -> None:
    away, home = FakeHop(answers={"RCPT": ["451 4.7.1 greylisted"] * 3}), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example")
        await room.until_empty()
        assert [line["status"] for line in room.lines] == ["deferred"] * 3 + ["sent"]
        assert [line["attempt"] for line in room.lines] == [1, 2, 3, 4]

    play(tmp_path, act, away, home=home)
    assert away.contents == [CONTENT]
    assert reports(home) == []


def test_each_recipient_goes_its_own_way(tmp_path: Path) -> None:
    answers = ["250 ok", "550 5.1.1 no such user", "450 4.2.2 full"]
    away, home = FakeHop(answers={"RCPT": answers}), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("a@away.example", "b@away.example", "c@away.example")
        await room.until_empty()
        assert [line["status"] for line in room.lines][:4] == ["sent", "failed", "deferred", "sent"]

    play(tmp_path, act, away, home=home)
    assert [command for command in away.commands if command.startswith("RCPT")] == [
        f"RCPT TO:<{name}@away.example>" for name in "abcc"
    ]
    (report,) = reports(home)
    _, (failed,) = status_of(report)
    assert failed["Final-Recipient"] == "rfc822; b@away.example"


@pytest.mark.parametrize("error", [QueueError(TEMPORARY_FAILURE, "away"), RuntimeError("a fault of ours")])
def test_who_has_the_message_does_not_get_it_again_because_a_report_failed(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, home = (
        FakeHop(("PIPELINING", "8BITMIME"), {"RCPT": ["250 ok", "550 5.1.1 no such user", "550 5.1.1 still none"]}),
        FakeHop(),
    )

    async def act(room: Mailroom) -> None:
        put, errors = room.queue.put, [error]

        async def put_or_fail(mails: Sequence[Mail]) -> None:
            if any(mail.sender.is_null for mail in mails) and errors:
                raise errors.pop()
            await put(mails)

        monkeypatch.setattr(room.queue, "put", put_or_fail)
        await room.put("a@away.example", "b@away.example")
        await room.until_empty()
        assert [line["status"] for line in room.lines][:3] == ["sent", "failed", "failed"]
        errors.append(error)
        await room.put(Recipient("c", "away.example", notify=("SUCCESS",)))
        await room.until_empty()
        assert errors == []

    play(tmp_path, act, away, home=home)
    assert [command[9] for command in away.commands if command.startswith("RCPT")] == list("abbc")
    assert len(away.contents) == 2
    assert len(reports(home)) == 1


@pytest.mark.parametrize("too_many", ["452 4.5.3 too many recipients", "552 5.5.3 too many recipients"])
def test_recipients_that_are_too_many_come_with_the_next_transaction(tmp_path: Path, too_many: str) -> None:
    away = FakeHop(answers={"RCPT": ["250 a", "250 b", too_many, too_many, "250 c", "250 d"]})

    async def act(room: Mailroom) -> None:
        await room.put(*(f"{name}@away.example" for name in "abcd"))
        await room.until_empty()
        assert [line["status"] for line in room.lines] == ["sent"] * 4

    play(tmp_path, act, away)
    assert len(away.contents) == 2
    assert away.connections == 1


# -- host after host --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        FakeHop(answers={"banner": ["421 busy"] * 9}),
        FakeHop(answers={"banner": [CLOSE] * 9}),
        FakeHop(answers={"EHLO": ["451 later"] * 9}),
        FakeHop(answers={"MAIL": ["451 4.3.0 later"] * 9}),
        FakeHop(answers={"RCPT": ["451 4.3.0 later"] * 9}),
        FakeHop(answers={"RCPT": [CLOSE] * 9}),
        FakeHop(answers={".": ["451 4.3.0 later"] * 9}),
    ],
)
def test_the_next_host_takes_what_the_first_does_not(tmp_path: Path, first: FakeHop) -> None:
    second = FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example")
        await room.until_empty()
        assert [line["status"] for line in room.lines] == ["sent"]

    play(tmp_path, act, first, second, before=(NOBODY,))
    assert second.contents == [CONTENT]


def test_a_definite_no_of_the_first_host_is_final(tmp_path: Path) -> None:
    first, second, home = FakeHop(answers={"RCPT": ["550 5.1.1 no"]}), FakeHop(), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example")
        await room.until_empty()

    play(tmp_path, act, first, second, home=home)
    assert second.commands == []
    assert len(reports(home)) == 1


def test_the_next_host_may_offer_what_the_first_one_lacks(tmp_path: Path) -> None:
    first, second, home = FakeHop(("8BITMIME",)), FakeHop(), FakeHop()

    async def act(room: Mailroom) -> None:
        sender = replace(ALICE, smtputf8=True)
        await room.put(Recipient("jürgen", "away.example"), sender=sender)
        await room.until_empty()

    play(tmp_path, act, first, second, home=home)
    assert second.contents == [CONTENT]
    assert reports(home) == []


def test_the_log_has_the_reason_and_the_sender_has_not(tmp_path: Path) -> None:
    home = FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example")
        await room.until_empty()
        assert "smtp://127.0.0.1:1: " in str(room.lines[0]["reply"])

    play(tmp_path, act, home=home, before=(NOBODY,), schedule=replace(QUICK, expiry=0.1))
    (report,) = reports(home)
    assert b"last answer: 451 4.4.1 no answer from the next hop" in report
    assert b"127.0.0.1:1" not in report


def test_what_the_first_host_may_have_is_not_given_to_the_second(tmp_path: Path) -> None:
    first, second = FakeHop(PLAIN, {".": [CLOSE]}), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example")
        await room.until_empty()
        assert [line["status"] for line in room.lines] == ["deferred", "sent"]

    play(tmp_path, act, first, second)
    assert (len(first.contents), second.commands) == (2, [])


def test_connections_are_kept_for_the_next_message(tmp_path: Path) -> None:
    away = FakeHop()

    async def act(room: Mailroom) -> None:
        for number in range(5):
            await room.put(f"u{number}@away.example")
            await room.until_empty()

    play(tmp_path, act, away)
    assert (len(away.contents), away.connections) == (5, 1)


def test_a_destination_gets_no_more_than_its_rate(tmp_path: Path) -> None:
    away = FakeHop()
    began = time.monotonic()

    async def act(room: Mailroom) -> None:
        for number in range(4):
            await room.put(f"u{number}@away.example")
        await room.until_empty()

    play(tmp_path, act, away, per_minute=600)
    assert time.monotonic() - began >= 0.3
    assert len(away.contents) == 4


# -- failed -----------------------------------------------------------------------------------------------------------


def test_a_bounce_says_what_happened(tmp_path: Path) -> None:
    away, home = FakeHop(answers={"RCPT": ["550 5.1.1 no such user"]}), FakeHop()
    bob = Recipient("bob", "away.example", orcpt=("rfc822", "robert@old.example"))

    async def act(room: Mailroom) -> None:
        await room.put(bob, sender=replace(ALICE, envid="QQ1", ret="FULL"))
        await room.until_empty()

    play(tmp_path, act, away, home=home)
    (report,) = reports(home)
    message, (recipient,) = status_of(report)
    assert dict(message.items()) == {
        "Original-Envelope-Id": "QQ1",
        "Reporting-MTA": "dns; mx.example",
        "Arrival-Date": message["Arrival-Date"],
    }
    assert dict(recipient.items()) == {
        "Original-Recipient": "rfc822; robert@old.example",
        "Final-Recipient": "rfc822; bob@away.example",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; 127.0.0.1",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": recipient["Last-Attempt-Date"],
    }
    parsed = email.message_from_bytes(report)
    assert (parsed["From"], parsed["To"]) == (
        "Mail Delivery System <MAILER-DAEMON@mx.example>",
        "<alice@home.example>",
    )
    assert parsed["Auto-Submitted"] == "auto-replied"
    text, _, returned = parts_of(parsed)
    assert "550 5.1.1 no such user" in str(text.get_payload())
    assert returned.get_content_type() == "message/rfc822"
    assert CONTENT in report


@pytest.mark.parametrize("ret", [None, "HDRS"])
def test_a_bounce_returns_the_header_unless_all_is_wanted(tmp_path: Path, ret: str | None) -> None:
    away, home = FakeHop(answers={".": ["554 5.7.1 no"]}), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example", sender=replace(ALICE, ret=ret))
        await room.until_empty()

    play(tmp_path, act, away, home=home)
    (report,) = reports(home)
    assert b"Content-Type: text/rfc822-headers\r\n" in report
    assert b"Subject: test\r\n" in report
    assert b"hello" not in report


def test_what_is_too_old_is_returned(tmp_path: Path) -> None:
    away, home = FakeHop(answers={"RCPT": ["451 4.7.1 later"] * 1000}), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example")
        await room.until_empty()
        assert len(room.lines) > 2
        assert [line["status"] for line in room.lines][-2:] == ["failed", "sent"]  # the report is sent
        assert room.lines[-2]["reply"] == "delivery time expired; last answer: 451 4.7.1 later"

    play(tmp_path, act, away, home=home, schedule=replace(QUICK, expiry=0.3))
    (report,) = reports(home)
    _, (recipient,) = status_of(report)
    assert recipient["Status"] == "5.4.7"
    assert b"delivery time expired; last answer: 451 4.7.1 later" in report


def test_a_sender_in_a_hurry_gets_it_back_in_time(tmp_path: Path) -> None:
    away, home = FakeHop(answers={"RCPT": ["451 4.7.1 later"] * 1000}), FakeHop()

    async def act(room: Mailroom) -> None:
        sender = replace(ALICE, deliver_by=DeliverBy(60, "R", False))
        await room.put("bob@away.example", sender=sender, accepted_at=time.time() - 61)
        await room.until_empty()

    play(tmp_path, act, away, home=home)
    assert len(reports(home)) == 1


def test_a_delay_is_told_once(tmp_path: Path) -> None:
    away, home = FakeHop(answers={"RCPT": ["451 4.7.1 later"] * 5}), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example")
        await room.until_empty()

    play(tmp_path, act, away, home=home, schedule=replace(QUICK, notice=0.0))
    (report,) = reports(home)
    _, (recipient,) = status_of(report)
    assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.7.1")
    assert recipient["Will-Retry-Until"]
    assert b"hello" not in report


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        (None, ["delayed", "failed"]),
        (("NEVER",), []),
        (("FAILURE",), ["failed"]),
        (("DELAY",), ["delayed"]),
        (("SUCCESS",), []),
    ],
)
def test_who_wants_to_hear_of_what(tmp_path: Path, notify: tuple[str, ...] | None, told: list[str]) -> None:
    away, home = FakeHop(answers={"RCPT": ["451 4.7.1 later", "550 5.1.1 no"]}), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put(Recipient("bob", "away.example", notify=notify))
        await room.until_empty()

    play(tmp_path, act, away, home=home, schedule=replace(QUICK, notice=0.0))
    assert sorted(status_of(report)[1][0]["Action"] for report in reports(home)) == told


def test_nobody_is_told_of_mail_without_a_sender(tmp_path: Path) -> None:
    away, home = FakeHop(answers={"RCPT": ["550 5.1.1 no"]}), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put(Recipient("bob", "away.example", notify=("SUCCESS", "FAILURE")), sender=Sender("", ""))
        await room.until_empty()

    play(tmp_path, act, away, home=home)
    assert home.contents == []


def test_a_report_that_cannot_be_delivered_makes_no_report(tmp_path: Path) -> None:
    async def act(room: Mailroom) -> None:
        await room.put("bob@nowhere.example", sender=Sender("eve", "nowhere.example"))
        await room.until_empty()
        assert [line["reply"] for line in room.lines] == ["550 5.1.2 there is no such domain"] * 2
        assert room.log.counts["reports"] == 1

    play(tmp_path, act)


def test_a_loop_is_cut(tmp_path: Path) -> None:
    away, home = FakeHop(), FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put("bob@away.example", content=b"Received: x\r\n" * 6 + CONTENT)
        await room.put("bob@away.example", content=b"Received: x\r\n" * 5 + b"\r\n" + b"Received: x\r\n" * 5)
        await room.until_empty()

    play(tmp_path, act, away, home=home, max_received=5)
    assert len(away.contents) == 1
    (report,) = reports(home)
    assert status_of(report)[1][0]["Status"] == "5.4.6"


@pytest.mark.parametrize(
    ("sender", "content", "keywords", "status"),
    [
        (Sender("alice", "home.example", smtputf8=True), CONTENT, ("8BITMIME",), "5.6.7"),
        (Sender("alice", "home.example", require_tls=True), CONTENT, EVERYTHING, ""),
        (ALICE, CONTENT.replace(b"hello", b"\xff"), (), "5.6.3"),
    ],
)
def test_what_the_host_cannot_take_comes_back(
    tmp_path: Path, sender: Sender, content: bytes, keywords: tuple[str, ...], status: str
) -> None:
    away, home = FakeHop(keywords), FakeHop((*EVERYTHING, "REQUIRETLS"))

    async def act(room: Mailroom) -> None:
        name = "jürgen" if sender.smtputf8 else "bob"
        await room.put(Recipient(name, "away.example"), sender=sender, content=content)
        if status:
            await room.until_empty()
        else:  # there is no TLS at all: perhaps there is some later
            await room.until(lambda: len(room.lines) > 1)
            assert {line["code"] for line in room.lines} == {"4.7.5"}

    play(tmp_path, act, away, home=home)
    assert away.contents == []
    if status:
        assert f"Status: {status}\r\n".encode() in home.contents[0]
        if sender.smtputf8:
            assert "Final-Recipient: utf-8; jürgen@away.example\r\n".encode() in home.contents[0]


# -- success that is told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("away", "told"),
    [
        (FakeHop(WITHOUT_DSN), ["relayed"]),
        (FakeHop(WITHOUT_DSN, lmtp=True), ["delivered"]),
        (FakeHop(EVERYTHING), []),  # that host will tell
    ],
)
def test_success_is_told_where_it_is_wanted(tmp_path: Path, away: FakeHop, told: list[str]) -> None:
    home = FakeHop()

    async def act(room: Mailroom) -> None:
        await room.put(Recipient("bob", "away.example", notify=("SUCCESS",)), "eve@away.example")
        await room.until_empty()

    play(tmp_path, act, away, home=home)
    found = [status_of(report)[1] for report in reports(home)]
    assert [[recipient["Action"] for recipient in recipients] for recipients in found] == [told] * len(told)
    notify = " NOTIFY=SUCCESS" if "DSN" in away.keywords else ""
    assert f"RCPT TO:<bob@away.example>{notify}" in away.commands


# -- what goes with it ------------------------------------------------------------------------------------------------


def test_mail_is_signed_and_so_are_reports(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    signers = (Signer("home.example", "s", key), Signer("mx.example", "s", key))
    away, home = FakeHop(answers={"RCPT": ["250 ok", "550 no"]}), FakeHop()

    async def act(room: Mailroom) -> None:
        content = b"From: alice@home.example\r\n" + CONTENT
        await room.put("bob@away.example", "eve@away.example", content=content)
        await room.until_empty()

    play(tmp_path, act, away, home=home, signers=signers)
    for content, domain in ((away.contents[0], b"home.example"), (home.contents[0], b"mx.example")):
        assert re.match(rb"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=%b; s=s;" % domain, content)


def test_time_that_is_left_is_passed_on(tmp_path: Path) -> None:
    away = FakeHop((*EVERYTHING, "DELIVERBY"))

    async def act(room: Mailroom) -> None:
        sender = replace(ALICE, deliver_by=DeliverBy(600, "N", True))
        await room.put("bob@away.example", sender=sender, accepted_at=time.time() - 100)
        await room.until_empty()

    play(tmp_path, act, away)
    (mail,) = [command for command in away.commands if command.startswith("MAIL")]
    found = re.search(r" BY=(\d+);NT", mail)
    assert found
    assert 400 < int(found[1]) <= 500
