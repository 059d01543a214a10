"""Rows of Locust's report: one for each step of the dialogue, and one for the message as a whole.

Two ways to fill them. `EventRows` fires Locust's request event for each step: whoever listens sees every one. That
costs 5.9 us of CPU a step, 30 us a message; batches cost 0.5 us a step. `BatchedRows` keeps the times of successful
steps in lists, and adds them up in Locust's statistics twice a second. Nothing is sampled: counts, sums, minima,
maxima and percentiles are those that events would have given. What differs: a step counts for the second in which the
batch was added, at most half a second late, and listeners of the request event see failures only.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from locust.env import Environment
from locust.stats import RequestStats, StatsEntry, bucket_response_time

from .steps import METHOD, ROWS

FLUSH_INTERVAL: Final = 0.5  # seconds


class Rows(Protocol):
    """Where users write down how their steps went."""

    def took(self, row: str, seconds: float, octets: int = 0) -> None:
        """A step succeeded."""

    def failed(self, row: str, seconds: float, error: Exception) -> None:
        """A step failed."""


class EventRows:
    """Fires Locust's request event for each step.

    Args:
        environment: Locust's.
    """

    def __init__(self, environment: Environment) -> None:
        self._fire: Callable[..., None] = environment.events.request.fire

    def took(self, row: str, seconds: float, octets: int = 0) -> None:
        self._fire(
            request_type=METHOD,
            name=row,
            response_time=seconds * 1000,
            response_length=octets,
            exception=None,
            context={},
        )

    def failed(self, row: str, seconds: float, error: Exception) -> None:
        self._fire(
            request_type=METHOD,
            name=row,
            response_time=seconds * 1000,
            response_length=0,
            exception=error,
            context={},
        )


class BatchedRows:
    """Adds up successful steps; each failure is an event.

    Args:
        environment: Locust's.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._events = EventRows(environment)
        self._times: dict[str, list[float]] = {row: [] for row in ROWS}
        self._octets = dict.fromkeys(ROWS, 0)
        self.seconds_of = {
            row: times.append for row, times in self._times.items()
        }  # Hot path: no call of ours per step

    def took(self, row: str, seconds: float, octets: int = 0) -> None:
        self._times[row].append(seconds)
        self._octets[row] += octets

    def failed(self, row: str, seconds: float, error: Exception) -> None:
        self._events.failed(row, seconds, error)

    def flush(self) -> None:
        """Add what has gathered to Locust's statistics. To be called every `FLUSH_INTERVAL`, and at the end."""
        for row, times in self._times.items():
            if times:
                _add(self._environment.stats, row, times, self._octets[row])
                times.clear()
                self._octets[row] = 0


def _add(stats: RequestStats, row: str, seconds: list[float], octets: int) -> None:
    """The same as `stats.log_request` for each, in one go."""
    times = [each * 1000 for each in seconds]
    now = time.time()
    batch = StatsEntry(stats, row, METHOD)
    batch.num_requests = len(times)
    batch.num_reqs_per_sec[int(now)] = len(times)
    batch.last_request_timestamp = now
    batch.total_response_time = sum(times)  # type: ignore[arg-type]  # Locust says int, and adds floats itself
    batch.min_response_time = min(times)  # type: ignore[assignment]
    batch.max_response_time = max(times)  # type: ignore[assignment]
    batch.response_times.update(Counter(map(bucket_response_time, times)))
    batch.total_content_length = octets
    stats.entries[row, METHOD].extend(batch)
    stats.total.extend(batch)
