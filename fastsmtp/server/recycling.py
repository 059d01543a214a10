"""Replacing workers that have served long enough: by connections, by age, by memory.

It is a means against what leaks in an application. The master looks once a second, so a limit is met within a second,
not to the connection. The successor is ready before the old worker leaves, and sessions go on as in a reload.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..config import Config
from .children import Child, Phase
from .columns import CONNECTIONS, RSS_BYTES
from .scoreboard import Scoreboard

_LEAST_AGE: Final = 10.0  # seconds; who needs more memory than allowed from the start is not replaced in a storm
_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one worker may use until it is replaced.

    Attributes:
        connections: where the count of its row may come.
        until: by the monotonic clock.
        rss: octets.
        calm: when memory is looked at for the first time.
    """

    connections: float
    until: float
    rss: float
    calm: float

    @classmethod
    def of(cls, config: Config, cells: Sequence[int], now: float) -> Allowance:
        """That of a worker which begins now, with this row; jitter keeps workers from leaving all at once."""
        spread = random.randint(0, config.max_requests_jitter)
        later = random.uniform(0, config.max_lifetime_jitter)
        return cls(
            cells[CONNECTIONS] + config.max_requests + spread if config.max_requests else _NEVER,
            now + config.max_lifetime + later if config.max_lifetime else _NEVER,
            config.max_rss or _NEVER,
            now + _LEAST_AGE,
        )

    def used_up(self, cells: Sequence[int], now: float) -> str | None:
        """Why the worker is to be replaced; None if it is not."""
        if cells[CONNECTIONS] >= self.connections:
            return "max_requests"
        if now >= self.until:
            return "max_lifetime"
        if cells[RSS_BYTES] >= self.rss and now >= self.calm:
            return f"max_rss, with {cells[RSS_BYTES] / 2**20:.0f} MiB"
        return None


class Recycling:
    """The allowances of all workers."""

    def __init__(self) -> None:
        self._allowances: dict[int, Allowance] = {}  # by pid

    def begin(self, pid: int, config: Config, cells: Sequence[int], now: float) -> None:
        """A worker begins, with this row."""
        self._allowances[pid] = Allowance.of(config, cells, now)

    def end(self, pid: int) -> None:
        """A process has ended."""
        self._allowances.pop(pid, None)

    def used_up(self, children: Iterable[Child], scoreboard: Scoreboard, now: float) -> Iterator[tuple[Child, str]]:
        """The workers that are to be replaced, and why."""
        for child in children:
            allowance = self._allowances.get(child.pid)
            if child.phase is not Phase.READY or allowance is None or now < child.recycle_at:
                continue
            if reason := allowance.used_up(scoreboard.cells_of(child.row), now):
                yield child, reason
