"""Command lines (RFC 5321 2.3.8, 4.5.3.1.4).

Guarantees: only CR LF ends a line; a verdict never depends on how the octets were cut into reads; of an overlong line
no more than its last octet is kept; a fault that makes the stream untrustworthy is reported as soon as its octets are
there, without waiting for a line end.
"""

from __future__ import annotations

from .replies import BARE_LF, LINE_FAR_TOO_LONG, LINE_TOO_LONG, NOT_SMTP, SMTPError

_CR = 13
_TLS_HANDSHAKE = 0x16  # the first octet of a ClientHello: the client took this for a TLS port


class LineReader:
    """Cuts what the client sends into command lines.

    Args:
        limit: octets of a line, CR LF included; a longer line is dropped to its end.
        discard_limit: octets after which an overlong line ends the session.
        lenient: whether a bare LF ends a line too (`bare_newline = normalize`).
    """

    __slots__ = ("_data", "_discard_limit", "_dropped", "_lenient", "_limit", "_start")

    def __init__(self, limit: int, discard_limit: int, lenient: bool) -> None:
        self._limit = limit
        self._discard_limit = discard_limit
        self._lenient = lenient
        self._data = b""
        self._start = 0  # of the unread octets in _data
        self._dropped = 0  # octets of an overlong line that are gone already

    def feed(self, data: bytes) -> None:
        """Add what one read brought."""
        rest = self._data[self._start :]
        self._data = rest + data if rest else data
        self._start = 0

    def take_rest(self) -> bytes:
        """Hand out everything that has not been read as a line, and forget it."""
        rest = self._data[self._start :]
        self._data = b""
        self._start = 0
        return rest

    @property
    def in_line(self) -> bool:
        """Whether a part of a line waits for its end."""
        return self._start < len(self._data) or self._dropped > 0

    def next_line(self) -> bytes | None:
        """The next line without its CR LF; None if it is not complete yet.

        Raises:
            SMTPError: the line was overlong (it is gone, the stream goes on), or its reply closes the connection.
        """
        data, start = self._data, self._start
        end = data.find(b"\n", start)
        if end < 0:
            if start < len(data):
                self._keep_unfinished()
            return None
        if end > start and data[end - 1] == _CR:
            line_end = end - 1
        elif self._lenient:
            line_end = end
        else:
            raise SMTPError(NOT_SMTP if data[start] == _TLS_HANDSHAKE else BARE_LF)
        self._start = end + 1
        length = end + 1 - start + self._dropped
        if length > self._limit:
            self._dropped = 0
            raise SMTPError(LINE_FAR_TOO_LONG if length > self._discard_limit else LINE_TOO_LONG)
        return data[start:line_end]

    def _keep_unfinished(self) -> None:
        """Look at the beginning of a line whose end is not there yet."""
        rest = self.take_rest()
        if rest[0] == _TLS_HANDSHAKE and not self._dropped:
            raise SMTPError(NOT_SMTP)
        length = len(rest) + self._dropped
        if length > self._discard_limit:
            raise SMTPError(LINE_FAR_TOO_LONG)
        if length > self._limit:  # its last octet may be the CR of its end
            self._dropped = length - 1
            rest = rest[-1:]
        self._data = rest
