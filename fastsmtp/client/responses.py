"""What the next hop answers (RFC 5321 4.2): read without I/O, and made fit to be said again.

What a stranger's server says is neither trusted nor kept whole: lines and replies have a greatest length, and nothing
but printable ASCII gets any further.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from fastsmtp.protocol.replies import MAX_REPLY_LINE, Reply

from .errors import TransferError

MAX_LINE: Final = 4096  # octets; RFC 5321 4.5.3.1.5 says 512, and some say more
MAX_LINES: Final = 256  # of one reply; an EHLO has about 20
_MAX_TEXT: Final = 800  # characters
_KEPT_LINES: Final = 8  # of a reply that is passed on
_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.S)  # RFC 5321 4.2: the text may be missing
_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: +|$)", re.A)  # RFC 2034 4
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Response:
    """One reply of the next hop, or what we say in its place.

    Attributes:
        code: 200 to 599.
        enhanced: the enhanced status code (RFC 3463), None if there is none that fits.
        lines: the text, printable ASCII, without code and enhanced code.
        local: nobody said so: we found it out ourselves.
    """

    code: int
    enhanced: str | None
    lines: tuple[str, ...]
    local: bool = False

    @property
    def is_ok(self) -> bool:
        return self.code < 300

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500

    @property
    def text(self) -> str:
        """In one line that fits into a line of a report (RFC 5322 2.1.1)."""
        return " ".join(self.lines)[:_MAX_TEXT]

    @property
    def status(self) -> str:
        """An enhanced status code in any case (RFC 3464 2.3.4)."""
        return self.enhanced or f"{4 if 300 <= self.code < 400 else self.code // 100}.0.0"

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))

    def reply(self) -> Reply:
        """The same as a reply of ours: codes that only a server says of itself become codes that say it of mail."""
        code = _own_code(self.code)
        enhanced = self.enhanced if self.enhanced and int(self.enhanced[0]) == code // 100 else f"{code // 100}.0.0"
        room = MAX_REPLY_LINE - len(f"{code} {enhanced} \r\n")
        text = "\n".join(line[:room] for line in self.lines[:_KEPT_LINES])
        return Reply(code, enhanced, text)


def _own_code(code: int) -> int:
    if code in (421, 521) or not 200 <= code <= 559 or code // 100 == 3:
        return 554 if code >= 500 else 451
    return code


def local_response(code: int, enhanced: str, text: str) -> Response:
    """What nobody said."""
    return Response(code, enhanced, (text,), local=True)


class ResponseParser:
    """Makes replies of octets, however these are cut."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._lines: list[tuple[int, str]] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing was received that is not part of a reply taken already."""
        return not self._octets and not self._lines

    def feed(self, octets: bytes) -> None:
        self._octets += octets

    def next(self) -> Response | None:
        """The next reply, None if it is not complete.

        Raises:
            TransferError: it is no reply, or an endless one.
        """
        while (end := self._octets.find(b"\n")) >= 0:
            line = bytes(self._octets[:end]).removesuffix(b"\r")
            del self._octets[: end + 1]
            if self._take(line):
                lines, self._lines = self._lines, []
                return _response(lines)
        if len(self._octets) > MAX_LINE:
            raise TransferError("the next hop sends a line without end")
        return None

    def _take(self, line: bytes) -> bool:
        """Keeps a line; whether it is the last of its reply."""
        match = _LINE.fullmatch(line)
        if match is None or len(line) > MAX_LINE:
            raise TransferError(f"the next hop sent no SMTP reply: {_printable(line[:80])!r}")
        code = int(match[1])
        if self._lines and self._lines[0][0] != code:  # RFC 5321 4.2.1: all lines have the same
            raise TransferError("the next hop sent a reply with two codes")
        self._lines.append((code, _printable(match[3] or b"")))
        if len(self._lines) > MAX_LINES:
            raise TransferError("the next hop sent a reply without end")
        return match[2] != b"-"


def _printable(octets: bytes) -> str:
    return _UNPRINTABLE.sub("?", octets.decode("ascii", "replace"))


def _response(lines: list[tuple[int, str]]) -> Response:
    code = lines[0][0]
    found = _ENHANCED.match(lines[0][1])
    enhanced = found[1] if found and int(found[1][0]) == code // 100 else None
    texts = [_ENHANCED.sub("", text, count=1) if enhanced and _ENHANCED.match(text) else text for _, text in lines]
    return Response(code, enhanced, tuple(texts))
