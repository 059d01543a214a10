"""The scoreboard as JSON: what ``/status`` says. Names stay as they are; new ones may come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ..queue import Statistics
from .children import how_it_ended
from .columns import (
    HISTOGRAMS,
    OF_THE_MASTER,
    RELOAD_FAILURE,
    RELOADS_DONE,
    RELOADS_GIVEN_UP,
    Family,
    Kind,
    State,
)
from .scoreboard import Process, Scoreboard, Slot, families


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the server before it forks.

    Attributes:
        pid: the master's.
        listeners: addresses with their options.
        admin: where the admin process listens.
        token: what a request over TCP needs to control the server; None: it cannot.
        queue: the URL of the store, where it is a queue.
    """

    pid: int
    listeners: tuple[str, ...]
    admin: str
    token: str | None
    queue: str | None = None


def status(scoreboard: Scoreboard, facts: Facts, queue: Statistics | None = None) -> dict[str, Any]:
    """Everything, as JSON takes it; with what is known of the queue, if the store is one."""
    server = scoreboard.server()
    return {
        "version": version("fastsmtp"),
        "pid": facts.pid,
        "state": server.state.name.lower(),
        "started": server.started,
        "uptime_seconds": max(0, int(time.time()) - server.started),
        "listeners": list(facts.listeners),
        "admin": facts.admin,
        "workers": [_worker(slot) for slot in scoreboard.slots()],
        "last_reload": _reload(server),
        "totals": counted(scoreboard.totals()),
        "queue": None if queue is None else queue.as_json(time.time()),
    }


def why_not_ready(scoreboard: Scoreboard) -> str | None:
    """What keeps the server from serving in full; None if nothing does."""
    if scoreboard.server().state is State.DRAINING:
        return "draining"
    missing = [str(slot.number) for slot in scoreboard.slots() if not slot.is_ready]
    if not missing:
        return None
    return f"worker{'s' if len(missing) > 1 else ''} {', '.join(missing)} not ready"


def _reload(server: Process) -> dict[str, Any] | None:
    """How the last reload went; None if there was none."""
    if not server.cells[RELOADS_DONE] + server.cells[RELOADS_GIVEN_UP]:
        return None
    failure = server.cells[RELOAD_FAILURE]
    if not failure:
        return {"outcome": "done", "reason": None}
    how = how_it_ended(failure - 256)
    return {"outcome": "given_up", "reason": f"a new worker did not start ({how}); the log says why"}


def _worker(slot: Slot) -> dict[str, Any]:
    return {
        "worker": slot.number,
        "ready": slot.is_ready,
        "processes": [_process(process) for process in slot.processes],
        "totals": {name: count for name, count in counted(slot.cells).items() if name not in OF_THE_MASTER},
    }


def _process(process: Process) -> dict[str, Any]:
    age = process.stamp_age
    gauges = {family.name: process.cells[family.columns[0].index] * family.scale for family in families(Kind.GAUGE)}
    return {
        "pid": process.pid,
        "state": process.state.name.lower(),
        "started": process.started,
        "stamp_age_seconds": None if age is None else round(age, 3),
        **gauges,
    }


def counted(cells: Sequence[int]) -> dict[str, Any]:
    """Counters and histograms by name; of the refusals those that there were."""
    result: dict[str, Any] = {family.name: _counter(family, cells) for family in families(Kind.COUNTER)}
    for each in HISTOGRAMS:
        count, total = sum(cells[each.first : each.sum]), cells[each.sum] * each.family.scale
        result[each.family.name] = {"count": count, "sum": total}
    return result


def _counter(family: Family, cells: Sequence[int]) -> int | dict[str, int]:
    if not family.labels:
        return cells[family.columns[0].index]
    by_label = {column.labels[0]: cells[column.index] for column in family.columns}
    return {label: count for label, count in by_label.items() if count} if family.name == "refusals" else by_label
