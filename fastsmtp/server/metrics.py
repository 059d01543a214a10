"""The scoreboard as Prometheus and OpenMetrics want it; docs/metrics.md is made from what comes out here.

Counters and histograms are sums over all workers that ever were; gauges have a label ``worker``, the slot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector

from ..queue import Statistics
from .columns import HISTOGRAMS, Family, Histogram, Kind, State
from .scoreboard import Scoreboard, Slot, families

PREFIX = "fastsmtp_"


class Metrics(Collector):
    """Reads the scoreboard each time somebody asks."""

    def __init__(self, scoreboard: Scoreboard, queue: Callable[[], Statistics | None]) -> None:
        self._scoreboard = scoreboard
        self._queue = queue
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the form that an Accept field asks for, and its content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # prometheus_client raises various things for a version that is no number
            encode, content_type = generate_latest, "text/plain; version=0.0.4; charset=utf-8"
        return encode(self._registry), content_type

    def describe(self) -> list[Metric]:
        """Nothing to check at registration: we are the only collector."""
        return []

    def collect(self) -> Iterator[Metric]:
        slots, totals = self._scoreboard.slots(), self._scoreboard.totals()
        yield InfoMetricFamily(f"{PREFIX}build", "The version that runs.", {"version": version("fastsmtp")})
        yield self._server_started()
        yield from _processes(slots)
        for family in families(Kind.GAUGE):
            yield _gauge(family, slots)
        for family in families(Kind.COUNTER):
            yield _counter(family, totals)
        for histogram in HISTOGRAMS:
            yield _histogram(histogram, totals)
        if (queue := self._queue()) is not None:
            yield from _queued(queue)

    def _server_started(self) -> Metric:
        return GaugeMetricFamily(
            f"{PREFIX}start_time_seconds",
            "When the master was started, in Unix seconds.",
            self._scoreboard.server().started,
        )


def _processes(slots: Sequence[Slot]) -> Iterator[Metric]:
    """What is not counted, but seen."""
    count = GaugeMetricFamily(f"{PREFIX}processes", "Worker processes by what they do.", labels=["worker", "state"])
    started = GaugeMetricFamily(
        f"{PREFIX}worker_start_time_seconds", "When the youngest process was started, Unix seconds.", labels=["worker"]
    )
    age = GaugeMetricFamily(
        f"{PREFIX}loop_stamp_age_seconds",
        "Since the event loop of the process that serves turned last; over 2 it hangs.",
        labels=["worker"],
    )
    for slot in slots:
        for state in (State.STARTING, State.READY, State.DRAINING):
            members = sum(process.state is state for process in slot.processes)
            count.add_metric([str(slot.number), state.name.lower()], members)
        if slot.processes:
            started.add_metric([str(slot.number)], max(process.started for process in slot.processes))
        ages = [process.stamp_age for process in slot.processes if process.state is State.READY]
        for seconds in [each for each in ages if each is not None][:1]:
            age.add_metric([str(slot.number)], seconds)
    yield from (count, started, age)


def _queued(queue: Statistics) -> Iterator[Metric]:
    """What waits in the store, where it is a queue; it is looked at every few seconds."""
    items = GaugeMetricFamily(f"{PREFIX}queue_items", "Items in the queue by state.", labels=["state"])
    for state, count in queue.items.items():
        items.add_metric([state.name.lower()], count)
    age = 0.0 if queue.oldest is None else max(0.0, time.time() - queue.oldest)
    yield items
    yield GaugeMetricFamily(
        f"{PREFIX}queue_oldest_age_seconds", "Since the oldest item was accepted that is neither held nor dead.", age
    )
    yield GaugeMetricFamily(
        f"{PREFIX}queue_unreachable_shards", "Databases of the queue that did not answer.", len(queue.unreachable)
    )


def _gauge(family: Family, slots: Sequence[Slot]) -> Metric:
    metric = GaugeMetricFamily(PREFIX + family.metric, family.help, labels=["worker"])
    for slot in slots:
        metric.add_metric([str(slot.number)], slot.cells[family.columns[0].index] * family.scale)
    return metric


def _counter(family: Family, totals: Sequence[int]) -> Metric:
    metric = CounterMetricFamily(PREFIX + family.metric, family.help, labels=family.labels)
    for column in family.columns:
        metric.add_metric(column.labels, totals[column.index])
    return metric


def _histogram(histogram: Histogram, totals: Sequence[int]) -> Metric:
    family = histogram.family
    metric = HistogramMetricFamily(PREFIX + family.metric, family.help)
    counts = accumulate(totals[histogram.first : histogram.sum])
    bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
    metric.add_metric([], list(zip(bounds, counts, strict=True)), totals[histogram.sum] * family.scale)
    return metric
