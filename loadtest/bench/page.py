"""docs/benchmarks.md, from the text of benchmarks.md.in and the figures of docs/benchmarks.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, Final

from loadtest.bench import machine, targets
from loadtest.bench.durable import SCENARIO as DURABLE
from loadtest.bench.tables import overview, table
from loadtest.bench.throughput import SCENARIOS

PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_TEXT: Final = Path(__file__).with_name("benchmarks.md.in")


def page(data: Mapping[str, Any]) -> str:
    """The whole page."""
    tables = data["tables"]
    return Template(_TEXT.read_text()).substitute(
        machine=machine.described(tables["machine"], tables["interpreter"]),
        targets=targets.table(tables),
        overview=overview(tables["scenarios"], list(SCENARIOS)),
        scenarios="\n".join(
            f"### {name}: {SCENARIOS[name].about}\n\n{table(rows)}" for name, rows in tables["scenarios"].items()
        ),
        idle="\n".join(f"{int(count):,} sessions:\n\n{table(rows)}" for count, rows in tables["idle"].items()),
        starttls="\n".join(
            f"Certificate with a key {key}:\n\n{table(rows)}" for key, rows in tables["starttls"].items()
        ),
        durable_about=DURABLE.about,
        durable=table(tables["durable"]),
        busy=table(tables["busy"]),
        owners=_owners(data["profiles"]),
        functions="\n".join(_functions(name, profile) for name, profile in data["profiles"].items()),
        **{name: _curve(curve) for name, curve in data["curves"].items()},
    )


def _curve(curve: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """CPU, latency and rate of fastsmtp along a curve."""
    return table({f"{int(point):,}": rows["fastsmtp async"] for point, rows in curve.items()})


def _owners(profiles: Mapping[str, Any]) -> str:
    """A line for each profile: whose code runs."""
    owners = list(dict.fromkeys(owner for profile in profiles.values() for owner in profile["owners"]))
    lines = [["", *owners], ["---", *("--:" for _ in owners)]]
    for name, profile in profiles.items():
        lines.append([name, *(f"{profile['owners'].get(owner, 0):.0%}" for owner in owners)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _functions(name: str, profile: Any) -> str:
    most = [f"`{function}` {share:.0%}" for function, share in profile["functions"].items()]
    return f"* **{name}**: {', '.join(most)}"
