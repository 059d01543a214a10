"""The searches that run over every octet of every message, at the speed of SIMD (stringzilla).

Measured per MB of 80-octet lines in cache: the two translations and the comparison of `line_ends_are_clean` take
100 us; counting CR, LF and CRLF 530 us with stringzilla and 1,900 us with CPython; a regular expression 17,000 us.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import stringzilla  # type: ignore[import-not-found]  # a C extension without stubs

_BLOCK: Final = 65536  # octets at a time: the block and its two images stay in the processor's second level cache


def _table(marks: dict[int, int]) -> bytes:
    return bytes(marks.get(octet, 0) for octet in range(256))


_CR_OR_NUL: Final = _table({13: 1, 0: 2})
_CR: Final = _table({13: 1})
_LF: Final = _table({10: 1})

# Scratch memory: scans run on the loop and in pool threads alike, and deque operations are atomic. As many pairs
# exist as scans ever ran at the same time.
_scratch: deque[tuple[bytearray, bytearray]] = deque()


def find(text: bytes | bytearray | memoryview, pattern: bytes) -> int:
    """The index of the first `pattern` in `text`, or -1."""
    return int(stringzilla.find(text, pattern))


def count(text: bytes | bytearray | memoryview, pattern: bytes) -> int:
    """How often `pattern` stands in `text`, without overlaps."""
    return int(stringzilla.count(text, pattern))


def line_ends_are_clean(text: memoryview, nul_is_clean: bool) -> bool:
    """Whether every CR in `text` has its LF behind it, every LF its CR before it, and no NUL is there.

    One image of the text marks its CRs, another its LFs: the text is clean exactly when the second is the first moved
    on by one octet. A NUL makes a mark in the first image that the second cannot have.
    """
    try:
        crs, lfs = _scratch.pop()
    except IndexError:
        crs, lfs = bytearray(_BLOCK), bytearray(_BLOCK)
    cr_table = _CR if nul_is_clean else _CR_OR_NUL
    try:
        return _compare(text, crs, lfs, cr_table)
    finally:
        _scratch.append((crs, lfs))


def _compare(text: memoryview, crs: bytearray, lfs: bytearray, cr_table: bytes) -> bool:
    length = len(text)
    if length == 0:
        return True
    if text[0] == 10 or cr_table[text[length - 1]]:
        return False
    crs_view, lfs_view = memoryview(crs), memoryview(lfs)
    for start in range(0, length, _BLOCK - 1):  # blocks overlap by one octet, for the CR LF between them
        block = text[start : start + _BLOCK]
        size = len(block)
        cr_marks, lf_marks = crs_view[:size], lfs_view[:size]
        cr_marks[:] = block
        lf_marks[:] = block
        stringzilla.translate(cr_marks, cr_table, inplace=True)
        stringzilla.translate(lf_marks, _LF, inplace=True)
        if not stringzilla.equal(cr_marks[:-1], lf_marks[1:]):
            return False
    return True
