"""Senders and recipients as text: whatever they are, they come back; what is not known is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.protocol.envelope import DeliverBy, Recipient, Sender
from fastsmtp.queue.codec import (
    UnknownFormError,
    by_destination,
    decode_notes,
    decode_recipients,
    decode_sender,
    encode_notes,
    encode_recipients,
    encode_sender,
)

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
DOMAIN = st.text("abc.-[]:0", max_size=10)
SENDERS = st.builds(
    Sender,
    TEXT,
    DOMAIN,
    size=st.none() | st.integers(0, 2**40),
    body=st.sampled_from([None, "7BIT", "8BITMIME", "BINARYMIME"]),
    smtputf8=st.booleans(),
    ret=st.sampled_from([None, "FULL", "HDRS"]),
    envid=st.none() | TEXT,
    auth=st.none() | TEXT,
    require_tls=st.booleans(),
    deliver_by=st.none() | st.builds(DeliverBy, st.integers(-999, 999), st.sampled_from("RN"), st.booleans()),
    hold_for=st.none() | st.integers(0, 10**9),
    hold_until=st.none() | st.datetimes(timezones=st.just(UTC)),
    priority=st.none() | st.integers(-9, 9),
)
RECIPIENTS = st.lists(
    st.builds(
        Recipient,
        TEXT,
        DOMAIN,
        st.none() | st.lists(st.sampled_from(["SUCCESS", "FAILURE", "DELAY"]), min_size=1).map(tuple),
        st.none() | st.tuples(TEXT, TEXT),
    ),
    min_size=1,
    max_size=4,
)


@given(SENDERS)
def test_a_sender_comes_back(sender: Sender) -> None:
    assert decode_sender(encode_sender(sender)) == sender


@given(RECIPIENTS)
def test_recipients_come_back(recipients: list[Recipient]) -> None:
    assert decode_recipients(encode_recipients(recipients)) == tuple(recipients)


@given(RECIPIENTS)
def test_each_recipient_is_at_one_destination(recipients: list[Recipient]) -> None:
    destinations = by_destination(recipients)
    found = [each for _, text in destinations for each in decode_recipients(text)]
    assert sorted(map(str, found)) == sorted(map(str, recipients))
    assert [domain for domain, _ in destinations] == list(dict.fromkeys(each.domain for each in recipients))


def test_the_plain_form_is_short() -> None:
    assert encode_sender(Sender("a", "b.example", size=5)) == "=a@b.example\n5\n"
    assert encode_sender(Sender("", "")) == "=@\n\n"
    assert encode_recipients([Recipient("postmaster", "")]) == "=postmaster@"


@pytest.mark.parametrize("text", ["", "2[]", '1["a","b",{"future":1}]', "?"])
def test_an_unknown_form_is_refused(text: str) -> None:
    with pytest.raises(UnknownFormError):
        decode_sender(text)


def test_notes() -> None:
    notes = {"a": [1, "ü"], "b": {"c": None}}
    assert decode_notes(encode_notes(notes)) == notes
    assert encode_notes({}) is None
    assert decode_notes(None) == {}
    with pytest.raises(TypeError):
        encode_notes({"when": datetime.now(UTC)})
