"""The commands ``fastsmtp ctl`` and ``fastsmtp healthcheck``: they talk to the admin process of a server that runs."""

from __future__ import annotations

import functools
import json
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from .admin_client import (
    CONTROL_OPTIONS,
    OPTIONS,
    TIME,
    AdminClient,
    Command,
    NoAnswerError,
    connect,
    find_admin,
    load_settings,
    with_options,
)
from .config import Config, ConfigError, Listen

_POLL = 0.1  # seconds between two looks at a reload
_MAX_LINE = 4096  # octets of a line from an SMTP server


class _Given(NamedTuple):
    """What the options of a command say."""

    admin: AdminClient
    as_json: bool


# -- ctl -------------------------------------------------------------------------------------------------------------


@click.group()
def ctl() -> None:
    """Look at a server that runs, and control it.

    Address and token are taken from the options, else from the environment, else from the TOML file, as for serve.
    """


def _command(name: str) -> Callable[[Command], click.Command]:
    """A command of `ctl`; its function gets the server and what options it has of its own."""

    def make(function: Command) -> click.Command:
        @functools.wraps(function)
        def run(
            admin: str | None, token: str | None, config: Path | None, timeout: float, as_json: bool, **own: Any
        ) -> None:
            try:
                function(_Given(find_admin(admin, token, config, timeout), as_json), **own)
            except NoAnswerError as error:
                raise click.ClickException(str(error)) from None

        return ctl.command(name)(with_options(CONTROL_OPTIONS, run))

    return make


@_command("status")
def show_status(given: _Given) -> None:
    """Show what the server does and has done."""
    found = given.admin.status()
    if given.as_json:
        click.echo(json.dumps(found))
        return
    totals = found["totals"]
    workers = found["workers"]
    ready = sum(worker["ready"] for worker in workers)
    processes = [process for worker in workers for process in worker["processes"]]
    rows = {
        "server": f"fastsmtp {found['version']}, {found['state']}, pid {found['pid']}, up {found['uptime_seconds']} s",
        "listening on": ", ".join(found["listeners"]),
        "workers": f"{ready} of {len(workers)} ready",
        "connections": f"{sum(process['open_connections'] for process in processes)} open, "
        f"{totals['connections']} accepted, {sum(totals['refused_connections'].values())} refused",
        "messages": f"{totals['messages']['accepted']} accepted, {totals['messages']['refused']} refused, "
        f"{totals['message_bytes']} octets",
        "logins": f"{totals['logins']['accepted']} accepted, {totals['logins']['refused']} refused",
        "worker deaths": str(totals["worker_deaths"]),
        "last reload": _of_reload(found["last_reload"]),
    }
    for name, value in rows.items():
        click.echo(f"{name + ':':14} {value}")


@_command("workers")
def workers(given: _Given) -> None:
    """Show the processes, one a line."""
    found = given.admin.status()["workers"]
    if given.as_json:
        click.echo(json.dumps(found))
        return
    click.echo("worker     pid  state     open  accepted  pending  busy  lag ms  RSS MiB")
    for worker in found:
        for process in worker["processes"]:
            click.echo(
                f"{worker['worker']:6} {process['pid']:7}  {process['state']:8} {process['open_connections']:5} "
                f"{worker['totals']['connections']:9} {process['hooks_pending']:8} {process['threads_busy']:5} "
                f"{process['loop_lag_seconds'] * 1000:7.1f} {process['rss_bytes'] / 2**20:8.1f}"
            )
        if not worker["processes"]:
            click.echo(f"{worker['worker']:6}       -  none")


@_command("reload")
@click.option("--wait/--no-wait", default=True, help="Wait until it is done, as is the default.")
@click.option("--wait-timeout", type=TIME, default=300.0, metavar="SECONDS", show_default=True, help="For that.")
def reload(given: _Given, wait: bool, wait_timeout: float) -> None:
    """Replace all workers: application, settings and certificates are loaded anew.

    Exit code 1 if the reload was given up because a new worker did not start; the old ones then stay.
    """
    before = given.admin.status()["totals"]["reloads"]
    answer = given.admin.order("/reload")
    outcome: dict[str, Any] = {"outcome": "begun", "reason": None}
    if wait:
        outcome = _wait_for_reload(given.admin, before, time.monotonic() + wait_timeout)
        answer = _of_reload(outcome)
    click.echo(json.dumps(outcome) if given.as_json else answer)
    if outcome["outcome"] == "given_up":
        sys.exit(1)


