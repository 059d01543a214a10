"""A sentence that the master tells whoever reads the scoreboard: why the last reload was given up."""

from __future__ import annotations

import mmap
from typing import Final

_ROOM: Final = 1024  # octets of a page: two for the length, the rest for the text


class Notice:
    """A text in memory that all processes share; made by the master before it forks, and written by it alone.

    There are two pages. The one that is not shown is written, then shown, so that no reader sees half a text unless
    the master writes twice while it reads.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 + 2 * _ROOM)  # the first octet: which page is shown

    def write(self, text: str) -> None:
        """Show another text; what is too long for a page is cut."""
        shown = 1 - self._memory[0]
        octets = text.encode()[: _ROOM - 2]
        page = 1 + shown * _ROOM
        self._memory[page : page + 2 + len(octets)] = len(octets).to_bytes(2) + octets
        self._memory[0] = shown

    def read(self) -> str:
        """The text that is shown; at first none."""
        page = 1 + self._memory[0] * _ROOM
        length = int.from_bytes(self._memory[page : page + 2])
        return self._memory[page + 2 : page + 2 + length].decode(errors="replace")
