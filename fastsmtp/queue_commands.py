"""The commands ``fastsmtp queue``: what waits in a queue, and what people do about it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from .config import ConfigError, load
from .queue import Queue, QueueError, State, Summary, check_url

_T = TypeVar("_T")
_STATES = click.Choice([state.name.lower() for state in State])
_MAX_ITEMS = 1_000_000  # that one command acts upon


def _queue_url(context: click.Context, parameter: click.Parameter, given: str | None) -> str:
    """The queue that is meant: the one that is named, else the one that the server's settings name."""
    try:
        url = given or load({}, os.environ, None).config.store or ""
        check_url(url)
    except (ConfigError, ValueError) as error:
        raise click.BadParameter(f"{error}" if given else f"name a queue, such as queue:./queue ({error})") from None
    return url


queue_option = click.option(
    "--from", "url", callback=_queue_url, metavar="URL",
    help="The queue: queue:PATH or postgresql://...; default: the setting store.",
)  # fmt: skip
_json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group("queue")
def queue() -> None:
    """Show what waits in a queue, and change what becomes of it."""


def _with(url: str, act: Callable[[Queue], Awaitable[_T]]) -> _T:
    async def main() -> _T:
        async with Queue.open(url, create=False) as opened:
            return await act(opened)

    try:
        return asyncio.run(main())
    except QueueError as error:
        raise click.ClickException(str(error)) from None
    except KeyError as error:
        raise click.ClickException(f"no item {error.args[0]}") from None


# -- reading ---------------------------------------------------------------------------------------------------------


@queue.command("ls")
@queue_option
@click.option("--state", type=_STATES, help="Only items in this state.")
@click.option("--destination", metavar="DOMAIN", help="Only items for this domain.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@_json_option
def ls(url: str, state: str | None, destination: str | None, limit: int, as_json: bool) -> None:
    """List items, the oldest first."""
    items = _with(url, lambda opened: opened.ls(_state(state), destination, limit))
    if as_json:
        click.echo(json.dumps([_as_json(item) for item in items], indent=1))
        return
    for item in items:
        click.echo("  ".join(_columns(item)))
        if item.reason:
            click.echo(f"    {item.reason}")


@queue.command("show")
@click.argument("item_id", metavar="ID")
@queue_option
@click.option("--content", is_flag=True, help="Write the message itself, and nothing else.")
@_json_option
def show(item_id: str, url: str, content: bool, as_json: bool) -> None:
    """Show one item."""

    async def look(opened: Queue) -> tuple[Summary, bytes]:
        return await opened.show(item_id)

    item, octets = _with(url, look)
    if content:
        sys.stdout.buffer.write(octets)
    elif as_json:
        click.echo(json.dumps(_as_json(item), indent=1))
    else:
        for name, value in _as_json(item).items():
            click.echo(f"{name:12} {', '.join(value) if isinstance(value, list) else value}")


@queue.command("stats")
@queue_option
@_json_option
def stats(url: str, as_json: bool) -> None:
    """Count items by state."""
    found = _with(url, lambda opened: opened.stats())
    if as_json:
        click.echo(json.dumps(found.as_json(time.time()), indent=1))
    else:
        for state, count in found.items.items():
            click.echo(f"{state.name.lower():9} {count}")
        click.echo(f"{'oldest':9} {_time(found.oldest)}")
    if found.unreachable:
        raise click.ClickException(f"not counted: {', '.join(found.unreachable)}")


# -- changing --------------------------------------------------------------------------------------------------------


def _changing(name: str, text: str, act: Callable[[Queue, Sequence[str]], Awaitable[list[str]]]) -> None:
    """Adds a command that does something to items, which are named, or chosen by what they have in common."""

    @queue.command(name, help=text)
    @click.argument("ids", nargs=-1, metavar="[ID]...")
    @queue_option
    @click.option("--state", type=_STATES, help="All items in this state.")
    @click.option("--destination", metavar="DOMAIN", help="All items for this domain.")
    @_json_option
    def command(ids: tuple[str, ...], url: str, state: str | None, destination: str | None, as_json: bool) -> None:
        if bool(ids) == bool(state or destination):
            raise click.UsageError("name items, or choose them by --state and --destination")

        async def change(opened: Queue) -> list[str]:
            chosen = ids or [item.id for item in await opened.ls(_state(state), destination, _MAX_ITEMS)]
            return await act(opened, chosen)

        done = _with(url, change)
        missed = sorted(set(ids) - set(done))
        if as_json:
            click.echo(json.dumps({"done": done, "not_done": missed}))
        else:
            click.echo(f"{len(done)} items")
            for item_id in missed:
                click.echo(f"not {item_id}: it is gone, or not in a state for this", err=True)
        sys.exit(1 if missed else 0)


_changing("retry", "Try deferred items and dead letters now.", lambda opened, ids: opened.retry(ids))
_changing("hold", "Keep waiting items from consumers.", lambda opened, ids: opened.hold(ids))
_changing("release", "Let held items go on.", lambda opened, ids: opened.release(ids))
_changing("drop", "Delete items for good.", lambda opened, ids: opened.drop(ids))


# -- how things look -------------------------------------------------------------------------------------------------


def _state(name: str | None) -> State | None:
    return State[name.upper()] if name else None


def _columns(item: Summary) -> list[str]:
    due = f" until {_time(item.due)}" if item.due is not None else ""
    return [
        item.id, _time(item.accepted_at), f"{item.state.name.lower()}{due}", f"{item.size} octets",
        f"{item.attempts} attempts", f"<{item.sender}>", *item.recipients,
    ]  # fmt: skip


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _as_json(item: Summary) -> dict[str, Any]:
    found = dataclasses.asdict(item)
    return {**found, "state": item.state.name.lower(), "recipients": list(item.recipients), "notes": dict(item.notes)}
