"""The content of one message while it arrives: memory, limits and the rules that every octet must meet.

Octets are received straight into the free end of a buffer (`room`). What the reader of DATA or BDAT recognises as
content is committed; octets that it cannot judge yet stay behind the committed ones:

    buffer  [ CR LF | committed content | not judged yet | room ]
                    2                clean             filled

The two octets in front are the CR LF that RFC 5321 4.1.1.4 implies before the first line. Guarantees: each octet is
scanned once by each rule; memory never exceeds the pool's largest buffer, beyond which content goes to a file; a
message that breaks a rule is read on to its end and judged there, so that the session stays in step.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from .limits import Limits
from .memory import SIZES, BufferPool
from .replies import (
    BARE_NEWLINE,
    CONTENT_NOT_ALLOWED,
    FAR_TOO_LARGE,
    HEADER_TOO_LARGE,
    INSUFFICIENT_STORAGE,
    TOO_LARGE,
    TOO_MANY_HOPS,
    Reply,
    SMTPError,
)
from .scan import count, find, line_ends_are_clean

IMPLIED: Final = b"\r\n"
_BASE: Final = len(IMPLIED)
_MIN_ROOM: Final = 8192  # octets; less than that is not worth a read of its own
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_RECEIVED: Final = b"\r\nreceived:"
_NOTHING: Final = memoryview(b"")


class SpillFile(Protocol):
    """Where content goes that is too large for memory."""

    def write(self, octets: memoryview) -> None:
        """Append; OSError when there is no space."""

    def view(self) -> memoryview:
        """Everything written, read-only; stays valid when the file is closed."""

    def close(self) -> None:
        """Give the file up."""


class ContentSpace:
    """Where the contents of all sessions of a process find room.

    Args:
        limits: what a message may be.
        pool: the memory.
        memory_bytes: octets of one message that stay in memory; a larger message goes to a file.
        open_file: makes that file; None keeps every message in memory, whatever its size.
    """

    def __init__(
        self,
        limits: Limits,
        pool: BufferPool,
        memory_bytes: int = SIZES[-1],
        open_file: Callable[[], SpillFile] | None = None,
    ) -> None:
        self.limits = limits
        self.pool = pool
        # The header section is judged while it is still in memory.
        header = limits.max_header_bytes + _BASE + _MIN_ROOM
        largest = max(memory_bytes, next((size for size in SIZES if size >= header), header))
        self.memory_bytes = largest
        self.sizes = tuple(size for size in SIZES if size <= largest)
        self.open_file = open_file


class Content:
    """The octets of one message. Not safe for use by two threads at once.

    Args:
        space: where it finds room.
        binary: whether it has no lines, so that the rules for line ends and NUL do not hold (RFC 3030 3).

    Attributes:
        size: octets committed so far.
        clean: where the committed octets end in the buffer.
        filled: where the received octets end.
    """

    __slots__ = (
        "_bare", "_binary", "_broken", "_buffer", "_dropping", "_faulty", "_file", "_header_end", "_hops", "_line",
        "_long_line", "_nul", "_space", "clean", "filled", "size", "view",
    )  # fmt: skip

    def __init__(self, space: ContentSpace, binary: bool = False) -> None:
        self._space = space
        self._binary = binary
        self._buffer = buffer = space.pool.acquire(SIZES[0])
        self.view = view = memoryview(buffer)
        view[:_BASE] = IMPLIED
        self.filled = _BASE
        self.clean = 0
        self.size = -_BASE  # the implied CR LF is committed with the first line and does not count
        self._file: SpillFile | None = None
        self._header_end = 0  # of the header section, once it was looked at
        self._line = 0  # octets of the text line that the committed ones end in, for max_text_line
        self._dropping = False  # over the limit, or nowhere to go: nothing is kept any more
        self._broken: OSError | None = None  # the file could not be written
        self._faulty = False  # one of the rules below is broken
        self._bare = self._nul = self._hops = self._long_line = False

    @property
    def arrived(self) -> int:
        """Octets so far, committed or not."""
        return self.size + self.filled - self.clean

    # -- receiving ----------------------------------------------------------------------------------------------------

    def room(self) -> memoryview:
        """The free end of the buffer, at least 8 KB."""
        if len(self._buffer) - self.filled < _MIN_ROOM:
            self._make_room()
        return self.view[self.filled :]

    def reserve(self, size: int) -> None:
        """Take memory for a message of `size` octets at once, as far as one in memory may have it (RFC 1870)."""
        wanted = next((fit for fit in self._space.sizes if fit >= size + _MIN_ROOM), self._space.sizes[-1])
        if wanted > len(self._buffer):
            self._move_to(wanted)

    def _make_room(self) -> None:
        larger = next((size for size in self._space.sizes if size > len(self._buffer)), 0)
        if self._dropping or self._file:
            self._slide()
        elif larger:
            self._move_to(larger)
        elif self._space.open_file and len(self._buffer) >= self._space.memory_bytes:
            self._spill()
        else:
            self._move_to(2 * len(self._buffer))

    def _move_to(self, size: int) -> None:
        pool, old = self._space.pool, self._buffer
        new = pool.acquire(size) if size in SIZES else bytearray(size)
        new[: self.filled] = self.view[: self.filled]
        self._buffer, self.view = new, memoryview(new)
        if len(old) in SIZES:
            pool.release(old)

    def _spill(self) -> None:
        if not self._header_end:
            self._look_at_header()
            if self._header_end == self.clean:  # it has no end yet, and as much of it as there may be in memory
                self._header_end = max(self.clean, self._space.limits.max_header_bytes + _BASE + 1)
        try:
            self._file = self._space.open_file() if self._space.open_file else None
        except OSError as error:
            self._give_up(error)
        self._slide()

    def _slide(self) -> None:
        """Write the committed octets to the file, if there is one, and make their place free."""
        start = _BASE if self.size == self.clean - _BASE else 0  # the first write leaves out the implied CR LF
        if self._file and not self._dropping:
            try:
                self._file.write(self.view[start : self.clean])
            except OSError as error:
                self._give_up(error)
        rest = bytes(self.view[self.clean : self.filled])
        self.view[: len(rest)] = rest
        self.clean, self.filled = 0, len(rest)

    def _give_up(self, error: OSError) -> None:
        self._broken = error
        self._dropping = self._faulty = True

    # -- committing ---------------------------------------------------------------------------------------------------

    def commit(self, end: int) -> None:
        """The octets from `clean` to `end` are content: check them by the rules, and count them.

        A CR LF must not be cut in two by the ends of what is committed at a time.

        Raises:
            SMTPError: the message is so far over the limit that the connection is given up.
        """
        limits = self._space.limits
        region = self.view[self.clean : end]
        if not self._binary and not self._bare and not line_ends_are_clean(region, limits.nul_in_data == "keep"):
            end = self._dirty(end)
        if limits.max_text_line and not self._binary:
            self._measure_lines(bytes(self.view[self.clean : end]))
        self.size += end - self.clean
        self.clean = end
        if self.size > limits.max_message_bytes:
            self._dropping = self._faulty = True
            if self.size > 2 * limits.max_message_bytes:
                raise SMTPError(FAR_TOO_LARGE)
        elif end > limits.max_header_bytes + _BASE and not self._header_end:
            self._look_at_header()

    def _dirty(self, end: int) -> int:
        """Judge what the fast check did not pass; returns the new end."""
        limits = self._space.limits
        region = bytes(self.view[self.clean : end])
        if limits.nul_in_data == "reject" and b"\0" in region:
            self._nul = self._faulty = True
        if limits.bare_newline == "reject":
            self._bare = bool(_BARE.search(region))
            self._faulty |= self._bare
        elif limits.bare_newline == "normalize":
            return self._replace(end, _BARE.sub(lambda match: b" " if match[0] == b"\r" else b"\r\n", region))
        return end

    def _replace(self, end: int, region: bytes) -> int:
        """Put `region` in the place of the octets from `clean` to `end`."""
        rest = bytes(self.view[end : self.filled])
        new_end = self.clean + len(region)
        while new_end + len(rest) > len(self._buffer):
            self._move_to(2 * len(self._buffer))
        self.view[self.clean : new_end] = region
        self.view[new_end : new_end + len(rest)] = rest
        self.filled = new_end + len(rest)
        return new_end

    def remove_dots(self, end: int) -> int:
        """Take the dot from the front of each line between `clean` and `end` (RFC 5321 4.5.2); returns the new end."""
        region = self.view[self.clean : end]
        if find(region, b"\r\n.") < 0:
            return end
        return self._replace(end, bytes(region).replace(b"\r\n.", IMPLIED))

    def _measure_lines(self, region: bytes) -> None:
        """Only CR LF ends a line, whatever `bare_newline` lets pass."""
        limit = self._space.limits.max_text_line
        *complete, rest = region.split(IMPLIED)
        for line in complete:
            self._long_line |= self._line + len(line) + len(IMPLIED) > limit
            self._line = 0
        self._line += len(rest)
        self._long_line |= self._line > limit
        self._faulty |= self._long_line

    def _look_at_header(self) -> None:
        """Judge the header section: its length, and how many hosts it has passed.

        Once, at the end of the content, or as soon as there are more octets than a header section may have.
        """
        limits = self._space.limits
        position = find(self.view[: self.clean], b"\r\n\r\n")
        self._header_end = position + _BASE if position >= 0 else self.clean
        header = self.view[: self._header_end]
        # A header section of so few lines cannot hold so many fields; looking at each costs twenty times as much.
        if count(header, IMPLIED) > limits.max_received:
            self._hops = bytes(header).lower().count(_RECEIVED) > limits.max_received
            self._faulty |= self._hops

    # -- the end ------------------------------------------------------------------------------------------------------

    def verdict(self) -> Reply | None:
        """The reply of the first rule that the complete content breaks; None if it meets all of them."""
        if not self._header_end:
            self._look_at_header()
        if self._file and not self._dropping:
            self._slide()
        limits = self._space.limits
        if not self._faulty and self._header_end <= limits.max_header_bytes + _BASE:
            return None
        for broken, reply in (
            (self.size > limits.max_message_bytes, TOO_LARGE),
            (self._broken is not None, INSUFFICIENT_STORAGE),
            (self._bare, BARE_NEWLINE),
            (self._nul, CONTENT_NOT_ALLOWED),
            (self._header_end > limits.max_header_bytes + _BASE, HEADER_TOO_LARGE),
            (self._hops, TOO_MANY_HOPS),
            (self._long_line, CONTENT_NOT_ALLOWED),
        ):
            if broken:
                return reply
        return None

    def octets(self) -> memoryview:
        """The content, read-only."""
        if self._file:
            return self._file.view()
        return self.view[_BASE : self.clean].toreadonly()

    def release(self) -> None:
        """Give memory and file back; views that `octets` gave stay valid."""
        if self._file:
            self._file.close()
        self.view = _NOTHING
        if len(self._buffer) in SIZES:
            self._space.pool.release(self._buffer)
        self._buffer = bytearray()
