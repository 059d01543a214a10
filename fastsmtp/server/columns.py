"""What a process counts: the columns of its row in the scoreboard, each declared here once.

A constant is the place of its cell in a row: ``cells[MESSAGES_ACCEPTED] += 1``. Metrics, ``/status`` and
docs/metrics.md are made from the same declarations. A cell is an unsigned number of 64 bits. Counters and histograms
outlive their process, for who takes its row over goes on counting; facts and gauges are set to zero when it has ended.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from math import inf
from typing import Final

from ..protocol import replies
from ..protocol.replies import HostReplies, Reply

_Codes = tuple[int, str | None]


class Kind(Enum):
    """What the number in a cell is."""

    FACT = "fact"
    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class State(IntEnum):
    """Of a process, and in the master's row of the server."""

    FREE = 0  # nobody has the row
    STARTING = 1
    READY = 2
    DRAINING = 3


@dataclass(frozen=True, slots=True)
class Column:
    """One cell of a row."""

    family: Family
    index: int
    labels: tuple[str, ...]  # values, one for each label of the family


@dataclass(slots=True, eq=False)
class Family:
    """Columns that count the same thing and differ in their labels.

    Attributes:
        name: the key in ``/status``.
        metric: the name in ``/metrics``, without prefix and ``_total``; there in base units.
        scale: what a cell is multiplied by to get base units.
        combine: makes one number of several processes'.
        bounds: of a histogram's buckets, in base units, each included in its bucket.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    metric: str = ""
    scale: float = 1
    combine: Callable[[Sequence[int]], int] = sum
    bounds: tuple[float, ...] = ()
    columns: list[Column] = field(default_factory=list)

    def __call__(self, *labels: str) -> int:
        """Declare the column with these label values; returns its index."""
        self.columns.append(Column(self, len(COLUMNS), labels))
        COLUMNS.append(self.columns[-1])
        return self.columns[-1].index


COLUMNS: Final[list[Column]] = []
FAMILIES: Final[list[Family]] = []


def _family(
    name: str,
    kind: Kind,
    help: str,
    *labels: str,
    metric: str = "",
    scale: float = 1,
    combine: Callable[[Sequence[int]], int] = sum,
) -> Family:
    FAMILIES.append(Family(name, kind, help, labels, metric or name, scale, combine))
    return FAMILIES[-1]


def _fact(name: str, help: str) -> int:
    return _family(name, Kind.FACT, help)()


def _gauge(
    name: str, help: str, metric: str = "", scale: float = 1, combine: Callable[[Sequence[int]], int] = sum
) -> int:
    return _family(name, Kind.GAUGE, help, metric=metric, scale=scale, combine=combine)()


def _counter(name: str, help: str, *labels: str, scale: float = 1) -> Family:
    return _family(name, Kind.COUNTER, help, *labels, scale=scale)


class Histogram:
    """Buckets with fixed bounds, then one for what is larger, then the sum: neighbours in a row.

    Args:
        name: of its family, which ends in the base unit.
        scale: base units that 1 in the cell of the sum is.
        bounds: of the buckets, ascending, in base units.
    """

    __slots__ = ("_units", "bounds", "family", "first", "sum")

    def __init__(self, name: str, help: str, scale: float, *bounds: float) -> None:
        self.family: Final = _family(name, Kind.HISTOGRAM, help, "le", scale=scale)
        self.family.bounds = self.bounds = bounds
        self._units = round(1 / scale)
        self.first: Final = self.family(f"{bounds[0]:g}")
        for bound in bounds[1:]:
            self.family(f"{bound:g}")
        self.family("+Inf")
        self.sum: Final = self.family("sum")

    def observe_all(self, cells: memoryview[int], values: list[float]) -> None:
        """Count values, which are sorted by that; a hundred at once cost a fifth of one at a time, ten the same."""
        values.sort()
        counted = 0
        for number, bound in enumerate((*self.bounds, inf)):
            end = bisect_right(values, bound, counted)
            cells[self.first + number] += end - counted
            counted = end
        cells[self.sum] += int(sum(values) * self._units)

    def observe(self, cells: memoryview[int], value: float) -> None:
        """Count a value, in base units, not negative."""
        cells[self.first + bisect_left(self.bounds, value)] += 1
        cells[self.sum] += int(value * self._units)


# -- process facts ---------------------------------------------------------------------------------------------------

SLOT: Final = _fact("slot", "The place that the process serves.")
PID: Final = _fact("pid", "Of the process; 0 where it does not run yet.")
STARTED: Final = _fact("started", "When it was started, in Unix seconds.")
STATE: Final = _fact("state", "See State.")
STAMP: Final = _fact("stamp", "When its event loop turned last, in ms of the monotonic clock.")

RELOAD_FAILURE: Final = _fact("reload_failure", "In the master's row: 1 if the last reload was given up.")

WORKERS: Final = _fact("workers", "In the master's row: how many workers there are to be.")

# -- gauges ----------------------------------------------------------------------------------------------------------

OPEN_CONNECTIONS: Final = _gauge("open_connections", "Connections open now.")
HOOKS_PENDING: Final = _gauge("hooks_pending", "Hooks for threads that are queued or running.")
THREADS_BUSY: Final = _gauge("threads_busy", "Threads that run a hook.")
THREADS: Final = _gauge("threads", "Threads that may run hooks.")
LOOP_LAG_US: Final = _gauge(
    "loop_lag_seconds", "How late the event loop ran a timer, looked at each second.", scale=1e-6, combine=max
)
RSS_BYTES: Final = _gauge("rss_bytes", "Memory in use, shared pages included.", "resident_memory_bytes")
MAIL_REFUSED: Final = _gauge("mail_refused", "1 while MAIL gets 451 or 452: overload, or a full store.", combine=max)
OVERLOAD: Final = _gauge(
    "overload", "What overload has come to: 1 MAIL is refused, 2 connections are, 3 none is accepted.", combine=max
)
PAUSED: Final = _gauge("paused", "1 while no connection is accepted.", combine=max)
STRESSED: Final = _gauge("stressed", "1 while connections are scarce, see stress_at.", combine=max)

# -- counters --------------------------------------------------------------------------------------------------------

CONNECTIONS: Final = _counter("connections", "Connections accepted, those turned away later included.")()

_refused = _counter("refused_connections", "Connections turned away before a session began.", "reason")
REFUSED_TOO_BUSY: Final = _refused("too_busy")
REFUSED_PER_CLIENT: Final = _refused("per_client")
REFUSED_EARLY_TALKER: Final = _refused("early_talker")
REFUSED_PROXY: Final = _refused("proxy")
REFUSED_TLS_HANDSHAKE: Final = _refused("tls_handshake")

_sessions = _counter("sessions", "Sessions that have ended, by who ended them; quit: the client said QUIT.", "end")
SESSIONS_BY_END: Final = {
    "quit": _sessions("quit"),
    "closed by client": _sessions("closed_by_client"),
    "closed by server": _sessions("closed_by_server"),
}

_messages = _counter("messages", "Messages that got their verdict, the reply to the end of data.", "outcome")
MESSAGES_ACCEPTED: Final = _messages("accepted")
MESSAGES_REFUSED: Final = _messages("refused")
MESSAGE_BYTES: Final = _counter("message_bytes", "Octets of accepted messages.")()

_recipients = _counter("recipients", "Recipients of these messages by the reply to RCPT.", "outcome")
RECIPIENTS_ACCEPTED: Final = _recipients("accepted")
RECIPIENTS_REFUSED: Final = _recipients("refused")

_commands = _counter("commands", "Commands by verb, refused ones included; other: the rest of the known ones.", "verb")
COMMANDS: Final[dict[bytes, int]] = {
    verb: _commands(verb.decode())
    for verb in (
        *(b"EHLO", b"HELO", b"LHLO", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET", b"NOOP", b"QUIT", b"VRFY", b"HELP"),
        *(b"AUTH", b"STARTTLS"),
    )
}
COMMANDS_OTHER: Final = _commands("other")

_replies = _counter("replies", "Replies by the class of their code.", "class")
# Neighbours, in the order of their first digit.
REPLIES_2XX: Final = _replies("2xx")
REPLIES_3XX: Final = _replies("3xx")
REPLIES_4XX: Final = _replies("4xx")
REPLIES_5XX: Final = _replies("5xx")

TIMEOUTS: Final = _counter("timeouts", "Sessions ended by a timeout.")()
SESSIONS_CUT: Final = _counter("sessions_cut", "Sessions cut short because their worker had to leave.")()

_tls_handshakes = _counter("tls_handshakes", "TLS handshakes, by STARTTLS or before the banner.", "outcome")
TLS_HANDSHAKES_COMPLETED: Final = _tls_handshakes("completed")
TLS_HANDSHAKES_FAILED: Final = _tls_handshakes("failed")

_tls_sessions = _counter("tls_sessions", "TLS sessions by version.", "version")
TLS_SESSIONS_1_2: Final = _tls_sessions("1.2")
TLS_SESSIONS_1_3: Final = _tls_sessions("1.3")

_logins = _counter("logins", "Attempts to log in that were decided.", "outcome")
LOGINS_ACCEPTED: Final = _logins("accepted")
LOGINS_REFUSED: Final = _logins("refused")

CPU_US: Final = _counter("cpu_seconds", "CPU time that workers have used, looked at each second.", scale=1e-6)()

_trace_records = _counter("trace_records", "Records of traced sessions, see fastsmtp trace.", "outcome")
TRACE_RECORDS_SENT: Final = _trace_records("sent")
TRACE_RECORDS_DROPPED: Final = _trace_records("dropped")

# The master counts these, in its own row.
OF_THE_MASTER: Final = ("worker_deaths", "worker_hangs", "worker_recycles", "reloads")
WORKER_DEATHS: Final = _counter("worker_deaths", "Workers that died without being told to leave.")()
WORKER_HANGS: Final = _counter("worker_hangs", "Workers killed because their event loop did not turn.")()
WORKER_RECYCLES: Final = _counter("worker_recycles", "Workers replaced for their age, use or memory.")()
_reloads = _counter("reloads", "Reloads that were done, or given up because a new worker did not start.", "outcome")
RELOADS_DONE: Final = _reloads("done")
RELOADS_GIVEN_UP: Final = _reloads("given_up")

# -- refusals by code ------------------------------------------------------------------------------------------------


def _named_codes() -> list[_Codes]:
    """The codes of every named reply that refuses."""
    named = [each for each in (*vars(replies).values(), *vars(HostReplies("host")).values()) if isinstance(each, Reply)]
    return sorted({(each.code, each.enhanced) for each in named if each.code >= 400}, key=str)


_refusals = _counter("refusals", "Replies that refuse, by their codes; other: codes of the application.", "code")
_OTHER: Final = {4: _refusals("other_4xx"), 5: _refusals("other_5xx")}
_REFUSALS: Final[dict[_Codes, int]] = {
    codes: _refusals(" ".join(map(str, filter(None, codes)))) for codes in _named_codes()
}


def refusal_index(reply: Reply) -> int:
    """The column that counts a reply of 4xx or 5xx."""
    index = _REFUSALS.get((reply.code, reply.enhanced))
    return _OTHER[reply.code // 100] if index is None else index


# -- histograms ------------------------------------------------------------------------------------------------------

# From what a quick hook or a message on loopback takes to what a client waits for.
_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_KI, _MI = 2**10, 2**20

MESSAGE_SECONDS: Final = Histogram("message_seconds", "From MAIL to the verdict.", 1e-6, *_SECONDS, 300.0)
MESSAGE_SIZE_BYTES: Final = Histogram(
    "message_size_bytes",
    "Size of messages that got their verdict.",
    1,
    *(_KI, 4 * _KI, 16 * _KI, 64 * _KI, 256 * _KI, _MI, 4 * _MI, 16 * _MI, 64 * _MI),
)
STORE_SECONDS: Final = Histogram("store_seconds", "From a message's verdict to the store's answer.", 1e-6, *_SECONDS)
HOOK_SECONDS: Final = Histogram(
    "hook_seconds", "From question to answer, for hooks in threads and hooks that waited.", 1e-6, *_SECONDS, 300.0
)
LOOP_DELAY_SECONDS: Final = Histogram(
    "loop_delay_seconds", "How late the event loop ran a timer, each second.", 1e-6, *_SECONDS
)
HISTOGRAMS: Final = (MESSAGE_SECONDS, MESSAGE_SIZE_BYTES, STORE_SECONDS, HOOK_SECONDS, LOOP_DELAY_SECONDS)

WIDTH: Final = -(-len(COLUMNS) // 8) * 8
"""Cells of a row: whole cache lines of 64 octets, so that no two processes write to the same one."""
