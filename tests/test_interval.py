"""What two looks at a server tell: rates, quantiles, lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.interval import Interval, Status, quantile

BOUNDS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ((0, 0, 0, 0), 0.5, None),
        ((10, 0, 0, 0), 0.5, 0.5),
        ((0, 10, 0, 0), 0.5, 1.5),
        ((5, 5, 0, 0), 0.5, 1.0),
        ((5, 0, 5, 0), 0.75, 3.0),
        ((0, 0, 0, 1), 0.5, 4.0),  # all that is known
        ((99, 0, 0, 1), 0.99, 1.0),
    ],
)
def test_quantile(buckets: tuple[int, ...], share: float, expected: float | None) -> None:
    assert quantile(BOUNDS, buckets, share) == expected


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_that_holds_it(buckets: list[int], share: float) -> None:
    found = quantile(BOUNDS, buckets, share)
    if found is None:
        assert not any(buckets)
        return
    values = [upper for upper, count in zip((*BOUNDS, 4.0), buckets, strict=True) for _ in range(count)]
    wanted = next(value for place, value in enumerate(values, 1) if place >= share * len(values) - 1e-9)
    assert found <= wanted


def look(clock: float, messages: int, octets: int, refusals: dict[str, int], cpu: float, pid: int = 1) -> Status:
    totals = {
        "messages": {"accepted": messages, "refused": 0},
        "message_bytes": octets,
        "refusals": refusals,
        "message_seconds": {"bounds": list(BOUNDS), "buckets": [messages, 0, 0, 0]},
    }
    workers = [{"worker": 0, "totals": {"cpu_seconds": cpu, "connections": 0}}]
    return {"clock_seconds": clock, "pid": pid, "started": 5, "totals": totals, "workers": workers}


def test_rates() -> None:
    interval = Interval(look(10, 100, 1000, {}, 1.0), look(12, 150, 5000, {}, 1.5))
    assert interval.rate("messages", "accepted") == 25
    assert interval.rate("messages") == 25
    assert interval.rate("message_bytes") == 2000
    assert interval.rate("cpu_seconds", None, 0) == 0.25
    assert interval.rate("cpu_seconds", None, 7) == 0  # a worker that there is not
    assert interval.quantile("message_seconds", 0.5) == 0.5
    assert interval.is_of_one_server
    assert not Interval(look(1, 0, 0, {}, 0), look(2, 0, 0, {}, 0, pid=2)).is_of_one_server


def test_lists_begin_with_what_happened_most_lately() -> None:
    interval = Interval(look(1, 0, 0, {"a": 5, "b": 1}, 0), look(2, 0, 0, {"a": 6, "b": 4, "c": 1}, 0))
    assert interval.counted("refusals") == [("b", 3, 4), ("a", 1, 6), ("c", 1, 1)]
