"""The command ``fastsmtp deliver``: queued mail to the next hop, in several processes, on any machine."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

import click

from .queue import describe
from .queue_commands import queue_option

_log = logging.getLogger("fastsmtp.delivery")
_Command = TypeVar("_Command", bound=Callable[..., None])
_LEVELS = ["debug", "info", "warning", "error"]


def _number(name: str, default: int, help: str, least: int = 1) -> Callable[[_Command], _Command]:
    return click.option(name, type=click.IntRange(least), default=default, show_default=True, metavar="N", help=help)


def _seconds(name: str, default: float, help: str, least: float = 0.1) -> Callable[[_Command], _Command]:
    return click.option(
        name, type=click.FloatRange(least), default=default, show_default=True, metavar="SECONDS", help=help
    )


@click.command("deliver")
@queue_option
@click.option(
    "--to",
    "target",
    required=True,
    metavar="TARGET",
    help="mx: for each domain's own hosts, or a relay: smtp://HOST[:PORT], smtps://, lmtp://HOST:PORT or "
    "lmtp://unix:/PATH; options behind ?, such as tls=required.",
)
@click.option("--dns", metavar="ADDRESS:PORT", help="Name server for mx:; default: the system's.")
@click.option("--hostname", metavar="NAME", help="Who we say we are; default: the machine's full name.")
@_number("--workers", 1, "Processes.")
@_number("--concurrency", 100, "Messages that a process has in hand at a time.")
@_number("--per-destination", 5, "Of these, for one domain.")
@_number("--rate", 0, "Messages a minute for one domain and process; 0: no limit.", 0)
@_seconds("--first-retry", 300, "Wait behind the first failure; it doubles with each, and varies by a fifth.")
@_seconds("--longest-retry", 14400, "The longest wait.")
@_seconds("--notice-after", 14400, "Age at which the sender hears of the delay, once.")
@_seconds("--expire-after", 432000, "Age at which a message is returned to its sender.")
@_number("--max-received", 50, "Received fields of a message that is in no loop.")
@click.option(
    "--dkim",
    "keys",
    multiple=True,
    metavar="DOMAIN:SELECTOR:FILE",
    help="Sign the mail of the domain with this private key, RSA or Ed25519, PEM; may be given several times.",
)
@_seconds("--command-timeout", 300, "Wait for the answer to a command.")
@_seconds("--lease", 300, "After which others deliver the messages of a process that died.", 1)
@_seconds("--drain-timeout", 30, "Time that attempts have to end after a stop.", 0)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of a log line.")
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", help="Least severity logged.")
def deliver(
    url: str,
    target: str,
    dns: str | None,
    hostname: str | None,
    workers: int,
    concurrency: int,
    per_destination: int,
    rate: int,
    first_retry: float,
    longest_retry: float,
    notice_after: float,
    expire_after: float,
    max_received: int,
    keys: Sequence[str],
    command_timeout: float,
    lease: float,
    drain_timeout: float,
    log_format: Literal["text", "json"],
    log_level: str,
) -> None:
    """Take queued mail to the next hop, again and again until it is delivered or too old.

    Senders hear of failures and delays by mail. A line for each recipient and attempt goes to standard output.
    """
    # Here, not above: --help needs none of it.
    from .client import Patience
    from .delivery.schedule import Schedule
    from .delivery.targets import parse_server, parse_target
    from .server import logs
    from .supervision import Supervisor

    try:
        from .delivery import process
        from .delivery.deliverer import Limits
        from .delivery.dkim import Signer
    except ImportError as error:
        raise click.ClickException(f"{error}: pip install 'fastsmtp[delivery]'") from None

    logs.set_up(log_format, log_level)
    with _complaining("--to"):
        by_mx, hop = parse_target(target, per_destination)
    with _complaining("--dns"):
        server = parse_server(dns) if dns else None
    with _complaining("--dkim"):
        signers = [Signer.load(key) for key in keys]  # now, while we can still complain
    orders = process.Orders(
        url=url,
        by_mx=by_mx,
        hop=hop,
        server=server,
        name=hostname or socket.getfqdn(),
        limits=Limits(concurrency, per_destination if by_mx else concurrency, lease),
        schedule=Schedule(first_retry, longest_retry, expiry=expire_after, notice=notice_after),
        per_minute=rate,
        max_received=max_received,
        signers=signers,
        patience=Patience(command=command_timeout, connect=min(30.0, command_timeout)),
        drain_timeout=drain_timeout,
        log_format=log_format,
    )
    _log.info("mail of %s goes to %s", describe(url), "each domain's own hosts" if by_mx else hop)
    sys.exit(Supervisor(workers, lambda ready: process.run(orders, ready), drain_timeout).run())


@contextmanager
def _complaining(option: str) -> Iterator[None]:
    """Makes a wrong value a wrong command line."""
    try:
        yield
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
