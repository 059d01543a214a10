"""How many threads may be awake while hooks compute."""

from __future__ import annotations

import pytest

from fastsmtp.server.crowd import Crowd

FULL, IDLE, NOBODY, PARALLEL = (1.0, True), (0.3, True), (0.3, False), (1.9, True)


@pytest.mark.parametrize(
    ("looks", "allowed"),
    [
        ([FULL], 16),
        ([FULL] * 4, 2),
        ([FULL] * 9, 1),
        ([FULL, FULL, NOBODY], 8),  # nothing to do: that says nothing
        ([FULL, FULL, IDLE], 16),  # eight only waited, while others could have worked
        ([FULL, FULL, IDLE, FULL, FULL, FULL], 16),  # that was seen once, and is not tried again
        ([FULL] * 9 + [IDLE] * 9, 32),
        ([PARALLEL] * 9, 32),  # they do not need the interpreter
        ([FULL, PARALLEL], 32),
    ],
)
def test_how_many(looks: list[tuple[float, bool]], allowed: int) -> None:
    crowd = Crowd(32)
    assert [crowd.judge(*look) for look in looks][-1] == allowed


def test_one_thread_stays_one() -> None:
    crowd = Crowd(1)
    assert [crowd.judge(*look) for look in (FULL, IDLE, FULL)] == [1, 1, 1]
