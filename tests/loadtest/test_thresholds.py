"""What a run is judged by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.smtp_users.thresholds import Outcome, Thresholds

GOOD = Outcome(messages=1000, failed_steps=0, p95_ms=10.0, p99_ms=20.0, messages_per_second=100.0, generator_cpu=50.0)
STRICT = Thresholds(p95_ms=10, p99_ms=20, failed_share=0.01, messages_per_second=100, generator_cpu=50)


def test_limits_may_be_reached() -> None:
    assert STRICT.missed_by(GOOD) == []


@pytest.mark.parametrize(
    ("outcome", "missed"),
    [
        (replace(GOOD, p95_ms=11.0), "p95 of messages: 11 ms, at most 10"),
        (replace(GOOD, p99_ms=21.0), "p99 of messages: 21 ms, at most 20"),
        (replace(GOOD, failed_steps=11), "failed steps for each message: 0.011, at most 0.01"),
        (replace(GOOD, messages_per_second=99.0), "messages/s: 99, at least 100"),
        (replace(GOOD, generator_cpu=51.0), "CPU of a generator: 51 %, at most 50"),
        (replace(GOOD, messages=0), "no message was sent"),
    ],
)
def test_each_limit_is_told(outcome: Outcome, missed: str) -> None:
    assert STRICT.missed_by(outcome) == [missed]


def test_by_default_no_step_may_fail() -> None:
    assert Thresholds().missed_by(replace(GOOD, p99_ms=60_000.0)) == []
    assert Thresholds().missed_by(replace(GOOD, failed_steps=1)) != []
