"""How cost grows: with the size of messages, with recipients, with sessions, with workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from loadtest.bench.peers import Peer, fastsmtp, peers
from loadtest.bench.throughput import Row, Scenario, measure

SIZES: Final = (1_000, 5_000, 20_000, 100_000, 1_000_000, 10_000_000, 50_000_000)
RECIPIENTS: Final = (1, 10, 100, 1000)
SESSIONS: Final = (1, 10, 100, 1000, 5000)
WORKERS: Final = (1, 2, 4)
_APPLICATION: Final = "loadtest.bench_app:AsyncHooks"
_LARGEST: Final = "--max-message-bytes=67108864"

Curve = dict[str, dict[str, Row]]
"""For each point, as text, what was measured of each server."""


def of_size(size: int) -> Scenario:
    """Kept connections; about 400 MB in all, and not more messages than it takes to be exact."""
    messages = min(8000, max(8, 400_000_000 // size))
    return Scenario(f"{size} octets", messages, f"--sessions 4 --per-session 100000 --size {size}")


def of_recipients(count: int) -> Scenario:
    """Kept connections, PIPELINING."""
    messages = min(10000, max(4000, 150_000 // count))  # a slow server gets fewer
    options = f"--sessions 20 --per-session 100000 --pipeline --recipients {count}"
    return Scenario(f"{count} recipients", messages, options)


def of_sessions(count: int) -> Scenario:
    """Kept connections, a command a round trip, all at work at the same time."""
    return Scenario(f"{count} sessions", max(8000, 2 * count), f"--sessions {count} --per-session 100000")


def _contenders(python: str, *flags: str) -> list[Peer]:
    """The floor, fastsmtp, smtp-sink."""
    there = {peer.name: peer for peer in peers(python, python) if not peer.missing}
    ours = Peer("fastsmtp async", fastsmtp(python, _APPLICATION, *flags), [], "")
    return [there["floor"], ours, *([there["smtp-sink"]] if "smtp-sink" in there else [])]


def _curve(points: Sequence[int], scenario: Callable[[int], Scenario], those: Sequence[Peer], rounds: int) -> Curve:
    curve = {}
    for point in points:
        curve[str(point)] = measure(scenario(point), those, rounds)
        ours = curve[str(point)].get("fastsmtp async", {})
        print(f"  {scenario(point).about}: {ours.get('cpu_us', 0):,.1f} us of CPU", flush=True)
    return curve


def _workers(python: str, rounds: int) -> Curve:
    """A connection for each message, from so many clients that the kernel's spread is even."""
    scenario = Scenario("workers", 16000, "--sessions 64")
    floor = _contenders(python)[0]
    curve = {}
    for count in WORKERS:
        ours = Peer("fastsmtp async", fastsmtp(python, _APPLICATION, workers=count), [], "")
        curve[str(count)] = measure(scenario, [floor, ours], rounds)
        print(f"  {count} workers: {curve[str(count)]['fastsmtp async']['rate']:,.0f} messages/s", flush=True)
    return curve


def measure_all(python: str, rounds: int) -> dict[str, Curve]:
    """All curves; a few minutes."""
    plain = _contenders(python)
    return {
        "size": _curve(SIZES, of_size, _contenders(python, _LARGEST), rounds),
        "recipients": _curve(RECIPIENTS, of_recipients, plain, rounds),
        "sessions": _curve(SESSIONS, of_sessions, plain, rounds),
        "workers": _workers(python, rounds),
    }
