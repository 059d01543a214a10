"""How long the event loop waits for its turn while every thread of the worker burns CPU in hooks of 5 ms."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from loadtest.chaos.load import Load
from tests.server.running import ROOT, running

APP = "loadtest.chaos.apps:Burning"


class Switching(NamedTuple):
    """Latency of NOOP in milliseconds, and messages in a second."""

    median: float
    p99: float
    rate: float


def compare(directories: Sequence[Path], seconds: float, interval: float) -> tuple[Switching, Switching]:
    """What the server chooses, and another interval: a round in each directory, by turns; the median of the rounds."""
    ours, others = [], []
    for directory in directories:
        others.append(measure(directory / "other", seconds, interval))
        ours.append(measure(directory / "ours", seconds))
    return Switching(*map(median, zip(*ours, strict=True))), Switching(*map(median, zip(*others, strict=True)))


def measure(directory: Path, seconds: float, interval: float | None = None, sessions: int = 24) -> Switching:
    """With this `switch_interval`, or its default."""
    directory.mkdir()
    arguments = (APP, *([f"--switch-interval={interval:.6f}"] if interval else []), "--threads=8", "--max-loop-lag=10")
    with (
        running(directory, *arguments, "--max-junk-commands=1000000") as server,
        Load(server.host_and_port, sessions) as load,
    ):
        time.sleep(3)  # all threads are at work then, and the worker has seen it
        before, began = load.delivered, time.monotonic()
        command = [sys.executable, "-m", "loadtest.chaos.pinging", *map(str, server.host_and_port), str(seconds)]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, check=True, timeout=seconds + 30)
        rate = (load.delivered - before) / (time.monotonic() - began)
        assert load.stop().failed == []
    taken = json.loads(done.stdout)
    percentiles = quantiles(taken, n=100)
    return Switching(percentiles[49] * 1000, percentiles[98] * 1000, rate)
