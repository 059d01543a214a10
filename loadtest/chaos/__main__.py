"""Does harm to servers under load, prints what came of it, and fails if anything was lost that must not be: make chaos.

Every part is bounded. Names of parts as arguments choose some: ``make chaos ARGS="replace stop"``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from loadtest.chaos import costing, hanging, killing, replacing, stopping, switching
from loadtest.chaos.load import Outcome

SESSIONS = 64
REPLACEMENTS = 100
KILL_SECONDS = 120.0
SWITCH_ROUNDS, SWITCH_SECONDS = 5, 8.0
COST_ROUNDS, COST_MESSAGES = 8, 6000  # for each worker

_MOST_P99_MS = 25.0
_LEAST_THROUGHPUT = 0.95  # of that at Python's own interval
_PYTHONS_INTERVAL = 0.005  # seconds
_MOST_COST = 1.05  # of two workers, of that of one

Found = tuple[str, bool]
"""What came of it, and whether that is as it must be."""


def _replace(directory: Path) -> Found:
    return _of(replacing.replace(directory, REPLACEMENTS, SESSIONS), f"{REPLACEMENTS} replacements of 2 workers")


def _scale(directory: Path) -> Found:
    rounds = max(1, REPLACEMENTS // 20)
    return _of(replacing.scale(directory, rounds, SESSIONS), f"{rounds} times from 4 workers to 1 and back")


def _of(outcome: Outcome, what: str) -> Found:
    text = (
        f"{what}, {SESSIONS} sessions: {len(outcome.acknowledged)} messages,"
        f" {outcome.refused} refused, {outcome.reset} reset, {len(outcome.failed)} failed"
    )
    return text + "".join(f"\n    {worker} {why}" for worker, why in outcome.failed[:5]), not outcome.failed


def _kill(directory: Path) -> Found:
    found = killing.kill(directory, KILL_SECONDS, SESSIONS, pause=0.02)
    text = (
        f"{found.kills} workers killed in {KILL_SECONDS:g} s: {found.acknowledged} acknowledged <="
        f" {found.stored} stored <= {found.sent} sent, each whole; {found.lost} lost, {found.twice} twice;"
        f" {found.failed} sessions failed, {found.elsewhere} of them in workers that were not killed"
    )
    whole = found.acknowledged <= found.stored <= found.sent and not found.lost
    return text, whole and not found.elsewhere and found.kills > 0


def _hang(directory: Path) -> Found:
    lines, good = [], True
    for number, way in enumerate(hanging.WAYS):
        place = directory / str(number)
        place.mkdir()
        took, failed, log = hanging.hang(place, way, SESSIONS)
        workers = {worker for worker, _ in failed} - {""}
        good = good and len(workers) <= 1 and "hangs: its event loop has not turned" in log
        lines.append(f"{way}: a successor after {took:.1f} s, {len(failed)} sessions died with the worker")
    took, reply = hanging.never_return(_sub(directory, "never"))
    lines.append(f"a hook that never returns: {reply[:9]} after {took:.1f} s, the next session is served")
    failed, log = hanging.fail_to_load(_sub(directory, "load"), SESSIONS)
    lines.append(f"an application that fails on reload: {len(failed)} sessions failed, the old workers stay")
    return "\n    ".join(lines), good and not failed and "half a deployment" in log


def _stop(directory: Path) -> Found:
    found = stopping.stop(directory, SESSIONS)
    heard = "; ".join(f"{name}: {' or '.join(sorted(set(replies)))}" for name, replies in found.replies.items())
    text = (
        f"a stop: {heard}\n    exit code {found.code}, {found.unstored} acknowledged messages not stored,"
        f" {len(found.broken)} other sessions broken"
    )
    ended = all(reply.endswith("421 4.3.2") for replies in found.replies.values() for reply in replies)
    return text, ended and not found.broken and (found.code, found.unstored) == (0, 0)


def _switch(directory: Path) -> Found:
    directories = [_sub(directory, str(number)) for number in range(SWITCH_ROUNDS)]
    ours, pythons = switching.compare(directories, SWITCH_SECONDS, _PYTHONS_INTERVAL)
    text = (
        f"8 threads burn CPU: NOOP median {ours.median:.1f} ms, p99 {ours.p99:.1f} ms, {ours.rate:.0f} messages/s; with"
        f" Python's switch interval {pythons.median:.1f} ms, {pythons.p99:.1f} ms, {pythons.rate:.0f} messages/s"
    )
    return text, ours.p99 < _MOST_P99_MS and ours.rate >= _LEAST_THROUGHPUT * pythons.rate


def _cost(directory: Path) -> Found:
    costs = costing.compare(directory, COST_ROUNDS, COST_MESSAGES)
    alone, together, apart = (costs[layout] for layout in (costing.ALONE, costing.TOGETHER, costing.APART))
    alone_kept, together_kept = costs[costing.ALONE_KEPT], costs[costing.TOGETHER_KEPT]
    text = (
        f"CPU of a message, each worker on a CPU with its load: {alone_kept:.0f} us with 1 worker,"
        f" {together_kept:.0f} us with 2: {together_kept / alone_kept:.3f}\n    where all run anywhere:"
        f" {alone:.0f} us with 1 worker, {together:.0f} us with 2: {together / alone:.3f};"
        f" {apart:.0f} us with 2 servers of 1 worker each: {apart / alone:.3f}"
    )
    return text, together_kept <= _MOST_COST * alone_kept


def _sub(directory: Path, name: str) -> Path:
    (directory / name).mkdir()
    return directory / name


PARTS: Mapping[str, Callable[[Path], Found]] = {
    "replace": _replace,
    "scale": _scale,
    "kill": _kill,
    "hang": _hang,
    "stop": _stop,
    "switch": _switch,
    "cost": _cost,
}


def main(names: list[str]) -> int:
    """Play these parts, or all; returns the exit code."""
    if unknown := set(names) - set(PARTS):
        print(f"no such part: {', '.join(sorted(unknown))}; there is {', '.join(PARTS)}", file=sys.stderr)
        return 2
    bad = 0
    for name in names or PARTS:
        with tempfile.TemporaryDirectory(prefix="fastsmtp-chaos-") as directory:
            began = time.monotonic()
            text, good = PARTS[name](Path(directory))
        load = os.getloadavg()[0]
        verdict = "ok" if good else "BAD"
        print(f"{verdict:3} {name} ({time.monotonic() - began:.0f} s, load {load:.1f})\n    {text}", flush=True)
        bad += not good
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
