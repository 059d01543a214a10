"""Measures everything that docs/benchmarks.md is made from, and keeps it in docs/benchmarks.json: half an hour."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from loadtest.bench import curves, profiles
from loadtest.bench.__main__ import KNOWN, measure
from loadtest.bench.processes import end_servers_when_told_to_end
from loadtest.bench.programs import ROOT, found

DATA: Final = ROOT / "docs" / "benchmarks.json"
_CURVE_ROUNDS: Final = 2
_STEPS: Final = ("curves", "profiles")


def main() -> None:
    """The command line."""
    end_servers_when_told_to_end()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of fastsmtp")
    parser.add_argument(
        "--only", nargs="+", choices=(*KNOWN, *_STEPS), help="the rest stays as it was measured", metavar="STEP"
    )
    arguments = parser.parse_args()
    python, py_spy = arguments.python, str(Path(sys.executable).with_name("py-spy"))
    data: dict[str, Any] = json.loads(DATA.read_text()) if DATA.exists() else {"tables": {"scenarios": {}}}
    wanted = arguments.only or (*KNOWN, *_STEPS)
    for name in wanted:
        if name == "curves":
            data[name] = curves.measure_all(python, _CURVE_ROUNDS)
        elif name == "profiles":
            data[name] = profiles.measure_all(python, found("py-spy") or py_spy)
        else:
            _merge(data["tables"], measure([name], python, sys.executable, arguments.rounds, 1.0))
        DATA.write_text(json.dumps(_rounded(data), indent=1) + "\n")


def _merge(tables: dict[str, Any], measured: dict[str, Any]) -> None:
    """Put what was measured in the place of what was measured before."""
    scenarios = tables["scenarios"] | measured.pop("scenarios")
    tables |= measured
    tables["scenarios"] = scenarios


def _rounded(value: Any) -> Any:
    """Four digits are more than any figure is good for."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
