"""Writes settings.md, beside this file, from the settings that the code has: ``make settings``."""

from __future__ import annotations

from pathlib import Path

from fastsmtp.config import SETTINGS, Config, Setting

PAGE = Path(__file__).with_name("settings.md")

_HEAD = """\
# Settings

<!-- Made by `make settings` from fastsmtp/config.py. Do not edit. -->

Each setting has one name and four places. The first that has a value counts:

1. the command line: `--max-message-bytes 10M`
2. the environment: `FASTSMTP_MAX_MESSAGE_BYTES=10M`; an empty variable is one not set
3. a TOML file: `max_message_bytes = "10M"`
4. the default

The TOML file is the one that `--config FILE` names, else the one that `FASTSMTP_CONFIG` names, else `./pyproject.toml`
if it has a table `[tool.fastsmtp]`. In a `pyproject.toml` the settings stand in that table; in any other file they
stand at the top level. From Python they are keyword arguments, and neither environment nor file is read:
`fastsmtp.run(Inbox, max_message_bytes="10M")`.

`fastsmtp check-config` takes the same options as `fastsmtp serve`. It prints every setting with its value and where the
value comes from, and starts nothing. A wrong value, an unknown flag or an unknown TOML key is an error, exit code 2. An
unknown `FASTSMTP_` variable is a warning.

Values:

* Sizes are octets, also written `64K`, `32MiB`, `1G` (K is 1024).
* Times are seconds, also written `500ms`, `30s`, `5m`, `1h`.
* A yes or no is `true`, `yes`, `on`, `1` or `false`, `no`, `off`, `0`. On the command line it is `--preload` or
  `--no-preload`.
* `--listen` may be given several times. In the environment addresses are separated by commas; TOML takes a list.
"""


def page() -> str:
    """The settings page."""
    sections = dict.fromkeys(about.section for about in SETTINGS.values())
    return "\n".join([_HEAD, *(_section(name) for name in sections)])


def _section(name: str) -> str:
    rows = [_row(about) for about in SETTINGS.values() if about.section == name]
    head = ["| name, flag, variable | default | least | meaning |", "|---|---|---|---|"]
    return "\n".join([f"## {name}", "", *head, *rows, ""])


def _row(about: Setting) -> str:
    names = f"`{about.name}`<br>`{_flag(about)}`<br>`{about.environment}`"
    cells = [names, _default(about), f"{about.minimum:g}" if about.minimum >= 1 else "", about.help]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _flag(about: Setting) -> str:
    if isinstance(about.default, bool):
        return f"{about.flag}, --no-{about.flag[2:]}"
    return about.flag if about.name == "app" else f"{about.flag} {'|'.join(about.choices) or about.metavar}"


def _default(about: Setting) -> str:
    value = getattr(Config(), about.name)
    if value is None:
        return about.unset
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value:g}` {about.unit}".rstrip() if isinstance(value, float) else f"`{value}` {about.unit}".rstrip()


if __name__ == "__main__":
    PAGE.write_text(page())
