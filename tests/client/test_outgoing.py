"""Content on its way to the wire: line ends, dots, and no false end of data."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.client import outgoing as module
from fastsmtp.client.outgoing import Outgoing
from fastsmtp.protocol.envelope import Sender
from tests.client.hops import to


def made(content: bytes, header: bytes = b"", body: str | None = None) -> Outgoing:
    return Outgoing(Sender("a", "a.example", body=body), to("b@b.example"), memoryview(content), header)


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".a\r\n.b\r\n..\r\n", b"..a\r\n..b\r\n...\r\n.\r\n"),
        (b"a\n.\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),  # CVE-2023-51764
        (b"a\r.\rb\r\n", b"a . b\r\n.\r\n"),
        (b"a\r\n.\rb\r\n", b"a\r\n.. b\r\n.\r\n"),
        (b"a\r\r\n.\r\r\n", b"a \r\n.. \r\n.\r\n"),
        (b"a\n\r.\n", b"a\r\n .\r\n.\r\n"),
        (b"a\r", b"a \r\n.\r\n"),
        (b"\n.\n", b"\r\n..\r\n.\r\n"),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 3, 65536])
def test_what_data_sends(content: bytes, wire: bytes, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    assert b"".join(made(content).stuffed()) == wire


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.\r\n", b"\0"]), max_size=40), st.integers(1, 9)
)
def test_there_is_one_end_of_data_for_every_reader(pieces: list[bytes], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        wire = b"".join(made(b"".join(pieces), header=b"X: y\r\n").stuffed())
    for end in (rb"\r\n\.\r\n", rb"\n\.\n", rb"\r\.\r", rb"[\r\n]\.[\r\n]"):
        found = [match.end() for match in re.finditer(end, wire)]
        assert all(position >= len(wire) - 1 for position in found)
    assert wire.endswith(b"\r\n.\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", wire)


def test_our_header_stands_in_front() -> None:
    assert b"".join(made(b"B: c\r\n\r\n", b"A: b\r\n").lines()) == b"A: b\r\nB: c\r\n\r\n"


def test_binary_content_is_left_alone() -> None:
    content = bytes(range(256)) + b"\r\n.\n"
    assert b"".join(made(content, b"A: b\r\n", "BINARYMIME").octets()) == b"A: b\r\n" + content


@pytest.mark.parametrize(
    ("content", "all_ascii", "header_ascii"),
    [
        (b"A: b\r\n\r\nc\r\n", True, True),
        (b"A: b\r\n\r\n\xc3\xa4\r\n", False, True),
        (b"A: \xc3\xa4\r\n\r\nc\r\n", False, False),
        (b"A: \xc3\xa4\r\n", False, False),
    ],
)
def test_what_is_ascii(content: bytes, all_ascii: bool, header_ascii: bool) -> None:
    found = made(content)
    assert (found.is_ascii, found.header_is_ascii) == (all_ascii, header_ascii)
