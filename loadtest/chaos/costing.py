"""CPU for a message with one worker and with two: what workers share must not cost anything.

Where workers and load share processors every message is dearer, whoever serves it. To show how much of the difference
that is, two servers of one worker each, which share nothing, are measured too, beside each other under the same load.

Under as much load as smtp-source brings, a connection for each message, for a worker that often sleeps pays for each
waking. Each worker has as many sessions in all cases: one with more to do takes more of them in a turn of its loop,
which is cheaper for each.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.server.processes import children_of
from tests.server.running import Server, running

APP = "loadtest.bench_app:AsyncHooks"
_SESSIONS = 32  # for each worker
_DEADLINE = 120.0  # seconds for one run
_LAYOUTS = ((1,), (1, 1), (2,))  # the workers of each server


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of CPU that masters and workers take for a message."""

    alone: float  # one worker
    apart: float  # two, of two servers
    together: float  # two, of one server


def cost(directory: Path, layout: tuple[int, ...], messages: int) -> float:
    """Microseconds for a message; each worker gets about so many.

    Raises:
        RuntimeError: smtp-source met something that it did not expect.
    """
    with ExitStack() as stack:
        servers = []
        for number, workers in enumerate(layout):
            place = directory / str(number)
            place.mkdir(parents=True)
            servers.append((stack.enter_context(running(place, APP, workers=workers)), workers))
        pids = [pid for server, _ in servers for pid in (server.pid, *children_of(server.pid))]
        _send(servers, messages // 10)  # what happens once happens now
        used = sum(map(_cpu_seconds, pids))
        _send(servers, messages)
        used = sum(map(_cpu_seconds, pids)) - used
    return used / (messages * sum(layout)) * 1e6


def _send(servers: list[tuple[Server, int]], messages: int) -> None:
    sources = []
    for server, workers in servers:
        host, port = server.host_and_port
        counts = ("-s", str(_SESSIONS * workers), "-m", str(messages * workers), "-l", "5120")
        sources.append(subprocess.Popen(["smtp-source", *counts, f"{host}:{port}"]))
    if any(source.wait(_DEADLINE) for source in sources):
        raise RuntimeError("smtp-source has met something that it did not expect")


def _cpu_seconds(pid: int) -> float:
    """What all threads have used, to the nanosecond: the clock ticks of /proc/PID/stat are too coarse for 5 %."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def compare(directory: Path, rounds: int, messages: int) -> Costs:
    """The least of some rounds for each, by turns: noise only ever adds."""
    found = [
        [cost(directory / f"{number}-{place}", layout, messages) for place, layout in enumerate(_LAYOUTS)]
        for number in range(rounds)
    ]
    return Costs(*map(min, zip(*found, strict=True)))
