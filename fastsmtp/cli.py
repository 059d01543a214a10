"""The command line: its options, their ``--help`` and the report of ``check-config`` are made from Config's fields."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from fastsmtp.config import SETTINGS, Config, ConfigError, Resolved, Setting, load

# What Kubernetes (a Service) and Docker (a link) put into the environment for a neighbour whose name begins with
# "fastsmtp". Only their own values are let through: FASTSMTP_PORT=2525 is somebody's mistake.
_NEIGHBOUR = re.compile(
    r"FASTSMTP_(?:\w+_)?"
    r"(?:SERVICE_HOST=|SERVICE_PORT(?:_\w+)?=|PORT=\w+://|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?=|NAME=/|ENV_\w+=).*",
    re.DOTALL,
)


# In the URL of a store.
_PASSWORD = re.compile(r"(://[^:/@,]*:)[^@/]*(@)")

_CONFIG_HELP = (
    "TOML file with settings at its top level, or a pyproject.toml with a table [tool.fastsmtp]. "
    "[FASTSMTP_CONFIG; default ./pyproject.toml, if it has the table]"
)


class _BadConfig(click.ClickException):
    exit_code = 2


class _SettingsCommand(click.Command):
    """A command whose ``--help`` groups the options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            name = parameter.name or ""
            section = SETTINGS[name].section if name in SETTINGS else "Options"
            if record:
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


class _Application(click.Argument):
    """The APP argument; it stands among the options in ``--help``, for it has an environment variable, too."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return "[APP]", _help(SETTINGS["app"])


def _parameters() -> list[click.Parameter]:
    settings = [_parameter(name, about) for name, about in SETTINGS.items()]
    file = click.Option(["--config"], type=click.Path(path_type=Path), metavar="FILE", help=_CONFIG_HELP)
    return [*settings, file]


def _parameter(name: str, about: Setting) -> click.Parameter:
    """Makes an option that takes any text, or nothing: `load` knows what is allowed, and what was not given."""
    if name == "app":
        return _Application(["app"], required=False)
    if about.is_boolean:
        return click.Option([f"{about.flag}/--no-{about.flag[2:]}"], default=None, help=_help(about))
    return click.Option([about.flag], metavar=about.placeholder, multiple=about.is_list, help=_help(about))


def _help(about: Setting) -> str:
    bound = f"; at least {about.minimum:g}" if about.minimum >= 1 else ""
    several = "; may be given several times" if about.is_list else ""
    return f"{about.help} [{about.environment}; default {_shown(about, about.default)}{bound}{several}]"


def _shown(about: Setting, value: object) -> str:
    if value in (None, ()):
        return about.unset
    if about.secret:
        return "***"
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.15g} {about.unit}" if isinstance(value, float) else f"{value} {about.unit}".rstrip()


# Imported only where they are asked for: serving shall load neither password hashing nor an HTTP client.
def _ctl() -> click.Command:
    from fastsmtp.control_commands import ctl

    return ctl


def _healthcheck() -> click.Command:
    from fastsmtp.control_commands import healthcheck

    return healthcheck


def _user() -> click.Command:
    from fastsmtp.user_commands import user

    return user


def _consume() -> click.Command:
    from fastsmtp.consume_commands import consume

    return consume


def _queue() -> click.Command:
    from fastsmtp.queue_commands import queue

    return queue


_ELSEWHERE = {"consume": _consume, "ctl": _ctl, "healthcheck": _healthcheck, "queue": _queue, "user": _user}


class _Commands(click.Group):
    """The commands, those of other files included."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        return _ELSEWHERE[cmd_name]()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="fastsmtp", prog_name="fastsmtp", message="%(prog)s %(version)s")
def main() -> None:
    """An SMTP server whose handlers are Python."""


@main.command(cls=_SettingsCommand, params=_parameters())
def serve(config: Path | None, **settings: object) -> None:
    """Serve mail to APP until stopped.

    APP is a handler, written MODULE:ATTRIBUTE; without it mail is only stored. Each setting is taken from the command
    line, else from its environment variable, else from the TOML file.
    """
    resolved = _resolve(settings, config)
    # Here, not above: --help and check-config need no server.
    from fastsmtp.server.master import run

    # `serve inbox:Inbox` shall find ./inbox.py. Behind the import: no file of the user's stands in for one of ours.
    sys.path.insert(0, os.getcwd())
    sys.exit(run(resolved.config))


@main.command("check-config", cls=_SettingsCommand, params=_parameters())
def check_config(config: Path | None, **settings: object) -> None:
    """Show every setting and its source."""
    for line in _report(_resolve(settings, config)):
        click.echo(line)


def _resolve(settings: Mapping[str, object], file: Path | None) -> Resolved:
    given = {name: value for name, value in settings.items() if value not in (None, ())}
    try:
        resolved = load(given, os.environ, file)
    except ConfigError as error:
        raise _BadConfig(str(error)) from None
    unknown = [name for name in resolved.unknown_environment if not _NEIGHBOUR.fullmatch(f"{name}={os.environ[name]}")]
    if unknown:
        click.echo(f"Warning: no such setting, ignored: {', '.join(unknown)}", err=True)
    return resolved


def _report(resolved: Resolved) -> list[str]:
    rows = [row for name in SETTINGS for row in _rows(name, resolved)]
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"{name:{names}}  {value:{values}}  {source}".rstrip() for name, value, source in rows]


def _rows(name: str, resolved: Resolved) -> list[tuple[str, str, str]]:
    if name != "listen":
        return [(name, _shown(SETTINGS[name], _effective(resolved.config, name)), resolved.sources[name])]
    first, *others = resolved.config.listen  # each with its options: a line of its own
    return [(name, first, resolved.sources[name]), *(("", other, "") for other in others)]


def _effective(config: Config, name: str) -> object:
    if name != "store":
        return getattr(config, name)
    return _PASSWORD.sub(r"\1***\2", config.effective_store or "") or None
