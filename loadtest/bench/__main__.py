"""Measures fastsmtp and its peers side by side: ``make bench``.

python -m loadtest.bench                          # everything: about ten minutes
python -m loadtest.bench session stream --scale 0.2 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from loadtest.bench import busy, durable, handshakes, idle, machine, throughput
from loadtest.bench.peers import Peer, peers
from loadtest.bench.processes import end_servers_when_told_to_end
from loadtest.bench.tables import Rows, overview, table

IDLE: Final = (4000, 10000)
OTHERS: Final = ("idle", "starttls", "durable", "busy")
KNOWN: Final = (*throughput.SCENARIOS, *OTHERS)


def _idle(everybody: Sequence[Peer], count: int) -> Rows:
    rows = {}
    for peer in everybody:
        try:
            rows[peer.name] = idle.measure(peer, count)
        except (OSError, RuntimeError) as error:
            print(f"  left out: {peer.name}: {error}", flush=True)
    return rows


def _durable(python: str, rounds: int, scale: float) -> Rows:
    there = [peer for peer in durable.peers(python) if not peer.missing]
    rows = throughput.measure(durable.SCENARIO, there, rounds, scale)
    for row in rows.values():
        del row["x_floor"]  # the first one is no floor here
    return rows


def _say(title: str, rows: Rows) -> Rows:
    print(f"\n### {title}\n\n{table(rows)}", flush=True)
    return rows


def measure(names: Sequence[str], python: str, peer_python: str, rounds: int, scale: float) -> dict[str, Any]:
    """Measure scenarios, and print a table for each."""
    results: dict[str, Any] = {"machine": machine.of_machine(), "interpreter": machine.of_interpreter(python)}
    print(machine.described(results["machine"], results["interpreter"]), flush=True)
    everybody = [peer for peer in peers(python, peer_python) if not peer.missing]
    absent = [peer.name for peer in peers(python, peer_python) if peer.missing]
    if absent:
        print(f"not installed: {', '.join(absent)}", flush=True)
    results["scenarios"] = {
        name: _say(f"{name}: {scenario.about}", throughput.measure(scenario, everybody, rounds, scale))
        for name, scenario in throughput.SCENARIOS.items()
        if name in names
    }
    others: dict[str, Callable[[], Any]] = {
        "idle": lambda: {
            str(count): _say(f"idle: {count} sessions", _idle(everybody, count))
            for count in (max(20, int(each * min(scale, 1))) for each in IDLE)
        },
        "starttls": lambda: {
            key: _say(f"starttls: {key}", handshakes.measure(python, key, rounds, scale)) for key in handshakes.KEYS
        },
        "durable": lambda: _say(f"durable: {durable.SCENARIO.about}", _durable(python, rounds, scale)),
        "busy": lambda: _say("busy: a hook that burns 5 ms", busy.measure(python, (1, 2), rounds, scale)),
    }
    results |= {name: others[name]() for name in OTHERS if name in names}
    if results["scenarios"]:
        print(f"\n### All together\n\n{overview(results['scenarios'], names)}")
    return results


def main() -> None:
    """The command line."""
    end_servers_when_told_to_end()
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scenario", nargs="*", choices=[[], *KNOWN], help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of messages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of fastsmtp")
    parser.add_argument("--peer-python", default=sys.executable, help="one that has aiosmtpd and uvloop")
    arguments = parser.parse_args()
    results = measure(
        arguments.scenario or KNOWN, arguments.python, arguments.peer_python, arguments.rounds, arguments.scale
    )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
