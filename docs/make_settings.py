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
`sys.exit(fastsmtp.run(Inbox, max_message_bytes="10M"))`; `run` returns the exit code.

`fastsmtp check-config` takes the same options as `fastsmtp serve`. It prints every setting with its value and where the
value comes from, and starts nothing. A wrong value, an unknown flag or an unknown TOML key is an error, exit code 2. An
unknown `FASTSMTP_` variable is a warning.

Values:

* Sizes are octets, also written `64K`, `32MiB`, `1G` (K is 1024).
* Times are seconds, also written `500ms`, `30s`, `5m`, `1h`.
* A yes or no is `true`, `yes`, `on`, `1` or `false`, `no`, `off`, `0`. On the command line it is `--preload` or
  `--no-preload`.
* A list (kind "list") may be given several times on the command line, or once with commas. In the environment its
  values are separated by commas; TOML takes an array or a text with commas. `none` is the empty list.

## Listeners

Behind the address of a listener, separated by white space, may stand settings that hold for this listener only: those
of kind "own" below. A bare word is a yes. What a listener does not say, the server's settings say.

    fastsmtp serve \\
        --tls-certfile mx.pem \\
        --listen 0.0.0.0:25 \\
        --listen "0.0.0.0:465 implicit_tls require_auth" \\
        --listen "127.0.0.1:24 lmtp" \\
        --listen "0.0.0.0:2525 proxy_protocol proxy_networks=10.0.0.0/8" \\
        --listen "unix:/run/mail.sock lmtp"

Names have dashes or underscores. `NAME=no` switches off what is on for the server. A list is given with commas or
several times, and stands in place of the server's: `xclient_networks=10.0.0.0/8,::1`, or
`xclient_networks=10.0.0.0/8 xclient_networks=::1`. White space within a path or value is not possible here.

Several listeners in one text, as in `FASTSMTP_LISTEN=127.0.0.1:25,127.0.0.1:24 lmtp`, are separated by commas. A comma
begins a new listener where an address follows (`HOST:PORT`, `[` or `unix:`); any other comma belongs to a value.
`check-config` shows what was understood, a listener a line.
"""


def page() -> str:
    """The settings page."""
    sections = dict.fromkeys(about.section for about in SETTINGS.values())
    return "\n".join([_HEAD, *(_section(name) for name in sections)])


def _section(name: str) -> str:
    rows = [_row(about) for about in SETTINGS.values() if about.section == name]
    head = ["| name, flag, variable | default | least | kind | meaning |", "|---|---|---|---|---|"]
    return "\n".join([f"## {name}", "", *head, *rows, ""])


def _row(about: Setting) -> str:
    names = f"`{about.name}`<br>`{_flag(about)}`<br>`{about.environment}`"
    marks = ", ".join(["own"] * about.per_listener + ["list"] * about.is_list)
    cells = [names, _default(about), f"{about.minimum:g}" if about.minimum >= 1 else "", marks, about.help]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _flag(about: Setting) -> str:
    if about.is_boolean:
        return f"{about.flag}, --no-{about.flag[2:]}"
    return about.flag if about.name == "app" else f"{about.flag} {about.placeholder}"


def _default(about: Setting) -> str:
    value = getattr(Config(), about.name)
    if value in (None, ()):
        return about.unset
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value:g}` {about.unit}".rstrip() if isinstance(value, float) else f"`{value}` {about.unit}".rstrip()


if __name__ == "__main__":
    PAGE.write_text(page())
