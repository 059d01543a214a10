"""Replies: what they look like on the wire, and what cannot be one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsmtp import Reply, SMTPError
from fastsmtp.protocol import replies
from fastsmtp.protocol.replies import START_TLS, HostReplies

NAMED = [value for value in vars(replies).values() if isinstance(value, Reply)]
OF_THE_HOST = [value for value in vars(HostReplies("mx.example")).values() if isinstance(value, Reply)]


@pytest.mark.parametrize(
    ("reply", "encoded"),
    [
        (Reply(250, "2.0.0", "ok"), b"250 2.0.0 ok\r\n"),
        (Reply(220, None, "mx.example ESMTP"), b"220 mx.example ESMTP\r\n"),
        (Reply(250, None, "a\nb\nc"), b"250-a\r\n250-b\r\n250 c\r\n"),
        (Reply(550, "5.7.1", "a\r\nb"), b"550-5.7.1 a\r\n550 5.7.1 b\r\n"),
        (Reply(550, "5.7.1", "a\rb"), b"550-5.7.1 a\r\n550 5.7.1 b\r\n"),
        (Reply(250, None, "a\n"), b"250 a\r\n"),
        (Reply(250, None, "a\n\nb"), b"250-a\r\n250-\r\n250 b\r\n"),
        (Reply(250, None, ""), b"250 \r\n"),
        (Reply(250, "2.0.0", "f\u00fcr \u20ac, \x00\x1b[1m\x7f\t"), b"250 2.0.0 f?r ?, ??[1m??\r\n"),
        (Reply(559, "5.999.999", "x"), b"559 5.999.999 x\r\n"),
        (Reply(200, None, "x"), b"200 x\r\n"),
    ],
)
def test_encoding(reply: Reply, encoded: bytes) -> None:
    assert reply.encoded == encoded


@pytest.mark.parametrize(
    ("code", "enhanced"),
    [(199, None), (560, None), (99, None), (0, None), (-250, None), (2500, None)]
    + [
        (250, enhanced)
        for enhanced in ("", "5.0.0", "4.0.0", "2.0", "2.0.0.0", "2.0.0 ", " 2.0.0", "2.0.1000", "2.1000.0")
    ]
    + [(250, enhanced) for enhanced in ("2.-1.0", "2.0.0\r\n", "2.x.0", "2..0", "\u0662.0.0", "2.\u0660.0")]
    + [(354, "3.0.0"), (354, "2.0.0"), (421, "5.0.0"), (550, "4.0.0"), (550, "2.0.0")],
)
def test_codes_that_are_none(code: int, enhanced: str | None) -> None:
    with pytest.raises(ValueError, match=r"^(?!.*codec)"):
        Reply(code, enhanced, "x")


def test_a_line_has_512_octets_and_no_more() -> None:
    assert len(Reply(250, None, "x" * 506).encoded) == 512
    assert len(Reply(250, "2.0.0", "x" * 500).encoded) == 512
    assert len(Reply(250, None, ("x" * 506 + "\n") * 3).encoded) == 3 * 512
    for enhanced, text in (
        (None, "x" * 507),
        ("2.0.0", "x" * 501),
        (None, "x\n" + "y" * 507),
        (None, "y" * 507 + "\nx"),
    ):
        with pytest.raises(ValueError, match="a line may have"):
            Reply(250, enhanced, text)


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=100))
def test_no_text_is_a_second_reply(text: str) -> None:
    """RFC 5321 4.2: whatever a hook says, it is one reply of printable lines."""
    lines = Reply(550, "5.7.1", text).encoded.split(b"\r\n")
    assert lines.pop() == b""
    assert all(re.fullmatch(rb"550-5\.7\.1 [ -~]*", line) for line in lines[:-1])
    assert re.fullmatch(rb"550 5\.7\.1 [ -~]*", lines[-1])


def test_what_closes_and_what_counts() -> None:
    assert Reply(250, None, "x").plain
    assert Reply(450, None, "x").plain
    assert not Reply(500, None, "x").plain
    assert not Reply(250, None, "x", close=True).plain
    assert not Reply(421, None, "x").close


def test_replies_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Reply(250, None, "x").text = "y"  # type: ignore[misc]  # which is the test


def test_text_for_people() -> None:
    assert str(Reply(550, "5.7.1", "no")) == "550 5.7.1 no"
    assert str(Reply(250, None, "mx")) == "250 mx"
    assert str(SMTPError(Reply(550, "5.7.1", "no"))) == "550 5.7.1 no"
    assert SMTPError(replies.OK).reply is replies.OK


@pytest.mark.parametrize("reply", NAMED + OF_THE_HOST, ids=str)
def test_each_named_reply(reply: Reply) -> None:
    """RFC 2034 4: an enhanced code on all but the greeting and 354; a 421 or 521 closes; no name of software."""
    assert (reply.enhanced is None) == (reply.code in (220, 354) and reply is not START_TLS)
    assert len(reply.encoded) < 100
    if reply.code in (421, 521):
        assert reply.close
    if reply.code == 421:
        assert reply.text.startswith("mx.example ")
    assert "fastsmtp" not in reply.text.lower()


def test_there_are_named_replies() -> None:
    assert len(NAMED) > 35
    assert len(OF_THE_HOST) >= 8
