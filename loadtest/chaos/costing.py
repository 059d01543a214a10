"""CPU for a message with one worker and with two: what workers share must not cost anything.

What a CPU has to do besides makes each message dearer, whoever serves it: on a machine with two of them one worker
shares none with its load, and two workers share both. So a worker and its load have one CPU, with one worker as with
two (``balance = cpu``). That is what is judged.

Beside it stands what the kernel makes of it when nobody keeps to a CPU: one worker, two of one server, and two of two
servers, which share nothing, under the same load. The last ones show how much of the difference is the machine's.

Under as much load as smtp-source brings, a connection for each message, for a worker that often sleeps pays for each
waking. Each worker has as many sessions in all cases: one with more to do takes more of them in a turn of its loop,
which is cheaper for each.
"""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.server.processes import children_of
from tests.server.running import Server, running

APP = "loadtest.bench_app:AsyncHooks"
_SESSIONS = 32  # for each worker
_DEADLINE = 120.0  # seconds for one run


@dataclass(frozen=True, slots=True)
class Layout:
    """Who serves.

    Attributes:
        servers: the workers of each.
        kept: whether a worker and its load have a CPU that they keep to.
    """

    servers: tuple[int, ...]
    kept: bool = False

    @property
    def workers(self) -> int:
        """Of all servers."""
        return sum(self.servers)


ALONE, TOGETHER, APART = Layout((1,)), Layout((2,)), Layout((1, 1))
ALONE_KEPT, TOGETHER_KEPT = Layout((1,), kept=True), Layout((2,), kept=True)
LAYOUTS = (ALONE_KEPT, TOGETHER_KEPT, ALONE, TOGETHER, APART)


def cost(directory: Path, layout: Layout, messages: int) -> float:
    """Microseconds of CPU that masters and workers take for a message; each worker gets about so many.

    Raises:
        RuntimeError: smtp-source met something that it did not expect.
    """
    with ExitStack() as stack:
        servers = []
        for number, workers in enumerate(layout.servers):
            place = directory / str(number)
            place.mkdir(parents=True)
            options = ("--balance=cpu",) if layout.kept else ()
            servers.append((stack.enter_context(running(place, APP, *options, workers=workers)), workers))
        pids = [pid for server, _ in servers for pid in (server.pid, *children_of(server.pid))]
        _send(servers, layout.kept, messages // 10)  # what happens once happens now
        used = sum(map(_cpu_seconds, pids))
        _send(servers, layout.kept, messages)
        used = sum(map(_cpu_seconds, pids)) - used
    return used / (messages * layout.workers) * 1e6


def _send(servers: list[tuple[Server, int]], kept: bool, messages: int) -> None:
    sources = []
    for server, workers in servers:
        if kept:
            cpus = sorted(os.sched_getaffinity(0))[:workers]
            sources += [_source(server, 1, messages, "taskset", "--cpu-list", str(cpu)) for cpu in cpus]
        else:
            sources.append(_source(server, workers, messages))
    codes = [source.wait(_DEADLINE) for source in sources]
    if any(codes):
        raise RuntimeError("smtp-source has met something that it did not expect")


def _source(server: Server, workers: int, messages: int, *kept: str) -> subprocess.Popen[bytes]:
    host, port = server.host_and_port
    counts = ("-s", str(_SESSIONS * workers), "-m", str(messages * workers), "-l", "5120")
    return subprocess.Popen([*kept, "smtp-source", *counts, f"{host}:{port}"])


def _cpu_seconds(pid: int) -> float:
    """What all threads have used, to the nanosecond: the clock ticks of /proc/PID/stat are too coarse for 5 %."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def compare(directory: Path, rounds: int, messages: int) -> dict[Layout, float]:
    """The least of some rounds for each layout, by turns and each time in another order: noise only ever adds."""
    found: dict[Layout, list[float]] = {layout: [] for layout in LAYOUTS}
    for number in range(rounds):
        for place, layout in enumerate(random.sample(LAYOUTS, len(LAYOUTS))):
            found[layout].append(cost(directory / f"{number}-{place}", layout, messages))
    return {layout: min(each) for layout, each in found.items()}
