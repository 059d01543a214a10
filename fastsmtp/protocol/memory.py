"""Memory that messages are received into, used again when nobody looks at it any more.

Guarantees: a buffer that somebody still holds a view of is never handed out again. Fresh memory costs a page fault
for every 4 KB at its first use, 60-120 us per MB; a used buffer does not.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SIZES: Final = (1 << 14, 1 << 16, 1 << 18, 1 << 20)
"""The sizes of buffers, in octets: an ordinary mail fits the first; a larger one moves up, copied once at each step."""

_KEPT_BYTES: Final = 8 << 20  # of free buffers of one size, per process


class BufferPool:
    """Free buffers of one process, by size. Safe to use from several threads."""

    def __init__(self) -> None:
        self._free: dict[int, deque[bytearray]] = {size: deque(maxlen=_KEPT_BYTES // size) for size in SIZES}

    def acquire(self, size: int) -> bytearray:
        """A buffer of one of `SIZES`; its content is arbitrary."""
        free = self._free[size]
        while free:
            try:
                buffer = free.pop()
                buffer.pop()  # BufferError: a view of it is still in somebody's hands, so it is theirs now
                buffer.append(0)
            except (BufferError, IndexError):
                continue
            return buffer
        return bytearray(size)

    def release(self, buffer: bytearray) -> None:
        """Give a buffer back. Views of it may still exist."""
        self._free[len(buffer)].append(buffer)
