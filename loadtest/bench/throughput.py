"""CPU time per message against the floor's, and what a client sees.

The servers are measured in turn, round by round (floor, A, B, floor, A, B, ...), so that a drift of the machine's speed
meets all of them. The figure to quote is `x_floor`: CPU time of the server (user and system, with all its processes)
per message, divided by the floor's in the same round; the median of the rounds. It does not depend on how fast the load
generator is, and little on what else the machine does. Messages/s and latencies do.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from loadtest.bench.peers import Peer, Running
from loadtest.bench.processes import Server
from loadtest.bench.programs import compiled

_SLOWEST_RUN: Final = 3.0  # seconds; a slow server gets fewer messages
_FEWEST: Final = 100  # messages that a run has at least
_RUN_DEADLINE: Final = 120.0  # seconds

Row = dict[str, float]
"""cpu_us, x_floor, rate, client_cpu_us, and latencies p50_us, p99_us, p999_us of one server in one scenario."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the clients do.

    Attributes:
        about: what it is.
        messages: how many in one run; about a second of the floor's time on a machine of today.
        options: of blast.
        chunking: whether it takes BDAT; the floor answers DATA instead.
    """

    about: str
    messages: int
    options: str
    chunking: bool = False

    def options_for(self, peer: Peer) -> list[str]:
        """What blast is told: a server that takes no chunks is given DATA."""
        return [each for each in self.options.split() if each != "--bdat" or peer.chunking]


SCENARIOS: Final = {
    "session": Scenario("a connection per message, 5 KB", 12000, "--sessions 20"),
    "stream": Scenario("kept connections, a command a round trip, 5 KB", 20000, "--sessions 20 --per-session 100000"),
    "pipelined": Scenario("the same, PIPELINING", 30000, "--sessions 20 --per-session 100000 --pipeline"),
    "recipients": Scenario(
        "the same, 20 recipients", 8000, "--sessions 20 --per-session 100000 --pipeline --recipients 20"
    ),
    "bdat": Scenario("kept connections, a chunk a message", 20000, "--sessions 20 --per-session 100000 --bdat", True),
    "large": Scenario("kept connections, 1 MB", 600, "--sessions 4 --per-session 100000 --size 1000000"),
    "large-bdat": Scenario(
        "the same, a chunk a message", 600, "--sessions 4 --per-session 100000 --size 1000000 --bdat", True
    ),
}


def load(server: Server, messages: int, options: Sequence[str]) -> Row:
    """One run of the load generator.

    Raises:
        RuntimeError: the server did not do as expected, or not in time.
    """
    before = server.cpu_seconds()
    argv = [compiled("blast"), str(server.port), "--messages", str(messages), *options]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_RUN_DEADLINE)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{server.name}: {messages} messages took more than {_RUN_DEADLINE:g} s") from error
    if done.returncode:
        raise RuntimeError(f"{server.name}: {done.stderr.strip()}")
    time.sleep(0.05)  # the server closes its connections
    result: dict[str, Any] = json.loads(done.stdout)
    result["cpu_us"] = (server.cpu_seconds() - before) * 1e6 / messages
    return result


class _Contender:
    """A server in one scenario, and what was measured of it."""

    def __init__(self, peer: Peer, server: Server, scenario: Scenario, scale: float) -> None:
        self.name = peer.name
        self._server = server
        self._options = scenario.options_for(peer)
        self.rows: list[Row] = []
        fewest = min(_FEWEST, scenario.messages)
        wanted = max(fewest, int(scenario.messages * scale))
        rate = load(server, max(fewest, wanted // 10), self._options)["rate"]  # warms it up
        self._messages = int(min(wanted, max(fewest, rate * _SLOWEST_RUN)))

    def run(self) -> None:
        """Measure once more."""
        self.rows.append(load(self._server, self._messages, self._options))


def measure(scenario: Scenario, peers: Sequence[Peer], rounds: int, scale: float = 1.0) -> dict[str, Row]:
    """Measure all peers, of which the first is the floor.

    Returns:
        For each peer its row; one that failed has none, and the reason is printed.
    """
    with ExitStack() as stack:
        contenders = []
        for peer in peers:
            try:
                contenders.append(_Contender(peer, stack.enter_context(Running(peer)), scenario, scale))
            except RuntimeError as error:
                print(f"  left out: {error}", flush=True)
        for _ in range(rounds):
            for each in contenders:
                each.run()
    floor = contenders[0].rows
    return {each.name: _median(each.rows, floor) for each in contenders}


def _median(rows: Sequence[Row], floor: Sequence[Row]) -> Row:
    names = ("cpu_us", "rate", "client_cpu_us", "p50_us", "p99_us", "p999_us")
    median = {name: statistics.median(row[name] for row in rows) for name in names}
    ratios = [row["cpu_us"] / base["cpu_us"] for row, base in zip(rows, floor, strict=True) if base["cpu_us"]]
    # NaN: so few messages that the clock of CPU time did not tick
    return {"x_floor": statistics.median(ratios) if ratios else math.nan, **median}
