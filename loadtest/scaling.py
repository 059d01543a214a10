"""``make scaling``: throughput and latency of handlers that need CPU, over workers and threads.

Writes loadtest/scaling.html, and the table of docs/scaling.md to standard output. Each point is a server of its own
and a closed loop of clients, some for each thread, so that no thread waits for work.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import dkim
from matplotlib.figure import Figure

from loadtest.local.server import local_server

ROOT = Path(__file__).parents[1]
HANDLERS = ("burn_1", "burn_5", "burn_20", "content_filter")
_CLIENTS_PER_WORKER = 8


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement.

    Args:
        handler: of cpu_handlers.
        workers: processes.
        threads: of each.
        per_second: messages.
        p50_ms: of whole messages.
        p99_ms: the same.
        cpu_ms: the server's CPU time for each message, in milliseconds.
    """

    handler: str
    workers: int
    threads: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


class Letter:
    """A signed message as a filter meets it: text and HTML, a signature of 2048 bits.

    Args:
        folder: for the key and the message.
    """

    def __init__(self, folder: Path) -> None:
        key = folder / "key.pem"
        subprocess.run(["openssl", "genrsa", "-traditional", "-out", str(key), "2048"], check=True, capture_output=True)
        public = subprocess.run(
            ["openssl", "rsa", "-in", str(key), "-pubout", "-outform", "DER"], check=True, capture_output=True
        ).stdout
        self.record = f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"
        octets = _letter().as_bytes(policy=SMTP)
        headers = [b"From", b"To", b"Subject", b"MIME-Version", b"Content-Type"]
        signature = dkim.sign(octets, b"load", b"sender.example", key.read_bytes(), include_headers=headers)
        self.path = folder / "letter.eml"
        self.path.write_bytes(signature + octets)


def _letter() -> EmailMessage:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "a@sender.example", "b@recipient.example", "An offer"
    words = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore. "
    letter.set_content(words * 40)
    rows = "".join(f"<tr><td class='cell'><b>{number}</b></td><td>{words}</td></tr>\n" for number in range(120))
    letter.add_alternative(f"<html><body><h1>Hello</h1><table>{rows}</table></body></html>", subtype="html")
    return letter


def measure(handler: str, workers: int, threads: int, seconds: int, folder: Path) -> Point:
    """Run one server and one load."""
    letter = Letter(folder)
    os.environ["LOADTEST_DKIM_RECORD"] = letter.record
    arguments = [f"loadtest.cpu_handlers:{handler}", f"--workers={workers}", f"--threads={threads}", "--store=discard:"]
    with local_server(folder, arguments, watched=False) as server:
        locust = [
            *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest/locustfile.py"), "--headless"),
            *("--only-summary", "--host", f"smtp://127.0.0.1:{server.port}", "--run-time", str(seconds)),
            *("--users", str(_CLIENTS_PER_WORKER * workers), "--stop-timeout", "30", "--recipients", "1"),
            *("--messages-per-connection", "50", "--message", str(letter.path), "--csv", str(folder / "figures")),
            "RawSmtp",
        ]
        before = server.sample()
        subprocess.run(locust, cwd=ROOT, check=True, stdout=sys.stderr)
        after = server.sample()
        server.stop()
    with open(folder / "figures_stats.csv", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["Name"] == "message"]
    cpu = (after.cpu_seconds - before.cpu_seconds) / int(row["Request Count"])
    per_second, p50_ms, p99_ms = (float(row[name]) for name in ("Requests/s", "50%", "99%"))
    return Point(handler, workers, threads, per_second, p50_ms, p99_ms, cpu * 1000)


def table(points: Iterable[Point]) -> str:
    """As Markdown."""
    head = "| handler | workers | threads | messages/s | p50 ms | p99 ms | server's CPU ms a message |\n"
    return f"{head}|---|--:|--:|--:|--:|--:|--:|\n" + "".join(
        f"| {each.handler} | {each.workers} | {each.threads} | {each.per_second:.0f} | {each.p50_ms:.0f} "
        f"| {each.p99_ms:.0f} | {each.cpu_ms:.2f} |\n"
        for each in points
    )


def page(points: Sequence[Point]) -> str:
    """Throughput and p99 against workers, a row of plots for each handler and a line for each number of threads."""
    handlers = list(dict.fromkeys(point.handler for point in points))
    figure = Figure(figsize=(11, 3.2 * len(handlers)), layout="constrained")
    grid = figure.subplots(len(handlers), 2, squeeze=False)
    for (left, right), handler in zip(grid, handlers, strict=True):
        own = [point for point in points if point.handler == handler]
        for threads in sorted({point.threads for point in own}):
            line = sorted((point for point in own if point.threads == threads), key=lambda point: point.workers)
            workers = [point.workers for point in line]
            left.plot(workers, [point.per_second for point in line], marker="o", label=f"{threads} threads")
            right.plot(workers, [point.p99_ms for point in line], marker="o", label=f"{threads} threads")
        for axes, what in ((left, "messages/s"), (right, "p99 of messages, ms")):
            axes.set(title=f"{handler}: {what}", xlabel="workers", xticks=sorted({point.workers for point in own}))
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
    output = io.StringIO()
    figure.savefig(output, format="svg")
    svg = output.getvalue()
    return (
        "<!doctype html><meta charset=utf-8><title>Scaling</title><style>body{font-family:sans-serif;margin:2em}"
        f"svg{{max-width:100%;height:auto}}</style><h1>Handlers that need CPU</h1>{svg[svg.index('<svg') :]}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all, print the table, write the page."""
    cpus = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handlers", nargs="+", choices=HANDLERS, default=HANDLERS)
    parser.add_argument("--workers", type=int, nargs="+", default=sorted({1, 2, max(1, cpus // 2), cpus}))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--page", type=Path, default=ROOT / "loadtest" / "scaling.html")
    options = parser.parse_args(arguments)
    points = []
    for handler, workers, threads in itertools.product(options.handlers, options.workers, options.threads):
        with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
            points.append(measure(handler, workers, threads, options.seconds, Path(folder)))
        print(points[-1], file=sys.stderr, flush=True)
    options.page.write_text(page(points))
    print(table(points))


if __name__ == "__main__":
    main()
