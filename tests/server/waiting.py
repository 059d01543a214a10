"""Waiting for conditions: a test never sleeps to be right, it looks again until a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_INTERVAL = 0.005  # seconds between two looks


def until(condition: Callable[[], T], what: str = "a condition", seconds: float = 10.0) -> T:
    """Returns the condition's value as soon as it is true.

    Raises:
        AssertionError: it was not within the time.
    """
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= end:
            raise AssertionError(f"{what}: not within {seconds:g} s, but {found!r}")
        time.sleep(_INTERVAL)
