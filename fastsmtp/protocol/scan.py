"""The searches that run over every octet of every message, at the speed of SIMD (stringzilla).

Measured per MB of 80-octet lines in cache: the two translations and the comparison of `line_ends_are_clean` take
100 us; counting CR, LF and CRLF 530 us with stringzilla and 1,900 us with CPython; a regular expression 17,000 us.
"""

from __future__ import annotations

from typing import Final

from stringzilla import count, find, translate  # type: ignore[import-not-found]  # a C extension without stubs

__all__ = ["count", "find", "line_ends_are_clean"]  # find and count take any buffer, without a copy

_BLOCK: Final = 65536  # octets at a time: the block and its two images stay in the processor's second level cache


def _table(marks: dict[int, int]) -> bytes:
    return bytes(marks.get(octet, 0) for octet in range(256))


_CR_OR_NUL: Final = _table({13: 1, 0: 2})
_CR: Final = _table({13: 1})
_LF: Final = _table({10: 1})


def line_ends_are_clean(text: memoryview, nul_is_clean: bool) -> bool:
    """Whether every CR in `text` has its LF behind it, every LF its CR before it, and no NUL is there.

    One image of the text marks its CRs, another its LFs: the text is clean exactly when the second is the first moved
    on by one octet. A NUL makes a mark in the first image that the second cannot have.
    """
    if not text:
        return True
    crs = _CR if nul_is_clean else _CR_OR_NUL
    if text[0] == 10 or crs[text[-1]]:
        return False
    front, behind = text[:-1], text[1:]
    if len(front) <= _BLOCK:
        return bool(translate(front, crs) == translate(behind, _LF))
    blocks = (slice(start, start + _BLOCK) for start in range(0, len(front), _BLOCK))
    return all(translate(front[block], crs) == translate(behind[block], _LF) for block in blocks)
