"""Command line options, from which the users of a locustfile take what they send and how fast.

They go with Locust's own: --host for the target, --users, --run-time, --html, --csv. A locustfile calls `add_options`
and `apply_options`, or sets the attributes of its users itself.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from locust import constant, constant_throughput, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from .mix import Mix
from .payloads import Payload
from .profiles import PROFILES
from .raw_user import RawSmtpUser
from .smtplib_user import SmtplibUser


def add_options() -> None:
    """Have Locust know the options, and apply them when its run begins."""
    events.init_command_line_parser.add_listener(_declare)
    events.init.add_listener(_initialize)


def _declare(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("SMTP")
    add = group.add_argument
    add("--shape", choices=list(PROFILES), default="closed", env_var="LOCUST_SMTP_SHAPE", help="Load shape.")
    add(
        "--rate",
        type=float,
        default=0.0,
        env_var="LOCUST_SMTP_RATE",
        help="Messages a second with all users; 0: each as fast as the server answers.",
    )
    add("--sizes", default="mix", env_var="LOCUST_SMTP_SIZES", help="Octets of each message, or mix: a realistic one.")
    add("--message", env_var="LOCUST_SMTP_MESSAGE", help="A file: the message to send, instead of made up ones.")
    add("--recipients", default="mix", env_var="LOCUST_SMTP_RECIPIENTS", help="Recipients of each message, or mix.")
    add(
        "--refused-share",
        type=float,
        default=0.0,
        env_var="LOCUST_SMTP_REFUSED_SHARE",
        help="Share of messages, 0 to 1, with one more recipient that is to get a 550.",
    )
    add(
        "--refused-recipient",
        default=Mix.refused_recipient,
        env_var="LOCUST_SMTP_REFUSED_RECIPIENT",
        help="That recipient.",
    )
    add("--messages-per-connection", type=int, default=10, env_var="LOCUST_SMTP_MESSAGES_PER_CONNECTION", help=" ")
    add("--connections", type=int, default=1, env_var="LOCUST_SMTP_CONNECTIONS", help="Of each RawSmtpUser.")
    add("--pipelining", action="store_true", env_var="LOCUST_SMTP_PIPELINING", help="RawSmtpUser pipelines.")


def mix_of(options: Namespace) -> Mix:
    """What the options say is to be sent."""
    standard = Mix()
    return Mix(
        sizes=standard.sizes if options.sizes == "mix" else {int(options.sizes): 1},
        recipients=standard.recipients if options.recipients == "mix" else {int(options.recipients): 1},
        refused_share=options.refused_share,
        refused_recipient=options.refused_recipient,
        payload=_payload(options.message),
    )


def _payload(path: str | None) -> Payload | None:
    if path is None:
        return None
    lines = Path(path).read_bytes().splitlines()
    return Payload.of(b"".join(line + b"\r\n" for line in lines))


def _initialize(environment: Environment, **_: object) -> None:
    options = environment.parsed_options
    if options is not None:
        apply_options(environment, options)


def apply_options(environment: Environment, options: Namespace) -> None:
    """Set the attributes of the environment's SMTP users.

    Raises:
        ValueError: the options do not fit together.
    """
    if options.shape == "constant-throughput" and not options.rate:
        raise ValueError("--shape constant-throughput needs --rate")
    rate = options.rate / (options.num_users or 1) if options.rate else None  # of one user
    for user in environment.user_classes:
        if issubclass(user, RawSmtpUser | SmtplibUser):
            user.mix = mix_of(options)
            user.messages_per_connection = options.messages_per_connection
        if issubclass(user, RawSmtpUser):
            user.connections, user.pipelining = options.connections, options.pipelining
            user.messages_per_second = rate
        elif issubclass(user, SmtplibUser):
            user.wait_time = constant_throughput(rate) if rate else constant(0)
