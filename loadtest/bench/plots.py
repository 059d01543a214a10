"""The pictures of docs/benchmarks.md, as SVG. The same data makes the same files, octet by octet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib  # type: ignore[import-not-found]  # in the benchmark's own environment only

matplotlib.use("svg")
from matplotlib import pyplot

from loadtest.bench.curves import Curve

_SETTINGS: Final = {"svg.hashsalt": "fastsmtp", "svg.fonttype": "none", "axes.grid": True, "grid.alpha": 0.3}
_COLOURS: Final = {
    "floor": "#888888",
    "fastsmtp async": "#0b6e4f",
    "fastsmtp threads": "#6bbf59",
    "fastsmtp threads, one CPU": "#2f7d32",
    "smtp-sink": "#c1440e",
    "aiosmtpd": "#3366aa",
    "smtp-server": "#b8860b",
    "Haraka": "#7a3e9d",
}
_PERCENTILES: Final = {"p50_us": "p50", "p99_us": "p99", "p999_us": "p99.9"}


def draw_all(data: Mapping[str, Any], directory: Path) -> None:
    """Write every picture into a directory."""
    directory.mkdir(exist_ok=True)
    curves = data["curves"]
    with matplotlib.rc_context(_SETTINGS):
        _curve(curves["size"], "octets a message", _cpu_of, directory / "size.svg")
        _curve(curves["recipients"], "recipients a message", _cpu_of, directory / "recipients.svg")
        _curve(curves["sessions"], "sessions at work", _cpu_of, directory / "sessions.svg")
        _curve(curves["sessions"], "sessions at work", _p99_of, directory / "sessions-p99.svg")
        _workers(curves["workers"], directory / "workers.svg")
        for name in ("session", "stream"):
            _latencies(data["tables"]["scenarios"][name], directory / f"latency-{name}.svg")


_Figure = tuple[str, Callable[[Mapping[str, float]], float]]
_cpu_of: Final[_Figure] = ("CPU per message, microseconds", lambda row: row["cpu_us"])
_p99_of: Final[_Figure] = ("latency of a message, p99, milliseconds", lambda row: row["p99_us"] / 1000)


def _curve(curve: Curve, along: str, figure: _Figure, path: Path) -> None:
    """A line for each server, both axes logarithmic."""
    picture, axes = pyplot.subplots(figsize=(7, 4))
    label, of = figure
    servers = dict.fromkeys(server for rows in curve.values() for server in rows)
    for server in servers:
        points = [(int(point), of(rows[server])) for point, rows in curve.items() if server in rows]
        axes.plot(*zip(*points, strict=True), marker="o", label=server, color=_COLOURS[server])
    axes.set(xscale="log", yscale="log", xlabel=along, ylabel=label)
    axes.legend()
    _save(picture, path)


def _workers(curve: Curve, path: Path) -> None:
    picture, axes = pyplot.subplots(figsize=(7, 4))
    points = [(int(count), rows["fastsmtp async"]["rate"]) for count, rows in curve.items()]
    axes.plot(*zip(*points, strict=True), marker="o", color=_COLOURS["fastsmtp async"])
    axes.set(xlabel="workers", ylabel="messages/s", xticks=[count for count, _ in points])
    axes.set_ylim(bottom=0)
    _save(picture, path)


def _latencies(rows: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Groups of bars: percentiles of each server."""
    picture, axes = pyplot.subplots(figsize=(7, 4))
    width = 0.8 / len(rows)
    for number, (server, row) in enumerate(rows.items()):
        places = [place + (number - len(rows) / 2 + 0.5) * width for place in range(len(_PERCENTILES))]
        axes.bar(places, [row[name] / 1000 for name in _PERCENTILES], width, label=server, color=_COLOURS[server])
    axes.set(yscale="log", ylabel="latency of a message, milliseconds", xticks=range(len(_PERCENTILES)))
    axes.set_xticklabels(_PERCENTILES.values())
    axes.legend(fontsize="small")
    _save(picture, path)


def _save(picture: Any, path: Path) -> None:
    picture.tight_layout()
    picture.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(picture)
