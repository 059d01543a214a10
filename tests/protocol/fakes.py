"""What stands in for files."""

from __future__ import annotations

import errno


class FakeFile:
    """A `SpillFile` in memory.

    Args:
        room: octets after which the device is full; None has no end.
    """

    def __init__(self, room: int | None = None) -> None:
        self.octets = bytearray()
        self.writes = 0
        self.closed = False
        self._room = room

    def write(self, octets: memoryview) -> None:
        """Append."""
        assert not self.closed
        self.writes += 1
        if self._room is not None and len(self.octets) + len(octets) > self._room:
            raise OSError(errno.ENOSPC, "no space left on device")
        self.octets += octets

    def view(self) -> memoryview:
        """Everything written."""
        return memoryview(bytes(self.octets)).toreadonly()

    def close(self) -> None:
        """Close it."""
        self.closed = True
