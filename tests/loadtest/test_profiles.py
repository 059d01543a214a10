"""Load shapes over the time of a run."""

from __future__ import annotations

import pytest

from loadtest.smtp_users.profiles import PROFILES, ramp, soak, spike, steps

TIMES = [number / 100 for number in range(100)]


@pytest.mark.parametrize("name", PROFILES)
def test_no_shape_has_more_than_all_users_or_less_than_none(name: str) -> None:
    assert all(0 <= PROFILES[name](at) <= 1 for at in TIMES)
    assert max(PROFILES[name](at) for at in TIMES) == 1


def test_a_ramp_never_goes_down() -> None:
    assert [ramp(at) for at in TIMES] == sorted(ramp(at) for at in TIMES)
    assert (ramp(0.0), ramp(0.4), ramp(0.8)) == (0.0, 0.5, 1.0)


def test_steps_are_five_of_one_height() -> None:
    assert sorted({steps(at) for at in TIMES}) == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert [steps(at) for at in (0.0, 0.19, 0.2, 0.99)] == [0.2, 0.2, 0.4, 1.0]


def test_a_spike_is_over_again() -> None:
    assert [spike(at) for at in (0.0, 0.39, 0.4, 0.59, 0.6, 0.99)] == [0.2, 0.2, 1.0, 1.0, 0.2, 0.2]


def test_a_soak_is_nearly_all_the_time_at_the_top() -> None:
    assert sum(soak(at) == 1 for at in TIMES) >= 95


@pytest.mark.parametrize("name", ["closed", "constant-throughput"])
def test_those_that_differ_in_pace_only(name: str) -> None:
    assert {PROFILES[name](at) for at in TIMES} == {1.0}
