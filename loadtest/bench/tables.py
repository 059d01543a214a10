"""Results as tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Results = Mapping[str, Any]
"""What `loadtest.bench.__main__` writes as JSON."""

Rows = Mapping[str, Mapping[str, float]]

_COLUMNS: Final = {
    "x_floor": ("x floor", "{:.2f}"),
    "x_openssl": ("x openssl", "{:.2f}"),
    "x_first": ("x 1 worker", "{:.2f}"),
    "cpu_us": ("us of CPU", "{:,.1f}"),
    "rate": ("messages/s", "{:,.0f}"),
    "p50_us": ("p50 us", "{:,.0f}"),
    "p99_us": ("p99 us", "{:,.0f}"),
    "p999_us": ("p99.9 us", "{:,.0f}"),
    "client_share": ("CPU of the client", "{:.1%}"),
    "bytes_per_session": ("octets a session", "{:,.0f}"),
    "base_mib": ("MiB without sessions", "{:.1f}"),
    "sessions": ("sessions", "{:,.0f}"),
    "served": ("served at the end", "{:,.0f}"),
}


def table(rows: Rows) -> str:
    """A line for each server, a column for each figure that there is."""
    names = [name for name in _COLUMNS if any(name in row for row in rows.values())]
    lines = [["", *(_COLUMNS[name][0] for name in names)], ["---", *("--:" for _ in names)]]
    lines += [[server, *(_cell(row, name) for name in names)] for server, row in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(row: Mapping[str, float], name: str) -> str:
    return _COLUMNS[name][1].format(row[name]) if name in row else ""


def overview(scenarios: Mapping[str, Rows], names: Sequence[str]) -> str:
    """One figure a server and scenario: CPU per message, x floor."""
    measured = [name for name in names if name in scenarios]
    servers = list(dict.fromkeys(server for name in measured for server in scenarios[name]))
    lines = [["CPU per message, x floor", *measured], ["---", *("--:" for _ in measured)]]
    for server in servers:
        rows = [scenarios[name].get(server, {}) for name in measured]
        lines.append([server, *(_cell(row, "x_floor") for row in rows)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
