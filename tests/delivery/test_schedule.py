"""When a message is tried again, and when not any more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.delivery.schedule import Schedule
from fastsmtp.protocol.envelope import DeliverBy, Sender

NOW, DAY = 1_700_000_000.0, 86400.0
PLAIN = Sender("a", "b.example")


def test_waits_double_up_to_the_longest() -> None:
    schedule = Schedule()
    waits = [schedule.next(attempts, NOW, NOW + 5 * DAY, 0.5) - NOW for attempts in range(1, 9)]
    assert waits == [300, 600, 1200, 2400, 4800, 9600, 14400, 14400]


@given(st.integers(1, 1000), st.floats(0, 1), st.floats(1, 5 * DAY))
def test_the_next_attempt_is_later_and_not_behind_the_end(attempts: int, chance: float, left: float) -> None:
    at = Schedule().next(attempts, NOW, NOW + left, chance)
    assert NOW < at <= NOW + max(left, 1.0)
    assert at - NOW <= 14400 * 1.2


def test_all_attempts_of_five_days() -> None:
    schedule, now, attempts = Schedule(), NOW, 0
    expires = schedule.expires(NOW, PLAIN)
    while now < expires:
        attempts += 1
        now = schedule.next(attempts, now, expires, 0.5)
    assert (now, attempts) == (expires, 35)  # the last one, at the very end, is the 36th


@pytest.mark.parametrize(
    ("by", "expires", "notice"),
    [
        (None, 5 * DAY, 14400),
        (DeliverBy(120, "R", False), 120, 14400),
        (DeliverBy(999_999_999, "R", True), 5 * DAY, 14400),
        (DeliverBy(120, "N", False), 5 * DAY, 120),
        (DeliverBy(-5, "N", False), 5 * DAY, 0),
    ],
)
def test_the_sender_may_be_in_a_hurry(by: DeliverBy | None, expires: float, notice: float) -> None:
    sender = Sender("a", "b.example", deliver_by=by)
    schedule = Schedule()
    assert schedule.expires(NOW, sender) - NOW == expires
    assert schedule.notice_due(NOW, sender) - NOW == notice
