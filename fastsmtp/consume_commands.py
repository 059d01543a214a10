"""The command ``fastsmtp consume``: a user's function over queued mail, in several processes, on any machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Literal

import click

from .queue import check_url
from .queue_commands import queue_option

_EXIT_CANNOT_LOAD = 3
_LEVELS = ["debug", "info", "warning", "error"]


@click.command("consume")
@click.argument("app", metavar="APP")
@queue_option
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Items that a process handles at a time.",
)
@click.option(
    "--per-destination", type=click.IntRange(1), metavar="N", help="Of these, for one domain; default: no limit."
)
@click.option(
    "--max-attempts", type=click.IntRange(1), default=10, show_default=True, help="Errors until an item is given up."
)
@click.option(
    "--retry-delay",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="Until the second attempt; it doubles with each, and varies by half.",
)
@click.option(
    "--max-retry-delay",
    type=click.FloatRange(0),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="The longest delay.",
)
@click.option(
    "--lease",
    type=click.FloatRange(1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="After which the items of a process that died are handled by others.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="Time that items in hand have to end after a stop.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of a log line.")
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", help="Least severity logged.")
def consume(
    app: str,
    url: str,
    workers: int,
    concurrency: int,
    per_destination: int | None,
    max_attempts: int,
    retry_delay: float,
    max_retry_delay: float,
    lease: float,
    drain_timeout: float,
    log_format: Literal["text", "json"],
    log_level: str,
) -> None:
    """Call APP, a function written MODULE:ATTRIBUTE, with each item of a queue.

    A def is run in threads, an async def on the event loop. If it returns, the item is done. It may raise Retry or
    Reject of fastsmtp.queue; any other exception is logged, and the item is tried again later. TERM lets what runs
    finish.
    """
    # Here, not above: --help needs none of it.
    from .consumer import process
    from .consumer.function import Caller, Policy
    from .server import application, logs
    from .supervision import Supervisor

    logs.set_up(log_format, log_level)
    check_url(url)
    sys.path.insert(0, os.getcwd())  # `consume inbox:handle` shall find ./inbox.py
    work = process.Work(url, concurrency, per_destination or concurrency, lease, drain_timeout)
    policy = Policy(max_attempts, retry_delay, max_retry_delay)

    def be_consumer(ready: Callable[[], None]) -> int:
        try:
            function: Any = application.load(app)
            if not callable(function):
                raise application.ApplicationError(f"application {app!r} is no function")
        except application.ApplicationError as error:
            click.echo(f"Error: {error}", err=True)
            return _EXIT_CANNOT_LOAD
        return process.run(work, lambda threads: Caller(function, threads, policy).handle, ready)

    sys.exit(Supervisor(workers, be_consumer, drain_timeout).run())
