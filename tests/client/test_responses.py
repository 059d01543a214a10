"""What the next hop answers, read and said again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.client.errors import TransferError
from fastsmtp.client.responses import MAX_LINE, MAX_LINES, Response, ResponseParser


def parse(octets: bytes, size: int = 10**6) -> list[Response]:
    parser, found = ResponseParser(), []
    for start in range(0, len(octets), size):
        parser.feed(octets[start : start + size])
        while response := parser.next():
            found.append(response)
    return found


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"250 ok\r\n", Response(250, None, ("ok",))),
        (b"250\r\n", Response(250, None, ("",))),
        (b"250 \n", Response(250, None, ("",))),
        (b"550 5.1.1 no such user\r\n", Response(550, "5.1.1", ("no such user",))),
        (b"550 4.1.1 no\r\n", Response(550, None, ("4.1.1 no",))),  # of another class: not meant as one
        (b"450-4.2.0 a\r\n450 4.2.0 b\r\n", Response(450, "4.2.0", ("a", "b"))),
        (b"550-5.1.1 a\r\n550 b\r\n", Response(550, "5.1.1", ("a", "b"))),
        (b"554 5.7.1\r\n", Response(554, "5.7.1", ("",))),
        (b"550 \xc3\xa4\x1b[0m\t.\r\n", Response(550, None, ("???[0m?.",))),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_reply_is_read(octets: bytes, expected: Response, size: int) -> None:
    assert parse(octets, size) == [expected]


def test_several_replies_are_read_in_their_order() -> None:
    assert [each.code for each in parse(b"250-a\r\n250 b\r\n354 c\r\n421 d\r\n")] == [250, 354, 421]


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"2500 ok\r\n",
        b"150 ok\r\n",
        b"250-a\r\n251 b\r\n",
        b"250_ok\r\n",
        b"\r\n",
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"x" * (MAX_LINE + 1),
        b"250-x\r\n" * (MAX_LINES + 1),
    ],
)
def test_what_is_no_reply_is_an_error(octets: bytes) -> None:
    with pytest.raises(TransferError):
        parse(octets)


@pytest.mark.parametrize(
    ("response", "code", "enhanced"),
    [
        (Response(550, "5.1.1", ("x",)), 550, "5.1.1"),
        (Response(550, None, ("x",)), 550, "5.0.0"),
        (Response(421, "4.3.2", ("x",)), 451, "4.3.2"),  # we do not close
        (Response(521, None, ("x",)), 554, "5.0.0"),
        (Response(599, None, ("x",)), 554, "5.0.0"),
        (Response(354, None, ("x",)), 451, "4.0.0"),
    ],
)
def test_it_is_said_again_as_ours(response: Response, code: int, enhanced: str) -> None:
    reply = response.reply()
    assert (reply.code, reply.enhanced, reply.text) == (code, enhanced, "x")


@given(st.integers(200, 599), st.lists(st.binary(max_size=1200), min_size=1, max_size=20))
def test_whatever_it_says_can_be_said_again(code: int, texts: list[bytes]) -> None:
    lines = [b"%d-%b\r\n" % (code, text.translate(None, b"\r\n")) for text in texts]
    (response,) = parse(b"".join(lines) + b"%d end\r\n" % code)
    encoded = response.reply().encoded
    assert all(len(line) <= 510 and line.isascii() for line in encoded.split(b"\r\n"))
