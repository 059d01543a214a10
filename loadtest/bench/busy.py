"""Do more workers serve more, where a hook burns CPU? A pool thread cannot use a second core; a second worker can."""

from __future__ import annotations

import os
import statistics
from contextlib import ExitStack
from typing import Final

from loadtest.bench.peers import Peer, Running, fastsmtp
from loadtest.bench.throughput import Row, load

MESSAGES: Final = 800
# A connection for each message: with few that stay, it is luck how the kernel spreads them over the workers.
_OPTIONS: Final = ("--sessions", "32")


def measure(python: str, workers: tuple[int, ...], rounds: int, scale: float = 1.0) -> dict[str, Row]:
    """Measure a hook of 5 ms CPU with so many workers.

    Returns:
        For each number of workers: rate, x_first: times the rate of the first number, client_share: of the CPU that the
        load generator took.
    """
    count = max(50, int(MESSAGES * scale))
    with ExitStack() as stack:
        servers = {
            each: stack.enter_context(
                Running(Peer(f"{each}", fastsmtp(python, "loadtest.bench.handlers:BusyHook", workers=each), [], ""))
            )
            for each in workers
        }
        rows: dict[int, list[Row]] = {each: [] for each in workers}
        for _ in range(rounds):
            for each in workers:
                rows[each].append(load(servers[each], count * each, _OPTIONS))
    first = [row["rate"] for row in rows[workers[0]]]
    return {f"{each} workers" if each > 1 else "1 worker": _summary(rows[each], first) for each in workers}


def _summary(rows: list[Row], first: list[float]) -> Row:
    cores = len(os.sched_getaffinity(0))
    return {
        "rate": statistics.median(row["rate"] for row in rows),
        "x_first": statistics.median(row["rate"] / base for row, base in zip(rows, first, strict=True)),
        "client_share": statistics.median(row["rate"] * row["client_cpu_us"] / 1e6 / cores for row in rows),
        "p50_us": statistics.median(row["p50_us"] for row in rows),
        "p99_us": statistics.median(row["p99_us"] for row in rows),
    }
