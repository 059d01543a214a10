"""Writes metrics.md, beside this file, from what the code counts: ``make metrics``."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.core import Metric

from fastsmtp import queue
from fastsmtp.queue import Statistics
from fastsmtp.server.columns import FAMILIES, STAMP, State
from fastsmtp.server.metrics import PREFIX, Metrics
from fastsmtp.server.scoreboard import Scoreboard

PAGE = Path(__file__).with_name("metrics.md")

_HEAD = """\
# Metrics, health, control

<!-- Made by `make metrics` from fastsmtp/server/columns.py. Do not edit. -->

With the setting `admin` the server has one more process that answers HTTP and never touches mail:

    fastsmtp serve --admin 127.0.0.1:8025
    fastsmtp serve --admin unix:/run/fastsmtp/admin.sock

It reads memory that the workers share, so it answers while they are busy or stopped.

| path | method | answer |
|---|---|---|
| `/metrics` | GET | what is below, as Prometheus text or OpenMetrics, by the Accept field |
| `/livez` | GET | 200 while master and admin process live |
| `/readyz` | GET | 200 if each slot has a worker that serves and the server does not drain; else 503 and why |
| `/status` | GET | all of it as JSON: the server, each process, what each slot and all together have counted |
| `/reload` | POST | 202; as HUP: the workers are replaced |
| `/stop` | POST | 202; as TERM: sessions may end, then the server does. 409 if it drains already |

Everybody who reaches the address may read. POST needs the unix socket, which has the mode `admin_mode`, or over TCP
`Authorization: Bearer TOKEN` with the `admin_token` of the server; else it gets 403. There is no TLS: across machines
put a proxy in front.

    fastsmtp ctl status       # what the server does and has done
    fastsmtp ctl workers      # a line for each process
    fastsmtp ctl reload       # waits; exit code 1 if it was given up
    fastsmtp ctl stop
    fastsmtp healthcheck      # exit code 0 if /readyz says 200

They find the server by `--admin`, else by the same settings as the server: `FASTSMTP_ADMIN`, `FASTSMTP_ADMIN_TOKEN`,
or the TOML file. Without an admin process `healthcheck` connects to the first listener and expects a 220. `--json`
prints JSON.

## Names

Counters and histograms are sums over all workers since the server was started; they go on when a worker is replaced or
dies. Gauges are looked at once a second, and have a label `worker`, the number of the slot. A worker and a predecessor
that still drains are one slot: its gauges are their sum; of lag, refusal and stress the larger one.

Those of the queue are there if the store is one. They are counted every 5 seconds, less often where that takes long.

| metric | type | labels | in `/status` | |
|---|---|---|---|---|
"""


_QUEUE = Statistics(dict.fromkeys(queue.State, 0), None)  # its metrics are there where the store is a queue


def page() -> str:
    """The metrics page."""
    scoreboard = Scoreboard(1)
    row = scoreboard.take(0)
    row.become(State.READY)
    row.cells[STAMP] = 1
    return _HEAD + "".join(_row(metric) for metric in Metrics(scoreboard, lambda: _QUEUE).collect())


def _row(metric: Metric) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    in_status = {PREFIX + family.metric: f"`{family.name}`" for family in FAMILIES}.get(metric.name, "")
    if metric.name.startswith(f"{PREFIX}queue_"):
        in_status = "`queue`"
    kind = "gauge" if metric.type == "info" else metric.type
    return f"| `{metric.name}{suffix}` | {kind} | {_labels(metric)} | {in_status} | {metric.documentation} |\n"


def _labels(metric: Metric) -> str:
    values: dict[str, list[str]] = {}
    for sample in metric.samples:
        for name, value in sample.labels.items():
            values.setdefault(name, []).append(value)
    return "<br>".join(_label(name, given) for name, given in values.items())


def _label(name: str, values: list[str]) -> str:
    if name in ("worker", "version") and len(values) <= 3 and values[0] != "1.2":
        return f"`{name}`"
    return f"`{name}`: {', '.join(dict.fromkeys(values))}"


if __name__ == "__main__":
    PAGE.write_text(page())
