"""Where the values of the settings come from: command line, environment, TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .config import SETTINGS, Config, ConfigError, Given, build, named


@dataclass(frozen=True, slots=True)
class Resolved:
    """A Config, where each value is from, and the FASTSMTP_ variables that name no setting."""

    config: Config
    sources: Mapping[str, str]
    unknown_environment: tuple[str, ...]


def load(arguments: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> Resolved:
    """Finds each setting: command line before environment before TOML file before default.

    Args:
        arguments: From the command line, by field name; None is one not given.
        environ: The environment; an empty variable is one not set.
        file: The ``--config`` file, else FASTSMTP_CONFIG, else ``./pyproject.toml`` if that has ``[tool.fastsmtp]``.
            A ``pyproject.toml`` has its settings in this table, any other file at its top level.

    Raises:
        ConfigError: A value is not allowed, an argument or key is unknown, or the file cannot be read.
    """
    given = {**_from_file(environ, file), **_from_environment(environ), **_from_command_line(arguments)}
    sources = {name: given[name].source if name in given else "default" for name in SETTINGS}
    known = {"FASTSMTP_CONFIG", *(setting.environment for setting in SETTINGS.values())}
    unknown = sorted(name for name in environ if name.startswith("FASTSMTP_") and name not in known)
    return Resolved(build(given), sources, tuple(unknown))


def _from_command_line(arguments: Mapping[str, object]) -> dict[str, Given]:
    given = {name: value for name, value in arguments.items() if value is not None}
    return {name: Given(value, named(name, name).flag, "command line") for name, value in given.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    given = {name: one.environment for name, one in SETTINGS.items() if environ.get(one.environment)}
    return {name: Given(environ[key], key, f"environment {key}") for name, key in given.items()}


def _from_file(environ: Mapping[str, str], file: Path | None) -> dict[str, Given]:
    named = file or environ.get("FASTSMTP_CONFIG")
    path = Path(named or "pyproject.toml")
    table = _table(path) if named or path.is_file() else {}
    if table is None and named:
        raise ConfigError(f"{path}: has no table [tool.fastsmtp]")
    return {key: Given(value, f"{key} in {path}", f"file {path}") for key, value in (table or {}).items()}


def _table(path: Path) -> dict[str, object] | None:
    try:
        table: object = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # no TOML, or not UTF-8
        raise ConfigError(f"{path}: {error}") from None
    for key in ("tool", "fastsmtp") if path.name == "pyproject.toml" else ():
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else None
