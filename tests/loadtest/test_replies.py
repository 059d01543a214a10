"""Where a reply ends, and how a failure tells of one."""

from __future__ import annotations

import pytest

from loadtest.smtp_users.replies import UnexpectedReplyError, end_of_reply, text_of


@pytest.mark.parametrize(
    ("octets", "end"),
    [
        (b"250 ok\r\n", 8),
        (b"250-a\r\n250 b\r\n", 14),
        (b"250 ok\r\n354 go\r\n", 8),
        (b"250-a\r\n250-b\r\n", -1),
        (b"250 ok", -1),
        (b"", -1),
        (b"250\r\n", 5),
    ],
)
def test_where_the_first_reply_ends(octets: bytes, end: int) -> None:
    assert end_of_reply(octets) == end


def test_every_prefix_is_incomplete() -> None:
    reply = b"250-one\r\n250-two\r\n250 three\r\n"
    assert {end_of_reply(reply[:length]) for length in range(len(reply))} == {-1}


def test_the_second_reply_of_a_flight() -> None:
    octets = b"250 ok\r\n550-no\r\n550 never\r\n"
    assert end_of_reply(octets, 8) == len(octets)


def test_failures_name_the_command_and_the_reply() -> None:
    error = UnexpectedReplyError("RCPT TO", 250, b"550-5.7.1 no\r\n550 5.7.1 never\r\n")
    assert str(error) == "RCPT TO: expected 250, got 550 5.7.1 no 5.7.1 never"
    assert str(UnexpectedReplyError("connect", 220, "refused")) == "connect: expected 220, got refused"


def test_a_long_reply_is_cut() -> None:
    assert len(text_of(b"550 " + b"x" * 5000 + b"\r\n")) == 200
