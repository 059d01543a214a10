"""Command lines (RFC 5321 2.3.8, 4.5.3.1.4).

Guarantees: only CR LF ends a line; a verdict never depends on how the octets were cut into reads; of an overlong line
no more than its last octet is kept; a fault that makes the stream untrustworthy is found as soon as its octets are
there, without waiting for a line end.

Hot path: one split takes a whole flight apart (0.2 us), where a search for each line end costs that much a line. Lines
are looked at more closely only where a flight is longer than any line may be, or where a command finds its line odd.
"""

from __future__ import annotations

import re
from typing import Final

from .replies import AUTH_LINE_TOO_LONG, BARE_LF, LINE_FAR_TOO_LONG, LINE_TOO_LONG, NOT_SMTP, Reply

_AUTH: Final = (b"AUTH ", b"AUTH\t")
# A chunk of a thousand octets and more; what stands behind is most likely content, and not to be cut into lines.
_LARGE_CHUNK: Final = re.compile(rb"BDAT [0-9]{4,19}[^\r\n]*\r\n")
_TLS_HANDSHAKE: Final = b"\x16"  # the first octet of a ClientHello: the client took this for a TLS port


def is_auth(head: bytes) -> bool:
    """Whether a line that begins so is an AUTH command."""
    return head[: len(_AUTH[0])].upper() in _AUTH


class OddLine(bytes):
    """A line that remembers how it ended: behind DATA it is content, and no LF may become a CR LF there."""

    end = b"\n"


class LongLine(OddLine):
    """A line longer than a command may be, and not longer than AUTH may be: what it is decides."""

    def partition(self, separator: object) -> tuple[bytes, bytes, bytes]:
        """No verb: whoever looks for one has to look closer."""
        return b"", b"", b""


class Fault(OddLine):
    """A line that is not executed. It keeps its octets: behind DATA they would be content.

    Attributes:
        reply: what the client is told.
    """

    reply: Reply

    def partition(self, separator: object) -> tuple[bytes, bytes, bytes]:
        """No verb: whoever looks for one has to look closer."""
        return b"", b"", b""


def _fault(line: bytes, reply: Reply) -> Fault:
    fault = Fault(line)
    fault.reply = reply
    fault.end = _end_of(line)
    return fault


def _long(line: bytes) -> LongLine:
    long = LongLine(line)
    long.end = _end_of(line)
    return long


def _end_of(line: bytes) -> bytes:
    return line.end if isinstance(line, OddLine) else b"\r\n"


def _split_anywhere(octets: bytes) -> list[bytes]:
    """Lines that end in CR LF or in a bare LF, and the tail."""
    *lines, tail = octets.split(b"\n")
    return [*(line[:-1] if line.endswith(b"\r") else OddLine(line) for line in lines), tail]


def begins_with_large_chunk(octets: bytes) -> bool:
    """Whether they are a BDAT command, most of whose chunk is still to come or stands behind it."""
    return _LARGE_CHUNK.match(octets) is not None


def _behind_large_chunk(octets: bytes) -> tuple[bytes, bytes]:
    """Everything up to the first large BDAT, its line included, and what stands behind it.

    Cutting a chunk into lines to put them together again doubles the price of a message. A small chunk is cheaper cut:
    its flight would be copied once for each.
    """
    start = octets.find(b"BDAT ")
    if start >= 0 and (start == 0 or octets[start - 2 : start] == b"\r\n"):
        match = _LARGE_CHUNK.match(octets, start)
        if match:
            return octets[: match.end()], octets[match.end() :]
    return octets, b""


class LineRules:
    """What a line may be, for all readers of a listener.

    Args:
        limit: octets of a command, CR LF included; a longer line is a `LongLine`.
        auth_limit: octets of AUTH and its responses; a longer line is dropped to its end, whatever it is.
        discard_limit: octets after which an overlong line ends the session.
        lenient: whether a bare LF ends a line too (`bare_newline = normalize`).
    """

    __slots__ = ("auth_limit", "discard_limit", "lenient", "limit")

    def __init__(self, limit: int, auth_limit: int, discard_limit: int, lenient: bool) -> None:
        self.limit = min(limit, discard_limit)
        self.auth_limit = min(max(limit, auth_limit), discard_limit)
        self.discard_limit = discard_limit
        self.lenient = lenient


