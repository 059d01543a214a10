"""CPU for a message with one worker and with two: what workers share must not cost anything."""

from __future__ import annotations

import time
from pathlib import Path

from loadtest.chaos.load import Load
from tests.server.processes import children_of, cpu_seconds
from tests.server.running import running

APP = "loadtest.bench_app:AsyncHooks"


def cost(directory: Path, workers: int, seconds: float, sessions: int = 16) -> float:
    """Microseconds of CPU that master and workers take for a message on a connection of its own."""
    with running(directory, APP, workers=workers) as server, Load(server.host_and_port, sessions) as load:
        time.sleep(1)  # what happens once has happened then; nothing is measured yet
        pids = [server.pid, *children_of(server.pid)]
        messages, used = load.delivered, sum(map(cpu_seconds, pids))
        time.sleep(seconds)
        used = sum(map(cpu_seconds, pids)) - used
        messages = load.delivered - messages
        assert load.stop().failed == []
    return used / messages * 1e6


def compare(directory: Path, rounds: int, seconds: float) -> tuple[float, float]:
    """The least of some rounds for one worker and for two, by turns: noise only ever adds."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers, costs in found.items():
            place = directory / f"{workers}-{number}"
            place.mkdir()
            costs.append(cost(place, workers, seconds))
    return min(found[1]), min(found[2])
