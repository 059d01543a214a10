"""The command ``fastsmtp top``: what a server does, as it does it, in a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

from .admin_client import OPTIONS, AdminClient, NoAnswerError, find_admin, with_options
from .interval import Interval


def _top(admin: str | None, config: Path | None, timeout: float, interval: float, once: bool) -> None:
    """Show what a server does, live: rates, times, workers, refusals.

    Rates and quantiles are of the time between two looks. Ends with Ctrl-C.
    """
    client = find_admin(admin, None, config, timeout)
    try:
        from rich.console import Console
        from rich.live import Live

        from .top_view import frame
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        raise click.ClickException("this needs rich: pip install 'fastsmtp[top]'") from None
    console = Console()
    try:
        looks = _looks(client, interval)
        if once:
            console.print(frame(*next(looks)))
        elif not console.is_terminal:
            for look in looks:
                console.print(frame(*look), "")
        else:
            with Live(console=console, screen=True, auto_refresh=False) as live, suppress(KeyboardInterrupt):
                for look in looks:
                    live.update(frame(*look), refresh=True)
    except NoAnswerError as error:
        raise click.ClickException(str(error)) from None


top = click.command("top")(
    with_options(
        (
            click.option(
                *("--interval", "interval"),
                type=click.FloatRange(0.1, 60),
                default=1.0,
                metavar="SECONDS",
                show_default=True,
                help="Between two looks.",
            ),
            click.option("--once", is_flag=True, help="Print one frame, and end."),
            *OPTIONS,
        ),
        _top,
    )
)


def _looks(client: AdminClient, seconds: float) -> Iterator[tuple[Interval, str | None]]:
    """What happened since the last look, again and again; and why it cannot be known any more.

    Raises:
        NoAnswerError: there is no answer to the first two looks.
    """
    before = client.status()
    time.sleep(seconds)
    seen = Interval(before, client.status())
    yield seen, None
    while True:
        time.sleep(seconds)
        trouble = None
        try:
            new = Interval(seen.after, client.status())
            seen = new if new.is_of_one_server else Interval(new.after, new.after)
        except NoAnswerError as error:
            trouble = f"no answer, what is below is old: {error}"
        yield seen, trouble
