"""What happened between two looks at ``/status``: rates, and quantiles of what was counted in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

Status = dict[str, Any]


def quantile(bounds: Sequence[float], buckets: Sequence[int], share: float) -> float | None:
    """The value below which this share lies of what the buckets hold.

    Linear within a bucket, as Prometheus has it; of what is above all bounds only the last bound is known.

    Args:
        bounds: of the buckets, ascending.
        buckets: how many values each holds; one more than there are bounds.
        share: 0 to 1.

    Returns:
        The value, in the unit of the bounds; None where nothing was counted.
    """
    wanted = share * sum(buckets)
    if not wanted:
        return None
    below = 0
    for index, bound in enumerate(bounds):
        within = buckets[index]
        if within and below + within >= wanted:
            lower = bounds[index - 1] if index else 0.0
            return lower + (bound - lower) * (wanted - below) / within
        below += within
    return bounds[-1]


class Interval:
    """Two looks at one server.

    Args:
        before: the earlier one.
        after: the later one.
    """

    def __init__(self, before: Status, after: Status) -> None:
        self.before: Final = before
        self.after: Final = after
        self.seconds: Final[float] = max(1e-3, after["clock_seconds"] - before["clock_seconds"])

    @property
    def is_of_one_server(self) -> bool:
        """Whether no restart lies between them: else nothing here means anything."""
        return bool(self.before["pid"] == self.after["pid"] and self.before["started"] == self.after["started"])

    def rate(self, name: str, label: str | None = None, worker: int | None = None) -> float:
        """How often a second something was counted; of a counter with labels under one, or under all."""
        return self._difference(name, label, worker) / self.seconds

    def quantile(self, name: str, share: float) -> float | None:
        """A quantile of a histogram's values in the interval, None if there were none."""
        now, then = self.after["totals"][name], self.before["totals"][name]
        buckets = [later - earlier for later, earlier in zip(now["buckets"], then["buckets"], strict=True)]
        return quantile(now["bounds"], buckets, share)

    def counted(self, name: str) -> list[tuple[str, int, int]]:
        """Each label of a counter: how often in the interval, how often ever; most first."""
        now, then = self.after["totals"][name], self.before["totals"][name]
        rows = [(label, count - then.get(label, 0), count) for label, count in now.items() if count]
        return sorted(rows, key=lambda row: (-row[1], -row[2]))

    def _difference(self, name: str, label: str | None, worker: int | None) -> float:
        later, earlier = (_count(_totals(each, worker).get(name, 0), label) for each in (self.after, self.before))
        return max(0.0, later - earlier)  # a slot that was added has counted nothing before


def _totals(status: Status, worker: int | None) -> dict[str, Any]:
    if worker is None:
        found: dict[str, Any] = status["totals"]
        return found
    return next((each["totals"] for each in status["workers"] if each["worker"] == worker), {})


def _count(counted: float | dict[str, int], label: str | None) -> float:
    if not isinstance(counted, dict):
        return counted
    return float(sum(counted.values()) if label is None else counted.get(label, 0))
