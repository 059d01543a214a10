"""The command ``fastsmtp trace``: the dialogue of sessions as it happens, without secrets and content."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import click

from .admin_client import OPTIONS, TOKEN_OPTION, NoAnswerError, find_admin, with_options

_Record = dict[str, Any]


def _trace(
    admin: str | None,
    config: Path | None,
    timeout: float,
    token: str | None,
    peer: str | None,
    rcpt: str | None,
    listener: str | None,
    duration: float | None,
    as_json: bool,
) -> None:
    """Show what clients and server say, as it happens.

    Sessions are shown that begin from now on and match all of the options; with --rcpt from the moment at which a
    recipient of that domain was named, with what was said before. What may be a password is not shown, and of content
    only the number of its octets. Needs the unix socket, or the token. Ends with Ctrl-C, or with --duration.
    """
    given = {"peer": peer, "rcpt": rcpt, "listener": listener, "duration": duration}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    client = find_admin(admin, token, config, timeout)
    with suppress(KeyboardInterrupt):
        try:
            _follow(lambda: client.lines(f"/trace?{query}" if query else "/trace"), as_json)
        except NoAnswerError as error:
            raise click.ClickException(str(error)) from None


trace = click.command("trace")(
    with_options(
        (
            click.option("--peer", metavar="NET", help="Clients in this network, such as 192.0.2.0/24."),
            click.option("--rcpt", metavar="DOMAIN", help="Sessions with a recipient in this domain."),
            click.option("--listener", metavar="ADDRESS", help="Sessions of this listener, as the log names it."),
            click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Then end."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line."),
            *OPTIONS,
            TOKEN_OPTION,
        ),
        _trace,
    )
)


def _follow(trace: Callable[[], Iterator[str]], as_json: bool) -> None:
    """Show a trace; once more when it breaks, for a server has a new admin process after a reload.

    Raises:
        NoAnswerError: the server is gone, or refuses.
    """
    worked, event = True, ""
    while event != "over":
        if not worked:
            raise NoAnswerError("the trace has ended: the server is gone")
        worked = False
        try:
            for line in trace():
                event = _show(line, as_json)
                worked = True
        except NoAnswerError:
            if not worked:
                raise


def _show(line: str, as_json: bool) -> str:
    """Show a record; returns its event."""
    record: _Record = json.loads(line)
    if as_json:
        click.echo(line, nl=False)
    else:
        for text in _texts(record):
            click.echo(text)
    return str(record["event"])


# -- as text -----------------------------------------------------------------------------------------------------------


def _texts(record: _Record) -> Iterator[str]:
    time = datetime.fromtimestamp(record["time"]).strftime("%H:%M:%S.%f")[:-3]
    session = f" {record['session']}" if "session" in record else ""
    for text in _TELL[record["event"]](record):
        yield f"{time}{session} {_printable(text)}"


def _printable(text: str) -> str:
    """What a client says shall not steer the terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _begin(record: _Record) -> list[str]:
    return [f"-- {record['peer']} connects to {record['listener']}{_tls(record['tls'])}"]


def _tls(tls: dict[str, str] | None) -> str:
    return f", {tls['version']} {tls['cipher']}" if tls else ""


_TELL: Final[dict[str, Callable[[_Record], list[str]]]] = {
    "tracing": lambda record: [f"-- worker {record['worker']} traces"],
    "begin": _begin,
    "command": lambda record: [f"C: {record['line']}"],
    "content": lambda record: [f"C: ({record['octets']} octets of content)"],
    "reply": lambda record: [f"S: {line}" for line in record["lines"]],
    "tls": lambda record: [f"-- TLS begins{_tls(record)}"],
    "end": lambda record: [f"-- ends: {record['end']}, {record['messages']} messages"],
    "dropped": lambda record: [f"-- {record['records']} records were lost: they came faster than they were read"],
    "over": lambda record: ["-- the time is over"],
}
