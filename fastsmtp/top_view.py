"""What ``fastsmtp top`` shows, drawn with rich."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .interval import Interval, Status

_SHARES: Final = (0.5, 0.95, 0.99)
_LATE: Final = 0.1  # seconds of loop lag that are marked
_HANGS: Final = 3.0  # seconds since the last turn of a loop
_OVERLOAD: Final = ("", "MAIL gets 451", "new clients get 421", "no connection is accepted")  # by the gauge
_MOST: Final = 8  # rows of a list
_STYLES: Final = {"ready": "green", "starting": "yellow", "draining": "yellow"}


def frame(interval: Interval, trouble: str | None = None) -> RenderableType:
    """One frame.

    Args:
        interval: what happened since the frame before.
        trouble: why there is no newer one.
    """
    status = interval.after
    parts: list[RenderableType] = [_head(status)]
    if trouble:
        parts.append(Text(trouble, "bold red"))
    parts += [Text(text, "bold yellow") for text in _conditions(status)]
    parts += ["", Columns([_rates(interval), _times(interval)], padding=(0, 4)), "", _workers(interval)]
    lists = [*(_counted(interval, name) for name in ("refusals", "commands", "replies")), _queue(status)]
    if shown := [each for each in lists if each]:
        parts += ["", Columns(shown, padding=(0, 4))]
    return Group(*parts)


def _head(status: Status) -> Text:
    return Text.assemble(
        ("fastsmtp ", "bold"),
        f"{status['version']}  ",
        (status["state"], f"bold {_STYLES.get(status['state'], 'red')}"),
        f"  pid {status['pid']}, up {_duration(status['uptime_seconds'])}  {', '.join(status['listeners'])}",
    )


def _conditions(status: Status) -> Iterator[str]:
    """What is not as it should be."""
    wanted = status.get("workers_wanted", len(status["workers"]))  # those above are about to leave
    for worker in status["workers"]:
        name = f"worker {worker['worker']}"
        if not worker["ready"] and worker["worker"] < wanted and status["state"] == "ready":
            yield f"{name} does not serve"
        for process in worker["processes"]:
            if (process["stamp_age_seconds"] or 0) > _HANGS:
                yield f"{name} hangs: its event loop has not turned for {process['stamp_age_seconds']:.0f} s"
            if process["mail_refused"]:
                yield f"{name} refuses MAIL with 452: the store has no room"
            if process["stressed"]:
                yield f"{name} is under stress: connections are scarce"
            if overload := process.get("overload"):
                yield f"{name} is overloaded: {_OVERLOAD[int(overload)]}"
    last = status["last_reload"]
    if last and last["outcome"] == "given_up":
        yield f"the last reload was given up: {last['reason']}"


def _grid(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.strip(), justify="right" if column.startswith(" ") else "left", no_wrap=True)
    return table


def _rates(interval: Interval) -> Table:
    table = _grid("", " per second", " in all", title="Rates")
    totals = interval.after["totals"]
    refused = totals["refused_connections"]
    rows = [
        ("messages accepted", interval.rate("messages", "accepted"), totals["messages"]["accepted"]),
        ("messages refused", interval.rate("messages", "refused"), totals["messages"]["refused"]),
        ("kB accepted", interval.rate("message_bytes") / 1000, totals["message_bytes"] // 1000),
        ("connections", interval.rate("connections"), totals["connections"]),
        ("turned away", interval.rate("refused_connections"), sum(refused.values())),
    ]
    for name, rate, total in rows:
        table.add_row(name, _number(rate), f"{total:,}")
    return table


def _times(interval: Interval) -> Table:
    table = _grid("", " median", " 95 %", " 99 %", title="Times")
    for title, name in (("message", "message_seconds"), ("store", "store_seconds"), ("hooks", "hook_seconds")):
        table.add_row(title, *(_seconds(interval.quantile(name, share)) for share in _SHARES))
    return table


def _workers(interval: Interval) -> Table:
    table = _grid(*("Worker", " pid", "state", " open", " new/s", " lag", " busy", " waiting", " MiB", " CPU %"))
    for worker in interval.after["workers"]:
        number = worker["worker"]
        accepts, cpu = interval.rate("connections", None, number), interval.rate("cpu_seconds", None, number)
        for place, process in enumerate(_serving_first(worker["processes"])):
            of_slot = (_number(accepts), f"{cpu * 100:.0f}") if place == 0 else ("", "")
            table.add_row(str(number) if place == 0 else "", *_process(process, *of_slot))
        if not worker["processes"]:
            table.add_row(str(number), "-", Text("no process", "bold red"))
    return table


def _serving_first(processes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(processes, key=lambda process: (process["state"] != "ready", -process["started"]))


def _process(process: dict[str, Any], accepts: str, cpu: str) -> list[RenderableType]:
    lag = process["loop_lag_seconds"]
    return [
        str(process["pid"]),
        Text(process["state"], _STYLES[process["state"]]),
        str(process["open_connections"]),
        accepts,
        Text(_seconds(lag), "bold red" if lag >= _LATE else ""),
        f"{process['threads_busy']}/{process['threads']}",
        str(process["hooks_pending"]),
        f"{process['rss_bytes'] / 2**20:.0f}",
        cpu,
    ]


def _counted(interval: Interval, name: str) -> Table | None:
    rows = interval.counted(name)[:_MOST]
    table = _grid(name.capitalize(), " per second", " in all")
    for label, recent, total in rows:
        table.add_row(label.replace("_", " "), _number(recent / interval.seconds), f"{total:,}")
    return table if rows else None


def _queue(status: Status) -> Table | None:
    queue = status.get("queue")
    if not queue:
        return None
    table = _grid("Queue", " items")
    for state, count in queue["items"].items():
        table.add_row(state, f"{count:,}")
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.{0 if value >= 0.1 else 1}f} ms"


def _duration(seconds: int) -> str:
    minutes, hours = seconds // 60, seconds // 3600
    if hours:
        return f"{hours // 24} d {hours % 24} h" if hours >= 48 else f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