def _wait_for_reload(admin: AdminClient, before: object, until: float) -> dict[str, Any]:
    while time.monotonic() < until:
        found = admin.status()
        if found["totals"]["reloads"] != before:
            last: dict[str, Any] = found["last_reload"]
            return last
        time.sleep(_POLL)
    raise click.ClickException("the reload is not over in time; it goes on")


def _of_reload(outcome: dict[str, Any] | None) -> str:
    if outcome is None:
        return "none"
    return {"done": "done", "given_up": f"given up: {outcome['reason']}"}[outcome["outcome"]]


@_command("scale")
@click.argument("workers", type=click.IntRange(1))
def scale(given: _Given, workers: int) -> None:
    """Have so many WORKERS. Nobody who is connected notices, and no connection is lost."""
    answer = given.admin.order(f"/scale?workers={workers}")
    click.echo(json.dumps({"outcome": answer}) if given.as_json else answer)


@_command("drain")
@click.option("--wait-timeout", type=TIME, default=300.0, metavar="SECONDS", show_default=True, help="Time to wait.")
def drain(given: _Given, wait_timeout: float) -> None:
    """Stop the server, and wait until the last session has ended.

    Exit code 1 if it has not ended in time.
    """
    answer = given.admin.order("/stop")
    until = time.monotonic() + wait_timeout
    while time.monotonic() < until:
        try:
            found = given.admin.status()
        except NoAnswerError:  # the admin process leaves last
            click.echo(json.dumps({"outcome": "stopped"}) if given.as_json else "stopped")
            return
        time.sleep(_POLL)
    processes = [process for worker in found["workers"] for process in worker["processes"]]
    sessions = sum(process["open_connections"] for process in processes)
    raise click.ClickException(f"{answer}; {sessions} are left")


@_command("stop")
def stop(given: _Given) -> None:
    """Stop the server: it accepts no connections any more, and sessions may finish their transaction."""
    answer = given.admin.order("/stop")
    click.echo(json.dumps({"outcome": answer}) if given.as_json else answer)


# -- healthcheck -----------------------------------------------------------------------------------------------------


def _healthcheck(admin: str | None, config: Path | None, timeout: float) -> None:
    """Exit with 0 if the server is ready, else with 1 and the reason.

    Asks the admin process if the settings name one; else connects to a listener and expects a 220.
    """
    settings = load_settings(admin, None, config)
    try:
        if settings.admin:
            _ask_admin(AdminClient(settings.admin, None, timeout))
        else:
            _ask_listener(settings, timeout)
    except (NoAnswerError, OSError, ConfigError) as error:
        click.echo(f"not healthy: {error or type(error).__name__}", err=True)
        sys.exit(1)


healthcheck = click.command("healthcheck")(with_options(OPTIONS, _healthcheck))


def _ask_admin(admin: AdminClient) -> None:
    code, body = admin.request("GET", "/readyz")
    if code != 200:
        raise NoAnswerError(body.strip()[:200])


def _ask_listener(settings: Config, timeout: float) -> None:
    """A connection to the first listener; one that wants to hear from a proxy only where there is no other."""
    listeners = [(at, settings.for_listener(at)) for at in map(Listen.parse, settings.listen)]
    reachable = [(at, own) for at, own in listeners if at.descriptor is None]
    if not reachable:
        raise NoAnswerError("only inherited sockets, whose addresses nobody here knows: use --admin")
    at, own = min(reachable, key=lambda each: each[1].proxy_protocol)
    with connect(at, timeout) as connection:
        if own.proxy_protocol:
            connection.sendall(b"PROXY UNKNOWN\r\n")
        if own.implicit_tls:
            with _any_certificate().wrap_socket(connection, server_hostname="localhost") as secured:
                _expect_banner(secured)
        else:
            _expect_banner(connection)


def _any_certificate() -> ssl.SSLContext:
    """We ask whether the server speaks, not who it is, and tell it nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _expect_banner(connection: socket.socket) -> None:
    with connection.makefile("rb") as lines:
        banner = lines.readline(_MAX_LINE)
        if not banner.startswith(b"220"):
            raise NoAnswerError(f"expected a banner, got {banner.decode('ascii', 'replace').strip() or 'nothing'}")
        while banner[3:4] == b"-":
            banner = lines.readline(_MAX_LINE)
        connection.sendall(b"QUIT\r\n")
        lines.readline(_MAX_LINE)
