"""Writes docs/benchmarks.md and its pictures from docs/benchmarks.json, which `loadtest.bench.measurements` keeps."""

from __future__ import annotations

import json
from pathlib import Path

from loadtest.bench import plots
from loadtest.bench.measurements import DATA
from loadtest.bench.page import PAGE, page


def main() -> None:
    """Write them all."""
    data = json.loads(Path(DATA).read_text())
    plots.draw_all(data, PAGE.with_suffix(""))
    PAGE.write_text(page(data))


if __name__ == "__main__":
    main()
