"""BDAT (RFC 3030 2): chunks of a known size, whose octets are content whatever they spell.

A chunk's octets are always consumed, also those of a chunk that is refused: what a client sends as content must never
be read as commands. The rules for line ends hold for the message as a whole, so a CR at the end of a chunk waits for
the LF that may begin the next one.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .content import Content
from .replies import BDAT_SYNTAX, FAR_TOO_LARGE, Reply, SMTPError

_BDAT: Final = re.compile(rb"[ \t]*([0-9]{1,19})(?:[ \t]+(LAST))?[ \t]*", re.I)
_CR: Final = 13
# Octets that nobody wants are read into one place, by all sessions of the process: nobody looks at them.
_SCRATCH: Final = memoryview(bytearray(65536))


class Chunk(NamedTuple):
    """The argument of BDAT: how many octets follow, and whether they are the last of the message."""

    size: int
    last: bool


def parse_chunk(argument: bytes, max_message_bytes: int) -> Chunk:
    """Read the argument of BDAT.

    Raises:
        SMTPError: it is none, so nobody knows where the next command begins; or there is no hope of reading so far.
            Either reply closes the connection.
    """
    match = _BDAT.fullmatch(argument)
    if not match:
        raise SMTPError(BDAT_SYNTAX)
    size = int(match[1])
    if size > 2 * max_message_bytes:
        raise SMTPError(FAR_TOO_LARGE)
    return Chunk(size, match[2] is not None)


class ChunkReader:
    """Reads one chunk into the content of its message.

    Attributes:
        content: of the message, with the chunks before this one.
        chunk: what this one is.
        done: whether all of it is there.
    """

    __slots__ = ("_missing", "chunk", "content", "done")

    def __init__(self, content: Content, chunk: Chunk) -> None:
        self.content = content
        self.chunk = chunk
        self.done = False
        self._missing = chunk.size

    @property
    def arrived(self) -> int:
        """Octets so far."""
        return self.chunk.size - self._missing

    def room(self) -> memoryview:
        """Where to put the next octets."""
        return self.content.room()

    def received(self, length: int) -> bytes:
        """`length` octets were put into the room; returns what came behind the chunk."""
        content = self.content
        start = content.filled
        surplus = bytes(content.view[start + self._missing : start + length])
        own = length - len(surplus)
        content.filled = end = start + own
        self._missing -= own
        self.done = not self._missing
        complete = self.done and self.chunk.last
        if not complete and content.view[end - 1] == _CR:
            end -= 1
        if end > content.clean:
            content.commit(end)
        return surplus


class Swallower:
    """Reads the octets of a chunk that was refused, and forgets them.

    Attributes:
        reply: the refusal, to be said when they have passed.
        done: whether they have.
    """

    __slots__ = ("_missing", "arrived", "done", "reply")

    def __init__(self, size: int, reply: Reply) -> None:
        self.reply = reply
        self.arrived = 0
        self.done = not size
        self._missing = size

    def room(self) -> memoryview:
        """Where to put the next octets."""
        return _SCRATCH[: max(1, min(self._missing, len(_SCRATCH)))]

    def received(self, length: int) -> bytes:
        """`length` octets have passed; never more than there was room for, so nothing came behind them."""
        self.arrived += length
        self._missing -= length
        self.done = not self._missing
        return b""
