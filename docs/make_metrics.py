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
| `/` | GET | a page for people: see [below](#the-page) |
| `/metrics` | GET | what is below, as Prometheus text or OpenMetrics, by the Accept field |
| `/livez` | GET | 200 while master and admin process live |
| `/readyz` | GET | 200 if each slot has a worker that serves and the server does not drain; else 503 and why |
| `/status` | GET | all of it as JSON: the server, each process, what each slot and all together have counted |
| `/trace` | GET | the dialogue of sessions as it happens, see [below](#traces); needs the same right as POST |
| `/reload` | POST | 202; as HUP: settings are read anew, the workers are replaced |
| `/scale?workers=N` | POST | 202; there are to be so many workers. 409 if there cannot be |
| `/stop` | POST | 202; as TERM: sessions may end, then the server does. 409 if it drains already |

Everybody who reaches the address may read. POST needs the unix socket, which has the mode `admin_mode`, or over TCP
`Authorization: Bearer TOKEN` with the `admin_token` of the server; else it gets 403. There is no TLS: across machines
put a proxy in front.

    fastsmtp ctl status       # what the server does and has done
    fastsmtp ctl workers      # a line for each process
    fastsmtp ctl reload       # waits; exit code 1 if it was given up
    fastsmtp ctl scale 8      # so many workers from now on
    fastsmtp ctl stop         # begins to stop
    fastsmtp ctl drain        # stops, and waits for the last session
    fastsmtp healthcheck      # exit code 0 if /readyz says 200
    fastsmtp top              # live, in a terminal; needs pip install 'fastsmtp[top]'
    fastsmtp trace            # what clients and server say, as it happens

They find the server by `--admin`, else by the same settings as the server: `FASTSMTP_ADMIN`, `FASTSMTP_ADMIN_TOKEN`,
or the TOML file. Without an admin process `healthcheck` connects to the first listener and expects a 220. `--json`
prints JSON.

## The page

`http://127.0.0.1:8025/` shows the last five minutes as plots, each process, what was refused, and what happens while
somebody looks: workers that are replaced or die, a server that drains, a full store, stress. It needs nothing from
elsewhere: its scripts and styles come from the server, and its policy forbids the rest.

![The page on a desktop](images/page-desktop.png)

<img src="images/page-phone.png" alt="The page on a phone" width="260">

`fastsmtp top` shows the same in a terminal; `--once` prints one frame, for scripts. Rates and quantiles are of the time
between two looks. A quantile is interpolated within a bucket, as Prometheus does it.

## Traces

    fastsmtp trace --peer 192.0.2.0/24
    fastsmtp trace --rcpt example.com --duration 60 --json
    fastsmtp trace --listener 127.0.0.1:2525

Shows sessions that begin from now on and match all that is asked for: every command, every reply, TLS, how it ended.
With `--rcpt` a session is shown from the moment at which such a recipient was named, with what was said before. Of AUTH
only verb and mechanism are shown, of responses and challenges nothing, of content the number of octets.

Workers begin to trace within a second. Several traces may run at a time, up to 8. While nobody traces it costs nothing;
who reads too slowly loses records, and is told how many (`dropped`). A worker that cannot get rid of a record counts it
in `fastsmtp_trace_records_total{outcome="dropped"}`; no session waits.

`/trace` takes `peer`, `rcpt`, `listener` and `duration` (seconds) in its query and gives JSON, one object a line. Each
has `time` (Unix seconds) and `event`; those of a session `session` and `worker`.

| event | has | |
|---|---|---|
| `tracing` | `worker` | this worker traces from now on |
| `begin` | `peer`, `local`, `listener`, `tls` | a client has connected |
| `command` | `line` | what the client said |
| `content` | `octets` | content of a message has arrived |
| `reply` | `lines` | what the server said |
| `tls` | `version`, `cipher` | a handshake is done |
| `end` | `end`, `messages` | the session is over, with so many messages accepted |
| `dropped` | `records` | so many were lost |
| `over` | | the duration has passed |

## Prometheus

```yaml
scrape_configs:
  - job_name: fastsmtp
    static_configs:
      - targets: ["127.0.0.1:8025"]
rule_files:
  - prometheus-alerts.yml
```

[prometheus-alerts.yml](prometheus-alerts.yml) has rules to begin with: a server or worker that is missing, dies or
hangs, reloads that were given up, a full store, stress, slow messages, refused logins.

## Names

Counters and histograms are sums over all workers since the server was started; they go on when a worker is replaced or
dies. One that is killed takes up to a second of commands, replies and histograms along, but no count of messages.
Gauges are looked at once a second, and have a label `worker`, the number of the slot. A worker and a predecessor
that still drains are one slot: its gauges are their sum; of lag, refusal, stress, overload and pause the larger one.
`fastsmtp_worker_connections_total` shows how evenly connections are spread.

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
