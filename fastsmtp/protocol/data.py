"""The text behind DATA: where it ends, and the dots in front of its lines (RFC 5321 4.1.1.4, 4.5.2).

Only CR LF . CR LF ends the text, with the first CR LF implied before the first octet. CVE-2023-51764 and its kin are
readers that take something else for that end, or look for it at a place that depends on segments. Here the search runs
over the octets as received, each looked at once: behind a read only those octets stay uncommitted that could be the
beginning of CR LF . CR LF, so that no match is ever cut in two.
"""

from __future__ import annotations

from typing import Final

from .content import Content
from .scan import find

_END: Final = b"\r\n.\r\n"
_DOT_IN_FRONT: Final = b"\r\n."
_BEGINNINGS: Final = tuple(_END[:length] for length in range(len(_END) - 1, 0, -1))


class DataReader:
    """Reads one message's text into its content.

    Attributes:
        content: what was read.
        done: whether the end was seen.
    """

    __slots__ = ("content", "done")

    def __init__(self, content: Content) -> None:
        self.content = content
        self.done = False

    @property
    def arrived(self) -> int:
        """Octets so far."""
        return self.content.size

    def room(self) -> memoryview:
        """Where to put the next octets."""
        return self.content.room()

    def received(self, length: int) -> bytes:
        """`length` octets were put into the room.

        Returns:
            What came behind the end of the text: the next commands.

        Raises:
            SMTPError: the message is so large that the connection is given up.
        """
        content = self.content
        start = content.clean
        content.filled = filled = content.filled + length
        view = content.view
        region = view[start:filled]
        # Hot path: few texts have a line with a dot in front, so that one search finds the end, or nothing at all.
        dot = find(region, _DOT_IN_FRONT)
        position = dot if dot < 0 or bytes(region[dot : dot + len(_END)]) == _END else find(region, _END)
        if position < 0:
            end = filled - _unfinished(bytes(view[max(start, filled - 4) : filled]))
            content.commit(end if dot < 0 else content.remove_dots(end))
            return b""
        self.done = True
        end = start + position + 2
        surplus = bytes(view[end + 3 : filled])
        content.filled = end
        content.commit(end if position == dot else content.remove_dots(end))
        return surplus


def _unfinished(tail: bytes) -> int:
    """How many octets at the end of `tail` may be the beginning of the end of the text."""
    for beginning in _BEGINNINGS:
        if tail.endswith(beginning):
            return len(beginning)
    return 0
