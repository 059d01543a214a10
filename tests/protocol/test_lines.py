"""Command lines: their limits to the last octet, and faults wherever the octets are cut."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsmtp import Reply
from fastsmtp.protocol.lines import Fault, LineReader, LineRules, LongLine
from fastsmtp.protocol.replies import AUTH_LINE_TOO_LONG, BARE_LF, LINE_FAR_TOO_LONG, LINE_TOO_LONG, NOT_SMTP
from tests.protocol.dialogues import LENGTHS, cut

LIMIT, AUTH_LIMIT, DISCARD = 12, 18, 30
Item = bytes | Reply


def read(octets: bytes, lengths: Sequence[int], lenient: bool = False) -> list[Item]:
    """The lines and faults that come of octets, as a session takes them: a fault that closes is the last."""
    reader = LineReader(LineRules(LIMIT, AUTH_LIMIT, DISCARD, lenient))
    found: list[Item] = []
    for segment in cut(octets, lengths):
        reader.feed(segment)
        while reader.lines:
            found.append(_item(reader.lines.pop()))
            if isinstance(found[-1], Reply) and found[-1].close:
                return found
        if reader.tail and (fault := reader.judge_tail()):
            return [*found, fault]
    return found


def _item(line: bytes) -> Item:
    """As a session in its usual states judges it."""
    if isinstance(line, Fault):
        return line.reply
    if line[:1] == b"\x16":
        return NOT_SMTP
    if b"\n" in line:
        return BARE_LF
    return LINE_TOO_LONG if isinstance(line, LongLine) and line[:5].upper() != b"AUTH " else bytes(line)


@pytest.mark.parametrize("lengths", [[1000], [1], [2], [3], [7], [13], [1, 1000], [LIMIT], [LIMIT - 1], [DISCARD]])
@pytest.mark.parametrize(
    ("octets", "items"),
    [
        (b"", []),
        (b"a", []),
        (b"a\r\n", [b"a"]),
        (b"\r\n", [b""]),
        (b"a\r\nb\r\n\r\nc", [b"a", b"b", b""]),
        (b"a\rb\r\n", [b"a\rb"]),
        (b"a\r\r\n", [b"a\r"]),
        (b"x" * 10 + b"\r\n", [b"x" * 10]),
        (b"x" * 11 + b"\r\n", [LINE_TOO_LONG]),
        (b"x" * 10 + b"\r\r\n", [LINE_TOO_LONG]),
        (b"x" * 12 + b"\r\n", [LINE_TOO_LONG]),
        (b"x" * 11 + b"\r\nok\r\n", [LINE_TOO_LONG, b"ok"]),
        (b"ok\r\n" + b"x" * 11 + b"\r\n" + b"y" * 10 + b"\r\n", [b"ok", LINE_TOO_LONG, b"y" * 10]),
        (b"x" * 16 + b"\r\nok\r\n", [LINE_TOO_LONG, b"ok"]),
        (b"AUTH " + b"x" * 11 + b"\r\n", [b"AUTH " + b"x" * 11]),
        (b"AUTH " + b"x" * 12 + b"\r\nok\r\n", [AUTH_LINE_TOO_LONG, b"ok"]),
        (b"auth\t" + b"x" * 20 + b"\r\nok\r\n", [AUTH_LINE_TOO_LONG, b"ok"]),
        (b"AUTHx" + b"x" * 20 + b"\r\nok\r\n", [LINE_TOO_LONG, b"ok"]),
        (b"x" * 20 + b"\rQUIT\r\nok\r\n", [LINE_TOO_LONG, b"ok"]),
        (b"x" * 29 + b"\r\nok\r\n", [LINE_TOO_LONG, b"ok"]),
        (b"x" * 30 + b"\r\nok\r\n", [LINE_FAR_TOO_LONG]),
        (b"x" * 30, []),
        (b"x" * 31, [LINE_FAR_TOO_LONG]),
        (b"x" * 100 + b"\r\nok\r\n", [LINE_FAR_TOO_LONG]),
        (b"\n", [BARE_LF]),
        (b"a\nb\r\nc\r\n", [BARE_LF]),
        (b"ok\r\na\n", [b"ok", BARE_LF]),
        (b"ok\r\n\nb\r\n", [b"ok", BARE_LF]),
        (b"x" * 20 + b"\nb\r\n", [BARE_LF]),
        (b"x" * 29 + b"\nb\r\n", [BARE_LF]),
        (b"x" * 30 + b"\nb\r\n", [LINE_FAR_TOO_LONG]),
        (b"x" * 31 + b"\nb\r\n", [LINE_FAR_TOO_LONG]),
        (b"\x16", [NOT_SMTP]),
        (b"\x16\n", [NOT_SMTP]),
        (b"ok\r\n\x16\x03\r\nb\r\n", [b"ok", NOT_SMTP]),
        (b"\x16" + b"x" * 40 + b"\r\n", [NOT_SMTP]),
        (b"x\x16\r\n", [b"x\x16"]),
        (b"x" * 12 + b"\x16" * 5 + b"\r\nok\r\n", [LINE_TOO_LONG, b"ok"]),
    ],
)
def test_lines(octets: bytes, items: list[Item], lengths: list[int]) -> None:
    assert read(octets, lengths) == items


@pytest.mark.parametrize("lengths", [[1000], [1], [2], [3], [13], [3, 1000]])
@pytest.mark.parametrize(
    ("octets", "items"),
    [
        (b"a\nb\r\n\nc\r\r\nd", [b"a", b"b", b"", b"c\r"]),
        (b"x" * 10 + b"\r\nok\n", [b"x" * 10, b"ok"]),
        (b"x" * 12 + b"\nok\n", [LINE_TOO_LONG, b"ok"]),
        (b"x" * 11 + b"\r\nok\n", [LINE_TOO_LONG, b"ok"]),
        (b"x" * 31 + b"\n", [LINE_FAR_TOO_LONG]),
        (b"a\n\x16", [b"a", NOT_SMTP]),
        (b"a\r\nb\nc\r\n", [b"a", b"b", b"c"]),
    ],
)
def test_lenient_lines(octets: bytes, items: list[Item], lengths: list[int]) -> None:
    assert read(octets, lengths, lenient=True) == items


_OCTETS = st.lists(st.sampled_from((b"\r\n", b"\r", b"\n", b"x", b"x" * 9, b"\x16", b"x" * 18)), max_size=12).map(
    b"".join
)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(_OCTETS, LENGTHS, st.booleans())
def test_segments_mean_nothing(octets: bytes, lengths: list[int], lenient: bool) -> None:
    assert read(octets, lengths, lenient) == read(octets, [10_000], lenient)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(_OCTETS, LENGTHS, st.booleans())
def test_what_is_not_taken_comes_back_as_it_was(octets: bytes, lengths: list[int], lenient: bool) -> None:
    """Behind DATA it is content, whatever it would have been as a command."""
    reader = LineReader(LineRules(LIMIT, AUTH_LIMIT, DISCARD, lenient))
    reader.feed(b"DATA\r\n" + octets)
    assert reader.lines.pop() == b"DATA"
    assert reader.take_rest() == octets
    assert not reader.in_line
    reader.feed(b"ok\r\n")
    assert reader.lines == [b"ok"]


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(_OCTETS, st.lists(st.integers(1, 12), max_size=8), st.booleans())
def test_chunks_are_taken_as_they_came(octets: bytes, sizes: list[int], lenient: bool) -> None:
    """Chunks of BDAT are cut out of the stream wherever lines may end; what is left is the stream behind them."""
    reader = LineReader(LineRules(LIMIT, AUTH_LIMIT, DISCARD, lenient))
    reader.feed(b"BDAT\r\n" + octets)
    assert reader.lines.pop() == b"BDAT"
    for size in sizes:
        assert reader.take(size) == octets[:size]
        octets = octets[size:]
    fresh = LineReader(LineRules(LIMIT, AUTH_LIMIT, DISCARD, lenient))
    fresh.feed(octets)
    assert [_item(line) for line in reader.lines] == [_item(line) for line in fresh.lines]
    assert reader.tail == fresh.tail
    assert reader.take_rest() == octets


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=DISCARD).filter(lambda octets: b"\n" not in octets and octets[:1] != b"\x16"))
def test_of_an_overlong_line_little_is_kept(octets: bytes) -> None:
    reader = LineReader(LineRules(LIMIT, AUTH_LIMIT, DISCARD, False))
    for segment in cut(octets, [1]):
        reader.feed(segment)
        assert reader.lines == []
        if reader.tail:
            assert reader.judge_tail() is None
        assert len(reader.tail) <= AUTH_LIMIT


def test_in_line() -> None:
    reader = LineReader(LineRules(LIMIT, AUTH_LIMIT, DISCARD, False))
    states = [reader.in_line]
    for segment in (b"a\r\nb", b"\r\n", b"x" * 20):
        reader.feed(segment)
        states.append(reader.in_line)
        assert len(reader.lines) <= 1
        reader.lines.clear()
        states.append(reader.in_line)
    assert states == [False, True, True, True, False, True, True]
