"""A page of plots over one axis of time: what clients saw above, what the server told of itself below."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.smtp_users.steps import MESSAGE

from .server import Sample

_Points = tuple[list[float], list[float]]


class Seen(NamedTuple):
    """A second of Locust's history, the row of whole messages."""

    at: float  # Unix seconds
    users: float
    per_second: float
    failed_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def history_of(path: Path) -> list[Seen]:
    """What ``--csv-full-history`` wrote."""
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Name"] == MESSAGE]
    names = ("Timestamp", "User Count", "Requests/s", "Failures/s", "50%", "95%", "99%")
    return [Seen(*(_number(row[name]) for name in names)) for row in rows]


def _number(cell: str) -> float:
    return 0.0 if cell in {"", "N/A"} else float(cell)


def write_page(path: Path, history: Path, samples: Sequence[Sample]) -> None:
    """Write the page: HTML with the drawing in it, no other file."""
    svg = drawing(history_of(history), samples)
    path.write_text(
        "<!doctype html><meta charset=utf-8><title>Load test</title>"
        "<style>body{font-family:sans-serif;margin:2em}svg{max-width:100%;height:auto}</style>"
        "<h1>Load test</h1><p>Above: what clients saw, from Locust. Below: what the server told of itself, from "
        "/metrics, and the CPU time of its processes. "
        '<a href="report.html">Locust\'s report</a> has every step.</p>' + svg
    )


def drawing(seen: Sequence[Seen], samples: Sequence[Sample]) -> str:
    """The plots as SVG."""
    start = min([*(each.at for each in seen), *(each.at for each in samples)], default=0.0)
    figure = Figure(figsize=(11, 14), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(6, 1, sharex=True)
    throughput, latency, lag, queue, cpu, refused = panels
    times = [each.at - start for each in seen]
    throughput.plot(times, [each.per_second for each in seen], label="messages/s, Locust")
    throughput.plot(*_rates(samples, start, "fastsmtp_messages_total{accepted}"), label="messages/s, server")
    throughput.plot(times, [each.users for each in seen], label="users", linestyle=":")
    for name, label in (("p50_ms", "p50"), ("p95_ms", "p95"), ("p99_ms", "p99")):
        latency.plot(times, [getattr(each, name) for each in seen], label=f"{label} of messages, ms")
    lag.plot(*_gauge(samples, start, "fastsmtp_loop_lag_seconds", 1000), label="loop lag, ms")
    queue.plot(*_gauge(samples, start, "fastsmtp_hooks_pending"), label="hooks queued or running")
    queue.plot(*_gauge(samples, start, "fastsmtp_threads_busy"), label="threads busy")
    queue.plot(*_gauge(samples, start, "fastsmtp_open_connections"), label="open connections")
    cpu.plot(*_slopes(samples, start, lambda sample: sample.cpu_seconds * 100), label="CPU of the server, % of a core")
    refused.plot(*_rates(samples, start, "fastsmtp_refusals_total"), label="refusals/s, server")
    refused.plot(times, [each.failed_per_second for each in seen], label="failed messages/s, Locust")
    for panel in panels:
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend(loc="upper left", fontsize="small")
    refused.set_xlabel("seconds")
    output = io.StringIO()
    figure.savefig(output, format="svg")
    text = output.getvalue()
    return text[text.index("<svg") :]


def _gauge(samples: Sequence[Sample], start: float, name: str, factor: float = 1.0) -> _Points:
    return [each.at - start for each in samples], [each.values.get(name, 0.0) * factor for each in samples]


def _rates(samples: Sequence[Sample], start: float, name: str) -> _Points:
    return _slopes(samples, start, lambda sample: sample.values.get(name, 0.0))


def _slopes(samples: Sequence[Sample], start: float, value: Callable[[Sample], float]) -> _Points:
    """A counter's rate between each two samples."""
    pairs = [(one, two) for one, two in itertools.pairwise(samples) if two.at > one.at]
    return [two.at - start for _, two in pairs], [(value(two) - value(one)) / (two.at - one.at) for one, two in pairs]
