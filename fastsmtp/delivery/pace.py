"""How fast one destination gets mail."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Final

_REMEMBERED: Final = 10_000  # destinations


class Pace:
    """Keeps messages for one destination apart. It counts for one process.

    Args:
        per_minute: messages a minute and destination; 0: as many as come.
    """

    def __init__(self, per_minute: float) -> None:
        self._apart = 60.0 / per_minute if per_minute else 0.0
        self._next: OrderedDict[str, float] = OrderedDict()  # by the monotonic clock

    async def wait(self, destination: str) -> None:
        """Returns when it is this message's turn."""
        if not self._apart:
            return
        now = time.monotonic()
        turn = max(now, self._next.get(destination, now))
        self._next[destination] = turn + self._apart
        self._next.move_to_end(destination)
        if len(self._next) > _REMEMBERED:
            self._next.popitem(last=False)
        await asyncio.sleep(turn - now)
