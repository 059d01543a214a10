"""Watches a run, judges it by its thresholds, and sets Locust's exit code."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from typing import Final

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC

from . import steps as names
from .thresholds import Outcome, Thresholds

EXIT_MISSED: Final = 1  # a threshold was missed
_log = logging.getLogger(__name__)


def add_thresholds() -> None:
    """Have Locust know the thresholds as options, watch its CPU, and judge at the end."""
    events.init_command_line_parser.add_listener(_declare)
    events.init.add_listener(_initialize)


def _declare(parser: LocustArgumentParser) -> None:
    add = parser.add_argument_group("SMTP thresholds", "Missed ones set the exit code 1.").add_argument
    add("--max-p95-ms", type=float, env_var="LOCUST_SMTP_MAX_P95_MS", help="Of whole messages.")
    add("--max-p99-ms", type=float, env_var="LOCUST_SMTP_MAX_P99_MS", help="Of whole messages.")
    add(
        "--max-failed-share",
        type=float,
        default=0.0,
        env_var="LOCUST_SMTP_MAX_FAILED_SHARE",
        help="Failed steps for each message.",
    )
    add("--min-messages-per-second", type=float, env_var="LOCUST_SMTP_MIN_MESSAGES_PER_SECOND", help=" ")
    add(
        "--max-generator-cpu",
        type=float,
        env_var="LOCUST_SMTP_MAX_GENERATOR_CPU",
        help="Per cent of a core, of any generator process.",
    )


def thresholds_of(options: Namespace) -> Thresholds:
    """What the options say."""
    return Thresholds(
        options.max_p95_ms,
        options.max_p99_ms,
        options.max_failed_share,
        options.min_messages_per_second,
        options.max_generator_cpu,
    )


class _Judge:
    """Watches a run from its begin, and judges it at its end.

    Args:
        environment: Locust's.
        thresholds: to keep to.
    """

    def __init__(self, environment: Environment, thresholds: Thresholds) -> None:
        self._environment, self._thresholds = environment, thresholds
        self._highest_cpu = 0.0
        self._cpu_at_begin = time.process_time()
        environment.events.usage_monitor.add_listener(self._own_usage)
        environment.events.worker_report.add_listener(self._look_at_workers)
        environment.events.test_start.add_listener(self._begin)
        environment.events.test_stop.add_listener(self._tell_efficiency)
        environment.events.quitting.add_listener(self._judge)

    def _begin(self, **_: object) -> None:
        self._cpu_at_begin = time.process_time()

    def _tell_efficiency(self, **_: object) -> None:
        cpu = time.process_time() - self._cpu_at_begin
        messages = self._environment.stats.get(names.MESSAGE, names.METHOD).num_requests
        if not isinstance(self._environment.runner, MasterRunner) and cpu > 0:
            _log.info("%d messages for %.2f s of CPU: %.0f per second of a core", messages, cpu, messages / cpu)

    def _own_usage(self, cpu_usage: float, **_: object) -> None:
        if not isinstance(self._environment.runner, MasterRunner):  # which generates nothing
            self._highest_cpu = max(self._highest_cpu, cpu_usage)

    def _look_at_workers(self, **_: object) -> None:
        runner = self._environment.runner
        if isinstance(runner, MasterRunner):
            self._highest_cpu = max([self._highest_cpu, *(client.cpu_usage for client in runner.clients.values())])

    def outcome(self) -> Outcome:
        stats = self._environment.stats
        message = stats.get(names.MESSAGE, names.METHOD)
        failed = sum(entry.num_failures for (row, _), entry in stats.entries.items() if row != names.MESSAGE)
        taken = message.num_requests - message.num_failures
        seconds = (message.last_request_timestamp or 0) - message.start_time
        return Outcome(
            message.num_requests,
            failed,
            message.get_response_time_percentile(0.95),
            message.get_response_time_percentile(0.99),
            taken / seconds if seconds > 0 else 0.0,
            self._highest_cpu,
        )

    def _judge(self, **_: object) -> None:
        options = self._environment.parsed_options
        if options is not None and options.csv_prefix:
            gevent.sleep(CSV_STATS_INTERVAL_SEC + 0.5)  # its files are written once a second, and not at the very end
        outcome = self.outcome()
        _log.info("%s", outcome)
        missed = self._thresholds.missed_by(outcome)
        for each in missed:
            _log.error("threshold missed: %s", each)
        if missed:
            self._environment.process_exit_code = EXIT_MISSED
        elif self._environment.process_exit_code is None:
            self._environment.process_exit_code = 0


def _initialize(environment: Environment, **_: object) -> None:
    options = environment.parsed_options
    if options is not None and options.headless and not isinstance(environment.runner, WorkerRunner):
        _Judge(environment, thresholds_of(options))
