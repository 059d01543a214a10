"""Load shapes: how many users there are at which time.

Each is a function from the share of the run that is over, 0 to 1, to a share of the users. So a shape means the same
for a minute and for a day. Two of them differ in pace, not in numbers: without --rate users are closed-loop, each
sends its next message when the one before is done, and a slow server slows them down. With --rate they keep to a
schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

_STEPS = 5
_SPIKE = (0.4, 0.6)  # of the run
_QUIET = 0.2  # of the users, before and behind the spike
_SOAK_RAMP = 0.05  # of the run


def ramp(at: float) -> float:
    """From none to all, and there at four fifths of the run."""
    return min(1.0, at / 0.8)


def steps(at: float) -> float:
    """Five steps of one height: each shows what the server does at that load."""
    return min(_STEPS, math.floor(at * _STEPS) + 1) / _STEPS


def spike(at: float) -> float:
    """A fifth of the users, all of them for a fifth of the time, a fifth again: does the server come back?"""
    return 1.0 if _SPIKE[0] <= at < _SPIKE[1] else _QUIET


def soak(at: float) -> float:
    """All users for nearly all the time: what leaks or fills up?"""
    return min(1.0, at / _SOAK_RAMP)


def closed(at: float) -> float:
    """All users at once, each as fast as the server answers."""
    return 1.0


def constant_throughput(at: float) -> float:
    """All users at once, on a schedule: --rate messages a second, however long each takes."""
    return 1.0


PROFILES: Mapping[str, Callable[[float], float]] = {
    "closed": closed,
    "constant-throughput": constant_throughput,
    "ramp": ramp,
    "steps": steps,
    "spike": spike,
    "soak": soak,
}
