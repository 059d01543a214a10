"""Measures everything that docs/benchmarks.md is made from, and keeps it in docs/benchmarks.json: half an hour."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from loadtest.bench import curves, profiles
from loadtest.bench.__main__ import KNOWN, measure
from loadtest.bench.programs import ROOT, found

DATA: Final = ROOT / "docs" / "benchmarks.json"
_CURVE_ROUNDS: Final = 2


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of fastsmtp")
    parser.add_argument("--only", choices=("tables", "curves", "profiles"), help="the rest stays as it was measured")
    arguments = parser.parse_args()
    python, py_spy = arguments.python, str(Path(sys.executable).with_name("py-spy"))
    steps: dict[str, Callable[[], Any]] = {
        "tables": lambda: measure(KNOWN, python, sys.executable, arguments.rounds, 1.0),
        "curves": lambda: curves.measure_all(python, _CURVE_ROUNDS),
        "profiles": lambda: profiles.measure_all(python, found("py-spy") or py_spy),
    }
    data: dict[str, Any] = json.loads(DATA.read_text()) if DATA.exists() else {}
    for name, step in steps.items():
        if arguments.only in (None, name):
            data[name] = _rounded(step())
            DATA.write_text(json.dumps(data, indent=1) + "\n")


def _rounded(value: Any) -> Any:
    """Four digits are more than any figure is good for."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
