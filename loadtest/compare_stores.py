"""What a message that is stored costs in CPU: queue:, PostgreSQL and Maildir beside Postfix, in one run.

    python -m loadtest.compare_stores --client CLIENT.c --rounds 3 --messages 10000 --sessions 20 50

The client is a load generator in C whose command line is ``PORT --messages N --sessions N --size N --per-session N``.
Each round has every store once, in turn; what is printed is the median of the rounds. PostgreSQL's own CPU is a column
of its own. Everything is on one disk, and each 250 means that the message is on it. The more connections there are at
a time, the more messages share a sync and a turn of the loop, and the more processes Postfix has; so they are few, and
then many.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

from loadtest.durability import postgresql
from loadtest.durability.programs import Program, free_port
from loadtest.postfix import Postfix, answers

_TICK = os.sysconf("SC_CLK_TCK")
_SIZE = 5120  # octets of a message
_HERE = Path("build")  # not where temporary files may be kept in memory


class Sample(NamedTuple):
    """One round: microseconds of CPU a message, of the server and of the database behind it; messages a second."""

    cpu: float
    behind: float
    rate: float


def cpu_seconds(root: int) -> float:
    """User and system time of a process, of its descendants, and of those that have ended and were waited for."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / _TICK


@contextmanager
def _fastsmtp(store: Callable[[Path], str], *settings: str) -> Iterator[tuple[int, int]]:
    """A server with a store; its port and its pid."""
    with tempfile.TemporaryDirectory(dir=_HERE) as name:
        directory, port = Path(name).resolve(), free_port()
        limits = ["--max-connections-per-client", "0", "--workers", "1"]
        arguments = ["serve", "--store", store(directory), "--listen", f"127.0.0.1:{port}", *limits, *settings]
        server = Program(directory, "serve", arguments)
        server.start()
        try:
            while not answers(port):
                time.sleep(0.1)
            yield port, server.pid
            server.stop()
        finally:
            server.end()


def _queue(directory: Path) -> str:
    return f"queue:{directory}/queue"


@contextmanager
def _postfix() -> Iterator[tuple[int, int]]:
    with tempfile.TemporaryDirectory(dir=_HERE) as name:
        directory, port = Path(name).resolve(), free_port()
        directory.chmod(0o755)
        server = Postfix(directory, port)
        try:
            yield port, server.process.pid
        finally:
            server.stop()


class Load(NamedTuple):
    """What is sent in a round: so many messages, over so many connections at a time, so many over each."""

    messages: int
    sessions: int
    per_session: int


def measure(client: Path, port: int, pid: int, behind: int | None, load: Load) -> Sample:
    """Sends messages to a server and looks what they have cost."""
    messages = load.messages
    arguments = [
        "--messages", str(messages), "--sessions", str(load.sessions), "--size", str(_SIZE),
        "--per-session", str(load.per_session),
    ]  # fmt: skip
    subprocess.run([client, str(port), *arguments[:1], "200", *arguments[2:]], check=True, capture_output=True)  # warm
    before = cpu_seconds(pid), cpu_seconds(behind) if behind else 0.0
    began = time.monotonic()
    subprocess.run([client, str(port), *arguments], check=True, capture_output=True)
    took = time.monotonic() - began
    after = cpu_seconds(pid), cpu_seconds(behind) if behind else 0.0
    server, database = ((late - early) * 1e6 / messages for early, late in zip(before, after, strict=True))
    return Sample(server, database, messages / took)


def compare(client: Path, rounds: int, load: Load, server: postgresql.PostgreSQL) -> None:
    """Runs all stores in turn and prints what they cost."""
    stores: dict[str, tuple[Callable[[], object], int | None]] = {
        "queue:": (lambda: _fastsmtp(_queue), None),
        # The queue is written in a thread: where that is on the loop's CPU, no batch wakes another one.
        "queue:, one CPU": (lambda: _fastsmtp(_queue, "--cpu-affinity"), None),
        "postgresql:": (lambda: _fastsmtp(lambda _: server.url), server.pid),
        "maildir:": (lambda: _fastsmtp(lambda directory: f"maildir:{directory}/mail"), None),
        "discard:": (lambda: _fastsmtp(lambda _: "discard:"), None),  # what it costs before it is stored
        "Postfix": (_postfix, None),
    }
    samples: dict[str, list[Sample]] = {name: [] for name in stores}
    for _ in range(rounds):
        for name, (start, behind) in stores.items():
            with start() as (port, pid):  # type: ignore[attr-defined]  # each makes a context manager
                samples[name].append(measure(client, port, pid, behind, load))
    postfix = statistics.median(each.cpu for each in samples["Postfix"])
    print(f"{load.sessions} connections at a time, {load.per_session} messages over each; median of {rounds} rounds")
    for name, found in samples.items():
        cpu, behind_it, rate = (statistics.median(column) for column in zip(*found, strict=True))
        text = (
            f"{name:16} {cpu:7.0f} us CPU a message  {postfix / cpu:5.1f} x less than Postfix  {rate:7.0f} messages/s"
        )
        print(text + (f"  and {behind_it:.0f} us in the database" if behind_it else ""))


def main() -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--client", type=Path, default=Path("../shared/bench/blast.c"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=10000)
    parser.add_argument("--sessions", type=int, nargs="+", default=[20, 50])
    given = parser.parse_args()
    programs = postgresql.find_programs()
    if programs is None or not given.client.exists():
        raise SystemExit("needs PostgreSQL (make system-deps) and the source of a client")
    _HERE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, postgresql.running(programs) as server:
        client = Path(name) / "client"
        subprocess.run(["cc", "-O2", "-o", str(client), str(given.client)], check=True)
        for sessions, per_session in product(given.sessions, (1, 50)):
            compare(client, given.rounds, Load(given.messages, sessions, per_session), server)
    return 0


if __name__ == "__main__":
    sys.exit(main())