class LineReader:
    """Cuts what the client sends into command lines.

    Args:
        rules: for them.

    Attributes:
        lines: the complete lines that nobody has taken yet, without CR LF, the last one first.
        tail: of a line whose end is not there yet.
    """

    __slots__ = ("_dropped", "_head", "_odd", "_rules", "_uncut", "lines", "tail")

    def __init__(self, rules: LineRules) -> None:
        self._rules = rules
        self._odd = rules.lenient  # whether a plain split is not enough: lenient, or there is a tail
        self._uncut = False  # whether the tail may hold whole lines: it stands behind a large BDAT
        self._dropped = 0  # octets of the tail that are gone already
        self._head = b""  # how they began
        self.lines: list[bytes] = []
        self.tail = b""

    def feed(self, octets: bytes) -> None:
        """Take what one read brought; all earlier lines must have been taken."""
        if self._odd or len(octets) > self._rules.limit:
            lines = self._feed_oddly(octets)
        else:
            lines = octets.split(b"\r\n")
            if lines.pop():
                lines = self._feed_oddly(octets)
        lines.reverse()
        self.lines = lines

    def _feed_oddly(self, octets: bytes) -> list[bytes]:
        """There is an unfinished line in front or at the end, or one that may be too long."""
        octets = self.tail + octets
        octets, uncut = (octets, b"") if self._rules.lenient else _behind_large_chunk(octets)
        lines = _split_anywhere(octets) if self._rules.lenient else octets.split(b"\r\n")
        self.tail = lines.pop() or uncut
        self._uncut = bool(uncut)
        self._odd = self._rules.lenient or bool(self.tail)
        if lines:
            lines = [self._measured(lines[0], self._dropped), *(self._measured(line, 0) for line in lines[1:])]
            self._dropped = 0
        return lines

    def _measured(self, line: bytes, dropped: int) -> bytes:
        """The line, or what it is if it is too long; `dropped` octets of it are gone."""
        length = len(line) + dropped
        if length + 2 <= self._rules.limit:
            return line
        if length + 2 <= self._rules.auth_limit:
            return _long(line)
        too_long = AUTH_LINE_TOO_LONG if is_auth(self._head if dropped else line) else LINE_TOO_LONG
        return _fault(line, self._early_fault(line, dropped, length + 1) or too_long)

    def _early_fault(self, line: bytes, dropped: int, length: int) -> Reply | None:
        """The fault that shows before the end of a line, in the order in which its octets would have shown it."""
        stray = line.find(b"\n")
        if line[:1] == _TLS_HANDSHAKE and not dropped:
            return NOT_SMTP
        if 0 <= stray < self._rules.discard_limit - dropped:
            return BARE_LF
        return LINE_FAR_TOO_LONG if length > self._rules.discard_limit else None

    def judge_tail(self) -> Reply | None:
        """All lines are taken, and the tail is the beginning of another: drop it if it is too long already.

        If it has whole lines in it, `lines` has them now.

        Returns:
            The reply to a fault that needs no end of the line; it closes the connection.
        """
        if self._uncut:  # the BDAT in front of it was none, but a response to AUTH
            self._cut()
            return None
        length = len(self.tail) + self._dropped
        fault = self._early_fault(self.tail, self._dropped, length)
        if fault is None and length > self._rules.auth_limit:  # the last octet may be the CR of the line's end
            if not self._dropped:
                self._head = self.tail[: len(_AUTH[0])]
            self._dropped = length - 1
            self.tail = self.tail[-1:]
        return fault

    def take(self, size: int) -> bytes:
        """Hand out the next `size` octets as they came, or as many as are there, and forget them.

        The cost is that of the octets taken, however much waits behind them: chunks may be of one octet each.
        """
        taken = []
        while self.lines and size > 0:
            line = self.lines.pop()
            octets = line + _end_of(line)
            taken.append(octets[:size])
            if len(octets) > size:
                self._put_back(line, octets[size:])
            size -= len(octets)
        if size > 0:
            taken.append(self.tail[:size])
            self.tail = self.tail[size:]
            self._odd = self._rules.lenient or bool(self.tail)
            if self._uncut:
                self._cut()
        return b"".join(taken)

    def _cut(self) -> None:
        """The tail is no content: look for lines in it."""
        octets = self.take_rest()
        if octets:
            self.feed(octets)

    def _put_back(self, line: bytes, rest: bytes) -> None:
        """`rest` of a line was not taken: it is the beginning of the next one."""
        end = _end_of(line)
        if len(rest) < len(end):  # a CR LF was cut in two, and its LF does not end a line
            self.feed(rest + self.take_rest())
            return
        text = rest[: -len(end)]
        if end == OddLine.end:
            text = OddLine(text)
        self.lines.append(self._measured(text, 0))

    def take_rest(self) -> bytes:
        """Hand out everything that was not taken as a line, as it came, and forget it."""
        if not self.lines and not self.tail:
            return b""
        rest = b"".join([line + _end_of(line) for line in reversed(self.lines)]) + self.tail
        self.lines.clear()
        self.tail = b""
        self._odd = self._rules.lenient
        self._uncut = False
        return rest

    def discard(self) -> None:
        """Forget everything that was not taken (RFC 3207 6)."""
        self.take_rest()
        self._dropped = 0

    @property
    def in_line(self) -> bool:
        """Whether there is a line, or a part of one, that nobody has taken."""
        return bool(self.tail or self._dropped or self.lines)
