"""How long the event loop waits for its turn while every thread of the worker burns CPU in hooks of 5 ms."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from loadtest.chaos.load import Load
from tests.server.running import running

APP = "loadtest.chaos.apps:Burning"
_PAUSE = 0.005  # seconds between two NOOPs


@dataclass
class Switching:
    """Latency of NOOP in milliseconds, and messages in a second."""

    median: float
    p99: float
    rate: float


def measure(directory: Path, seconds: float, interval: float | None = None, sessions: int = 24) -> Switching:
    """With this `switch_interval`, or its default."""
    arguments = (APP, *([f"--switch-interval={interval}"] if interval else []), "--threads=8", "--max-loop-lag=10")
    with (
        running(directory, *arguments, "--max-junk-commands=1000000") as server,
        Load(server.host_and_port, sessions) as load,
        server.greeted() as client,
    ):
        time.sleep(1)  # all threads are at work then; nothing is measured yet
        taken, before, began = [], load.delivered, time.monotonic()
        while time.monotonic() < began + seconds:
            asked = time.perf_counter()
            client.ask("NOOP", "250")
            taken.append(time.perf_counter() - asked)
            time.sleep(_PAUSE)
        rate = (load.delivered - before) / (time.monotonic() - began)
        assert load.stop().failed == []
    percentiles = quantiles(taken, n=100)
    return Switching(percentiles[49] * 1000, percentiles[98] * 1000, rate)
