"""Kills what stores and what consumes, again and again, under load, and counts: nothing that was acknowledged is lost.

    python -m loadtest.durability.kills --seconds 120 queue
    python -m loadtest.durability.kills --seconds 120 postgresql
    python -m loadtest.durability.kills --seconds 120 --deliver queue

Workers, the master, consumers, their parent and, where it is the store, PostgreSQL get SIGKILL at random moments. In
the end all are left alone until the queue is empty. Then must hold: acknowledged <= consumed <= sent, as sets. What was
consumed more than once is counted; it may be no more than what was in hand when something was killed.

With --deliver the consumer is ``fastsmtp deliver``, and what counts as consumed is what its next hop, a server that is
killed like the others, has taken.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastsmtp.queue import Queue, QueueError, State
from loadtest.durability import postgresql
from loadtest.durability.programs import Program, free_port
from loadtest.durability.sending import Ledger, send_until

_CLIENTS = 16
_CONCURRENCY = 10  # items that a consuming process has in hand
_LEASE = 3  # seconds
_DRAIN_TIME = 60.0  # seconds in which the queue must get emptier, in the end


@dataclass(frozen=True, slots=True)
class Counts:
    """What came out of it.

    Attributes:
        sent: messages whose last octet may have left.
        acknowledged: messages that got their 250.
        consumed: messages that a consumer got.
        lost: messages that were acknowledged and never consumed.
        invented: messages that were consumed and never sent.
        repeated: times that a message was consumed once more.
        kills: by what was killed.
    """

    sent: int
    acknowledged: int
    consumed: int
    lost: int
    invented: int
    repeated: int
    kills: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether the promise was kept."""
        in_hand = _CONCURRENCY * 2 * (sum(self.kills.values()) + 1)
        unanswered = _CLIENTS * sum(self.kills.values())
        return not self.lost and not self.invented and self.repeated <= in_hand + unanswered and self.acknowledged > 0

    def __str__(self) -> str:
        kills = ", ".join(f"{count} x {name}" for name, count in sorted(self.kills.items()))
        return (
            f"sent {self.sent}, acknowledged {self.acknowledged}, consumed {self.consumed}, lost {self.lost}, "
            f"never sent {self.invented}, consumed once more {self.repeated}; killed: {kills}"
        )


async def prove(
    directory: Path, url: str, seconds: float, server: postgresql.PostgreSQL | None, deliver: bool = False
) -> Counts:
    """Runs it all for so many seconds, and then until the queue is empty."""
    port = free_port()
    serve = ["serve", "--store", url, "--listen", f"127.0.0.1:{port}", "--workers", "2", "--log-level", "warning"]
    consume = [
        "consume", "loadtest.durability.record:record", "--from", url, "--workers", "2", "--lease", str(_LEASE),
        "--concurrency", str(_CONCURRENCY), "--retry-delay", "0.5",
    ]  # fmt: skip
    hop_port = free_port()
    if deliver:
        consume = [
            "deliver", "--from", url, "--to", f"smtp://127.0.0.1:{hop_port}?tls=off", "--workers", "2",
            "--lease", str(_LEASE), "--concurrency", str(_CONCURRENCY), "--first-retry", "0.5", "--longest-retry", "2",
        ]  # fmt: skip
    take = ["serve", "loadtest.durability.next_hop:NextHop", "--listen", f"127.0.0.1:{hop_port}", "--workers", "2"]
    acceptor, consumer = Program(directory, "serve", serve), Program(directory, "consume", consume)
    hop = Program(directory, "take", take) if deliver else None
    ledger, kills = Ledger(), Counter[str]()
    stop = asyncio.Event()
    try:
        for program in filter(None, (acceptor, consumer, hop)):
            program.start()
        sending = asyncio.ensure_future(send_until(stop, [("127.0.0.1", port)], ledger, _CLIENTS))
        await _wait_for(lambda: bool(ledger.acknowledged), 30)
        await _kill_until(time.monotonic() + seconds, acceptor, consumer, hop, server, kills)
        stop.set()
        await sending
        if hop:  # its workers died young, so its master has them wait; a new one has not
            hop.kill_parent()
        for program in filter(None, (acceptor, consumer, hop)):
            if not program.is_running:
                program.start()
        await drained(url)
        consumer.stop()
        acceptor.stop()
    finally:
        for program in filter(None, (acceptor, consumer, hop)):
            program.end()
    numbers = Counter(map(int, (directory / "record").read_text().split()))
    return Counts(
        len(ledger.sent), len(ledger.acknowledged), len(numbers), len(ledger.acknowledged - numbers.keys()),
        len(numbers.keys() - ledger.sent), numbers.total() - len(numbers), dict(kills),
    )  # fmt: skip


async def _kill_until(
    end: float,
    acceptor: Program,
    consumer: Program,
    hop: Program | None,
    server: postgresql.PostgreSQL | None,
    kills: Counter[str],
) -> None:
    targets: dict[str, Callable[[], object]] = {
        "worker": acceptor.kill_child,
        "master": acceptor.kill_parent,
        "consumer": consumer.kill_child,
        "parent of the consumers": consumer.kill_parent,
    }
    if hop:
        targets["worker of the next hop"] = hop.kill_child
    if server:
        targets["PostgreSQL"] = lambda: _restart(server)
    while time.monotonic() < end:
        await asyncio.sleep(random.uniform(0.3, 2.0))
        name = random.choice(list(targets))
        if await asyncio.to_thread(targets[name]) is not False:
            kills[name] += 1


def _restart(server: postgresql.PostgreSQL) -> None:
    server.kill()
    server.start()


async def drained(url: str) -> None:
    """Returns when the queue is empty; dead letters would be what is lost."""

    async with Queue.open(url) as queue:

        async def left() -> float:
            try:
                found = await queue.stats()
            except QueueError:
                return math.inf
            assert not found.items[State.DEAD], "there are dead letters"
            return math.inf if found.unreachable else sum(found.items.values())

        least, end = math.inf, time.monotonic() + _DRAIN_TIME
        while items := await left():
            if items < least:  # many may have gathered while their consumers were killed
                least, end = items, time.monotonic() + _DRAIN_TIME
            if time.monotonic() > end:
                raise TimeoutError(f"the queue is not empty, and gets no emptier: {await queue.stats()}")
            await asyncio.sleep(0.2)


async def _wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("nothing was acknowledged")
        await asyncio.sleep(0.05)


@contextmanager
def store(kind: str, directory: Path) -> Iterator[tuple[str, postgresql.PostgreSQL | None]]:
    """The URL of an empty queue, and its server if it has one."""
    if kind == "queue":
        yield f"queue:{directory}/queue", None
        return
    programs = postgresql.find_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed (make system-deps)")
    with postgresql.running(programs) as server:
        yield server.url, server


def main() -> int:
    """Returns 0 if the promise was kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", choices=["queue", "postgresql"])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--deliver", action="store_true", help="the consumer is fastsmtp deliver")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, store(given.store, Path(name)) as (url, server):
        counts = asyncio.run(prove(Path(name), url, given.seconds, server, given.deliver))
    print(f"{given.store}: {counts}: {'kept' if counts.holds else 'BROKEN'}")
    return 0 if counts.holds else 1


if __name__ == "__main__":
    sys.exit(main())
