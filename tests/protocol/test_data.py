"""The reader of DATA against a simple model of the rules (RFC 5321 4.1.1.4, 4.5.2; standards G and H)."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastsmtp import Reply, SMTPError
from fastsmtp.protocol import replies
from fastsmtp.protocol.content import Content, ContentSpace
from fastsmtp.protocol.data import DataReader
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.memory import BufferPool
from tests.protocol.dialogues import LENGTHS, LIMITS, cut
from tests.protocol.fakes import FakeFile

END = b"\r\n.\r\n"


class Read(NamedTuple):
    """What became of a text: None for content that is not kept, and for a verdict that takes it."""

    content: bytes | None
    verdict: Reply | None
    surplus: bytes | None


def model(octets: bytes, limits: Limits) -> Read:
    """What must come of octets that hold an end: each rule by itself, on the text as a whole."""
    text, _, surplus = (b"\r\n" + octets).partition(END)
    lines = (text + b"\r\n")[2:].split(b"\r\n")[:-1] if len(text) > 0 else []
    content = b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)
    faults = _bare(content)
    if limits.bare_newline == "normalize":
        changed = bytearray(content)
        for index in reversed(faults):
            changed[index : index + 1] = b" " if content[index] == 13 else b"\r\n"
        content = bytes(changed)
    return Read(content, _verdict(content, bool(faults), limits), surplus)


def _bare(content: bytes) -> list[int]:
    """Where a CR has no LF behind it, or an LF no CR before it."""
    return [
        index
        for index, octet in enumerate(content)
        if (octet == 13 and content[index + 1 : index + 2] != b"\n")
        or (octet == 10 and (index == 0 or content[index - 1] != 13))
    ]


def _verdict(content: bytes, bare: bool, limits: Limits) -> Reply | None:
    size = len(content)
    if size > limits.max_message_bytes:
        return replies.FAR_TOO_LARGE if size > 2 * limits.max_message_bytes else replies.TOO_LARGE
    if bare and limits.bare_newline == "reject":
        return replies.BARE_NEWLINE
    if b"\0" in content and limits.nul_in_data == "reject":
        return replies.CONTENT_NOT_ALLOWED
    header: list[bytes] = []
    for line in content.split(b"\r\n")[:-1]:
        if not line:
            break
        header.append(line)
    if sum(len(line) + 2 for line in header) > limits.max_header_bytes:
        return replies.HEADER_TOO_LARGE
    if sum(line.lower().startswith(b"received:") for line in header) > limits.max_received:
        return replies.TOO_MANY_HOPS
    if limits.max_text_line and any(len(line) + 2 > limits.max_text_line for line in content.split(b"\r\n")[:-1]):
        return replies.CONTENT_NOT_ALLOWED
    return None


def read(octets: bytes, limits: Limits, lengths: list[int], space: ContentSpace | None = None) -> Read:
    """What the reader makes of it."""
    reader = DataReader(Content(space or ContentSpace(limits, BufferPool())))
    try:
        surplus = _read(reader, octets, lengths)
    except SMTPError as error:
        return Read(None, error.reply, None)
    content = reader.content
    return Read(None if (verdict := content.verdict()) else bytes(content.octets()), verdict, surplus)


def _read(reader: DataReader, octets: bytes, lengths: list[int]) -> bytes:
    for segment in cut(octets, lengths):
        rest = segment
        while rest:
            room = reader.room()
            length = min(len(room), len(rest))
            room[:length], rest = rest[:length], rest[length:]
            surplus = reader.received(length)
            if reader.done:
                return surplus + octets[reader_position(octets, surplus, rest) :]
    raise AssertionError("the end was not found")


def reader_position(octets: bytes, surplus: bytes, rest: bytes) -> int:
    """Where the octets begin that the reader was not given; its surplus came right before them."""
    end = (b"\r\n" + octets).find(END) + len(END) - 2
    assert octets[end:].startswith(surplus + rest)
    return end + len(surplus)


def agrees(found: Read, expected: Read) -> None:
    """Assert that the reader has done what the model says."""
    assert found.verdict == expected.verdict
    if found.verdict is None:
        assert found.content == expected.content
    if found.verdict is not replies.FAR_TOO_LARGE:
        assert found.surplus == expected.surplus


PIECES = st.sampled_from(
    (
        b".",
        b"..",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n.",
        b"\r\n..",
        b"\r\n\r\n",
        b"\0",
        b"x",
        b" ",
        b"Received: x",
        b"\r\nreceived:y",
    )
)
TEXTS = st.lists(PIECES, max_size=25).map(b"".join)


@settings(deadline=None, max_examples=1500, derandomize=True)
@given(TEXTS, LIMITS, LENGTHS, st.sampled_from((b"", b"QUIT\r\n", b".\r\n", b"\n")))
@example(b"", Limits(), [1], b"")
@example(b".", Limits(), [1], b"")
@example(b"\r\n", Limits(bare_newline="normalize"), [1], b"")
def test_short_texts(text: bytes, limits: Limits, lengths: list[int], behind: bytes) -> None:
    for end in (END, END[2:]):
        octets = text + end + behind
        if (b"\r\n" + octets).find(END) >= 0:
            agrees(read(octets, limits, lengths), model(octets, limits))


LONG_LIMITS = st.builds(
    Limits,
    max_message_bytes=st.sampled_from((30_000, 10_000_000)),
    max_header_bytes=st.sampled_from((1000, 12_000, 40_000)),
    max_text_line=st.sampled_from((0, 500)),
    bare_newline=st.sampled_from(("reject", "normalize", "keep")),
    nul_in_data=st.just("keep"),
)
LONG_TEXTS = st.lists(
    st.builds(
        bytes.__mul__,
        st.sampled_from(
            (b"x" * 78 + b"\r\n", b"..dots\r\n", b"x", b"\r\n\r\n", b"\r\n.", b"\n", b"\0\r", b"Received: a\r\n")
        ),
        st.sampled_from((1, 2, 100, 3000)),
    ),
    max_size=6,
).map(b"".join)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    LONG_TEXTS,
    LONG_LIMITS,
    st.lists(st.integers(200, 30_000), min_size=1, max_size=6),
    st.sampled_from((0, 65536, None)),
)
def test_long_texts_in_memory_and_in_files(text: bytes, limits: Limits, lengths: list[int], memory: int | None) -> None:
    octets = text + END
    pool = BufferPool()
    space = ContentSpace(limits, pool) if memory is None else ContentSpace(limits, pool, memory, FakeFile)
    agrees(read(octets, limits, lengths, space), model(octets, limits))


@pytest.mark.parametrize("length", range(8160, 8200))
@pytest.mark.parametrize("spilled", [False, True], ids=["memory", "file"])
def test_an_end_that_is_cut_where_the_memory_ends(length: int, spilled: bool) -> None:
    limits = Limits()
    space = ContentSpace(limits, BufferPool(), 0, FakeFile if spilled else None)
    octets = b"y" * length + b"\r\n..z\r\n.\r\nNOOP\r\n"
    agrees(read(octets, limits, [length + 3, 2, 3, 1], space), model(octets, limits))
    assert read(octets, limits, [4096], space).content == b"y" * length + b"\r\n.z\r\n"
