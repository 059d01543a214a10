"""Segments mean nothing: the replies are the same however the octets were cut, and whenever hooks answer."""

from __future__ import annotations

import re
from typing import NamedTuple

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from fastsmtp.protocol.limits import Limits
from tests.protocol.application import Delivered
from tests.protocol.dialogues import DIALOGUES, LENGTHS, LIMITS, cut
from tests.protocol.driver import Driver
from tests.protocol.invariants import check_end

CHOICES = st.lists(st.booleans(), min_size=1, max_size=10)


class Outcome(NamedTuple):
    """What became of a dialogue."""

    output: bytes
    messages: list[Delivered]
    closing: bool
    client_name: str
    in_transaction: bool


def _outcome(driver: Driver) -> Outcome:
    session = driver.session
    return Outcome(driver.output, driver.messages, session.closing, session.client_name, session.envelope is not None)


def _whole(dialogue: bytes, limits: Limits) -> Outcome:
    driver = Driver(limits)
    driver.send(dialogue)
    return _outcome(driver)


@settings(deadline=None, max_examples=500, derandomize=True)
@given(DIALOGUES, LIMITS, LENGTHS, st.booleans())
def test_any_segments(dialogue: bytes, limits: Limits, lengths: list[int], into_room: bool) -> None:
    whole = _whole(dialogue, limits)
    event(f"messages: {len(whole.messages)}, closing: {whole.closing}")
    driver = Driver(limits, into_room=into_room)
    for octets in cut(dialogue, lengths):
        driver.send(octets)
    assert _outcome(driver) == whole


@settings(deadline=None, max_examples=300, derandomize=True)
@given(DIALOGUES, LIMITS)
@example(b"EHLO a\nMAIL FROM:<a@a>\nRCPT TO:<b@b>\nDATA\nx\n.\r\n\r\n.\r\n", Limits(bare_newline="normalize"))
def test_byte_by_byte(dialogue: bytes, limits: Limits) -> None:
    driver = Driver(limits)
    for octets in cut(dialogue, [1]):
        driver.send(octets)
    assert _outcome(driver) == _whole(dialogue, limits)


@settings(deadline=None, max_examples=400, derandomize=True)
@given(DIALOGUES, LIMITS, LENGTHS, CHOICES, CHOICES, st.booleans())
def test_any_time_that_hooks_take(
    dialogue: bytes, limits: Limits, lengths: list[int], later: list[bool], waits: list[bool], into_room: bool
) -> None:
    later_each, waits_each = list(later), list(waits)

    def turn(choices: list[bool]) -> bool:
        choices.append(choices.pop(0))
        return choices[-1]

    driver = Driver(
        limits, into_room=into_room, asks_later=lambda: turn(later_each), waits=lambda: turn(waits_each) and any(later)
    )
    for octets in cut(dialogue, lengths):
        driver.send(octets)
    driver._waits = lambda: False
    driver.finish()
    assert _outcome(driver) == _whole(dialogue, limits)


@settings(deadline=None, max_examples=400, derandomize=True)
@given(st.one_of(DIALOGUES, st.binary(), st.lists(st.sampled_from(b"\r\n.\0 \tD\x16"), max_size=40).map(bytes)), LIMITS)
def test_no_input_raises_and_every_reply_is_one(dialogue: bytes, limits: Limits) -> None:
    driver = Driver(limits)
    driver.send(b"EHLO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n" + dialogue)
    driver.finish()
    check_end(driver)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(DIALOGUES, st.sampled_from(("reject", "keep", "normalize")))
def test_messages_keep_the_rules_of_their_policy(dialogue: bytes, bare_newline: str) -> None:
    """Whatever was sent: accepted content ends in CR LF and has no bare ones, unless they are to be kept."""
    driver = Driver(Limits(bare_newline=bare_newline))  # type: ignore[arg-type]  # one of the literals
    driver.send(b"EHLO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n" + dialogue + b"\r\n.\r\n")
    for message in driver.messages:
        assert message.content == b"" or message.content.endswith(b"\r\n")
        assert b"\0" not in message.content
        if bare_newline != "keep":
            assert not re.search(rb"(?<!\r)\n|\r(?!\n)", message.content)
