"""CPU for a message with one worker and with two: what workers share must not cost anything.

Each worker has as many sessions in both cases: one with more to do takes more sessions in a turn of its loop, which is
cheaper for each. And the rate is far from what a worker can do, for on two cores the second worker and the load have to
share one.
"""

from __future__ import annotations

import time
from pathlib import Path

from loadtest.chaos.load import Load
from tests.server.processes import children_of
from tests.server.running import running

APP = "loadtest.bench_app:AsyncHooks"


_SESSIONS = 16  # for each worker
_PAUSE = 0.05  # seconds between two messages of a session


def cost(directory: Path, workers: int, seconds: float) -> float:
    """Microseconds of CPU that master and workers take for a message on a connection of its own."""
    with (
        running(directory, APP, workers=workers) as server,
        Load(server.host_and_port, _SESSIONS * workers, _PAUSE) as load,
    ):
        time.sleep(1)  # what happens once has happened then; nothing is measured yet
        pids = [server.pid, *children_of(server.pid)]
        messages, used = load.delivered, sum(map(_cpu_seconds, pids))
        time.sleep(seconds)
        used = sum(map(_cpu_seconds, pids)) - used
        messages = load.delivered - messages
        assert load.stop().failed == []
    return used / messages * 1e6


def _cpu_seconds(pid: int) -> float:
    """What all threads have used, to the nanosecond: the clock ticks of /proc/PID/stat are too coarse for 5 %."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def compare(directory: Path, rounds: int, seconds: float) -> tuple[float, float]:
    """The least of some rounds for one worker and for two, by turns: noise only ever adds."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers, costs in found.items():
            place = directory / f"{workers}-{number}"
            place.mkdir()
            costs.append(cost(place, workers, seconds))
    return min(found[1]), min(found[2])
