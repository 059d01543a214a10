"""The search for bare line ends against a regular expression."""

from __future__ import annotations

import re
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsmtp.protocol import scan
from fastsmtp.protocol.scan import line_ends_are_clean

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_BOUNDARIES = (65534, 65535, 65536, 65537, 131069, 131070, 131071, 131072, 196605)


def _expected(text: bytes, nul_is_clean: bool) -> bool:
    return not _BARE.search(text) and (nul_is_clean or b"\0" not in text)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from((b"\r\n", b"\r\n", b"x", b"\r", b"\n", b"\0", b"\xff")), max_size=12).map(b"".join),
    st.booleans(),
)
def test_short_texts(text: bytes, nul_is_clean: bool) -> None:
    assert line_ends_are_clean(memoryview(text), nul_is_clean) == _expected(text, nul_is_clean)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(_BOUNDARIES),
    st.integers(-4, 4),
    st.lists(st.sampled_from((b"\r\n", b"x", b"\r", b"\n", b"\0")), min_size=1, max_size=6).map(b"".join),
    st.integers(0, 9),
    st.sampled_from((b"y", b"\r\n")),
    st.booleans(),
)
def test_round_the_ends_of_blocks(
    boundary: int, offset: int, middle: bytes, behind: int, filling: bytes, nul_is_clean: bool
) -> None:
    front = (filling * boundary)[: boundary + offset]
    text = front + middle + b"z" * behind
    assert line_ends_are_clean(memoryview(text), nul_is_clean) == _expected(text, nul_is_clean)


@pytest.mark.parametrize("size", [0, 1, 2, *(boundary + more for boundary in (65536, 131071) for more in range(-2, 3))])
@pytest.mark.parametrize("odd", [b"\r", b"\n", b"\0"])
def test_one_odd_octet_anywhere_near_an_end(size: int, odd: bytes) -> None:
    clean = (b"0123456\r\n" * (size // 9 + 1))[: size // 9 * 9].ljust(size, b"x")
    assert line_ends_are_clean(memoryview(clean), False)
    for position in {0, 1, size // 2, size - 2, size - 1, 65534, 65535, 65536, 131070} & set(range(size)):
        text = clean[:position] + odd + clean[position + 1 :]
        assert line_ends_are_clean(memoryview(text), False) == _expected(text, False)
        assert line_ends_are_clean(memoryview(text), True) == _expected(text, True)


def test_a_cut_line_end_is_not_clean() -> None:
    assert not line_ends_are_clean(memoryview(b"x\r"), True)
    assert not line_ends_are_clean(memoryview(b"\nx"), True)
    assert line_ends_are_clean(memoryview(b"\r\n"), False)


def test_threads_do_not_disturb_each_other() -> None:
    clean = memoryview(b"a line of text\r\n" * 20_000)
    dirty = memoryview(b"a line of text\n\r" * 20_000)
    found: set[tuple[str, bool]] = set()

    def work(name: str, text: memoryview) -> None:
        for _ in range(30):
            found.add((name, line_ends_are_clean(text, False)))

    threads = [Thread(target=work, args=each) for each in (("clean", clean), ("dirty", dirty)) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {("clean", True), ("dirty", False)}


def test_find_and_count_take_views() -> None:
    view = memoryview(b"a\r\n.\r\nb\r\n")
    assert scan.find(view, b"\r\n.\r\n") == 1
    assert scan.find(view[2:], b"\r\n.\r\n") == -1
    assert scan.count(view, b"\r\n") == 3
    assert scan.find(view[:0], b"\r\n") == -1
