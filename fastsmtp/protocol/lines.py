"""Command lines (RFC 5321 2.3.8, 4.5.3.1.4).

Guarantees: only CR LF ends a line; a verdict never depends on how the octets were cut into reads; of an overlong line
no more than its last octet is kept; a fault that makes the stream untrustworthy is found as soon as its octets are
there, without waiting for a line end.

Hot path: one split takes a whole flight apart (0.1 us), where a search for each line end costs that much a line. Lines
are looked at more closely only where a flight is longer than any line may be, or where a command finds its line odd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .replies import BARE_LF, LINE_FAR_TOO_LONG, LINE_TOO_LONG, NOT_SMTP, Reply

_TLS_HANDSHAKE: Final = b"\x16"  # the first octet of a ClientHello: the client took this for a TLS port
_ANY_END: Final = re.compile(rb"\r?\n")


class Fault(bytes):
    """Stands in the place of a line that is gone.

    Attributes:
        reply: what the client is told.
    """

    reply: Reply


def _fault(reply: Reply) -> Fault:
    fault = Fault(b"\n")  # nothing that a client can send as a line
    fault.reply = reply
    return fault


_TOO_LONG: Final = _fault(LINE_TOO_LONG)
_FAR_TOO_LONG: Final = _fault(LINE_FAR_TOO_LONG)
_BARE_LF: Final = _fault(BARE_LF)
_NOT_SMTP: Final = _fault(NOT_SMTP)


class LineReader:
    """Cuts what the client sends into command lines.

    Args:
        limit: octets of a line, CR LF included; a longer line is dropped to its end.
        discard_limit: octets after which an overlong line ends the session.
        lenient: whether a bare LF ends a line too (`bare_newline = normalize`).

    Attributes:
        lines: the complete lines that nobody has taken yet, without CR LF; a `Fault` stands for one that is gone.
    """

    __slots__ = ("_discard_limit", "_dropped", "_lenient", "_limit", "_odd", "_tail", "lines")

    def __init__(self, limit: int, discard_limit: int, lenient: bool) -> None:
        self._limit = limit
        self._discard_limit = discard_limit
        self._lenient = lenient
        self.lines: Iterator[bytes] = iter(())
        self._tail = b""  # of a line whose end is not there yet
        self._dropped = 0  # octets of that line that are gone already
        self._odd = lenient  # whether a plain split is not enough: lenient, or there is a tail

    def feed(self, octets: bytes) -> None:
        """Take what one read brought; all earlier lines must have been taken."""
        lines = octets.split(b"\r\n")
        if self._odd or lines.pop() or len(octets) > self._limit:
            lines = self._feed_oddly(octets)
        self.lines = iter(lines)

    def _feed_oddly(self, octets: bytes) -> list[bytes]:
        """There is an unfinished line in front or at the end, or one that may be too long."""
        octets = self._tail + octets
        lines = _ANY_END.split(octets) if self._lenient else octets.split(b"\r\n")
        self._tail = lines.pop()
        self._measure(lines)
        if self._tail:
            self._judge_unfinished(self._tail, lines)
        self._odd = self._lenient or bool(self._tail)
        return lines

    def take_rest(self) -> bytes:
        """Hand out everything that was not taken as a line, as it came, and forget it."""
        rest = b"\r\n".join([*self.lines, self._tail])
        self._tail = b""
        self._odd = self._lenient
        return rest

    @property
    def in_line(self) -> bool:
        """Whether there is a line, or a part of one, that nobody has taken."""
        return bool(self._tail or self._dropped or self.lines.__length_hint__())  # type: ignore[attr-defined]

    def _measure(self, lines: list[bytes]) -> None:
        """Put faults in the place of overlong lines. The first one's beginning may be gone."""
        for index, line in enumerate(lines):
            length = len(line) + self._dropped
            if length + 2 > self._limit:
                stray = line.find(b"\n")
                if line[:1] == _TLS_HANDSHAKE and not self._dropped:
                    lines[index] = _NOT_SMTP
                elif 0 <= stray < self._discard_limit - self._dropped:
                    lines[index] = _BARE_LF
                else:
                    lines[index] = _FAR_TOO_LONG if length + 1 > self._discard_limit else _TOO_LONG
            self._dropped = 0

    def _judge_unfinished(self, tail: bytes, lines: list[bytes]) -> None:
        """Look at the beginning of a line: some faults need no end of it."""
        length = len(tail) + self._dropped
        stray = tail.find(b"\n")
        if tail[:1] == _TLS_HANDSHAKE and not self._dropped:
            lines.append(_NOT_SMTP)
        elif 0 <= stray < self._discard_limit - self._dropped:
            lines.append(_BARE_LF)
        elif length > self._discard_limit:
            lines.append(_FAR_TOO_LONG)
        elif length > self._limit:  # its last octet may be the CR of its end
            self._dropped = length - 1
            self._tail = tail[-1:]
