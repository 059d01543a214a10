"""CPU for a message with one worker and with two: what workers share must not cost anything.

Under as much load as smtp-source brings, a connection for each message, for a worker that often sleeps pays for each
waking. Each worker has as many sessions in both cases: one with more to do takes more of them in a turn of its loop,
which is cheaper for each.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.server.processes import children_of
from tests.server.running import running

APP = "loadtest.bench_app:AsyncHooks"
_SESSIONS = 32  # for each worker
_DEADLINE = 120.0  # seconds for one run


def cost(directory: Path, workers: int, messages: int) -> float:
    """Microseconds of CPU that master and workers take for a message; each worker gets about so many.

    Raises:
        subprocess.CalledProcessError: smtp-source met something that it did not expect.
    """
    with running(directory, APP, workers=workers) as server:
        pids = [server.pid, *children_of(server.pid)]
        _send(server.host_and_port, workers, messages // 10)  # what happens once happens now
        used = sum(map(_cpu_seconds, pids))
        _send(server.host_and_port, workers, messages)
        used = sum(map(_cpu_seconds, pids)) - used
    return used / (messages * workers) * 1e6


def _send(address: tuple[str, int], workers: int, messages: int) -> None:
    host, port = address
    counts = ("-s", str(_SESSIONS * workers), "-m", str(messages * workers), "-l", "5120")
    subprocess.run(["smtp-source", *counts, f"{host}:{port}"], check=True, capture_output=True, timeout=_DEADLINE)


def _cpu_seconds(pid: int) -> float:
    """What all threads have used, to the nanosecond: the clock ticks of /proc/PID/stat are too coarse for 5 %."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def compare(directory: Path, rounds: int, messages: int) -> tuple[float, float]:
    """The least of some rounds for one worker and for two, by turns: noise only ever adds."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers, costs in found.items():
            place = directory / f"{workers}-{number}"
            place.mkdir()
            costs.append(cost(place, workers, messages))
    return min(found[1]), min(found[2])
