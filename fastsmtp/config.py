"""The settings: what each is called, means and allows, and where its value comes from.

The fields of `Config` are the only list of settings: flags, environment variables, TOML keys, ``--help`` and the
settings page are made from them. A value that has passed `Config.of` or `load` has its field's type and is within its
bounds; nobody checks it again.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting is wrong; the text names it as the user wrote it, its value, and what is allowed."""


def _wrong(expected: str, value: object) -> ConfigError:
    return ConfigError(f"expected {expected}, got {value!r}")


# sockaddr_un.sun_path has 108 octets on Linux, the last one a NUL.
_MAX_UNIX_PATH = 107
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[\w.-]*|\*)):(?P<port>\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: a host and a TCP port (0: the kernel chooses), or the path of a unix socket.

    An IPv6 host has no brackets. A unix socket has an empty host and port 0; only it has a path.
    """

    host: str
    port: int
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Reads ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``; an empty host or ``*`` is every IPv4 interface.

        Raises:
            ConfigError: It is none of these.
        """
        if text.startswith("unix:"):
            return cls("", 0, _unix_path(text))
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise _wrong(_listen_syntax(text), text)
        if int(match["port"]) > 65535:
            raise _wrong("a port from 0 to 65535", text)
        if match["ipv6"] is not None:
            return cls(_ipv6(match["ipv6"], text), int(match["port"]))
        return cls("0.0.0.0" if match["host"] in ("", "*") else match["host"], int(match["port"]))

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _unix_path(text: str) -> str:
    path = text.removeprefix("unix:")
    if not path or "\0" in path or len(os.fsencode(path)) > _MAX_UNIX_PATH:
        raise _wrong(f"unix:PATH with a path of 1 to {_MAX_UNIX_PATH} octets", text)
    return path


def _ipv6(address: str, text: str) -> str:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise _wrong("an IPv6 address between the brackets, as in [::1]:1025", text) from None
    return address


def _listen_syntax(text: str) -> str:
    if text.count(":") > 1 and "[" not in text:
        return "brackets around an IPv6 address, as in [::1]:1025"
    return "HOST:PORT, [IPV6]:PORT or unix:PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known of one setting besides its type."""

    name: str = ""  # its field's; also its TOML key
    section: str  # the heading it stands under
    default: object
    help: str  # one sentence
    parse: Callable[[Setting, object], object]  # from any accepted spelling; raises ConfigError
    unit: str = ""  # what its number counts, and per what
    minimum: float = 0  # the smallest number allowed
    choices: tuple[str, ...] = ()  # the words allowed; empty if it is not a choice
    metavar: str = "N"  # stands for its value in --help
    unset: str = "none"  # what None stands for

    @property
    def flag(self) -> str:
        """Its name on the command line, where the application is the argument."""
        return "APP" if self.name == "app" else "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> str:
        """Its environment variable."""
        return f"FASTSMTP_{self.name.upper()}"

    def read(self, value: object, where: str) -> object:
        """Returns the value in its field's type; ``where`` is what the user wrote it under.

        Raises:
            ConfigError: The value is not allowed.
        """
        if value is None and self.default is None:
            return None
        try:
            return self.parse(self, value)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None


_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?([A-Za-z]*)", re.ASCII)
_SCALES: Mapping[str, Mapping[str, float]] = {
    "octets": {"": 1, "K": 2**10, "KiB": 2**10, "M": 2**20, "MiB": 2**20, "G": 2**30, "GiB": 2**30},
    "seconds": {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600},
}


def _quantity(about: Setting, value: object) -> object:
    """Returns the number that a text like "32M" stands for, and anything else as it is."""
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    scale = _SCALES.get(about.unit, {"": 1})
    if match is None or match[2] not in scale:
        return value
    return (float(match[1]) if "." in match[1] else int(match[1])) * scale[match[2]]


def _whole(about: Setting, value: object) -> int:
    number = _quantity(about, value)
    # A bool is an int but no number. The upper end is what a C int holds, as listen(2) takes for its backlog.
    if type(number) is not int or not about.minimum <= number < 2**31:
        also = ", also written 64K, 32MiB or 1G" if about.unit == "octets" else ""
        raise _wrong(f"a whole number from {about.minimum:g} to {2**31 - 1}{also}", value)
    return number


def _seconds(about: Setting, value: object) -> float:
    number = _quantity(about, value)
    number = number if type(number) is not int else float(min(number, 2**31))
    if type(number) is not float or not about.minimum <= number < 2**31:  # refuses nan, too
        raise _wrong(f"a time of at least {about.minimum:g} seconds, such as 30, 500ms, 5m or 1h", value)
    return number


def _workers(about: Setting, value: object) -> int | None:
    try:
        return None if str(value).strip().lower() == "auto" else _whole(about, value)
    except ConfigError as error:
        raise ConfigError(f'{error} (or "auto")') from None


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _boolean(about: Setting, value: object) -> bool:
    word = str(value).strip().lower()
    if word not in _BOOLEANS:
        raise _wrong("true or false, yes or no, on or off, 1 or 0", value)
    return _BOOLEANS[word]


def _choice(about: Setting, value: object) -> str:
    word = str(value).strip().lower()
    if word not in about.choices:
        raise _wrong(" or ".join(about.choices), value)
    return word


def _listen(about: Setting, value: object) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items or not all(isinstance(item, str) for item in items):
        raise _wrong("one or more of HOST:PORT, [IPV6]:PORT or unix:PATH", value)
    return tuple(str(Listen.parse(part.strip())) for item in items for part in item.split(","))


def _matching(pattern: str, expected: str) -> Callable[[Setting, object], str]:
    def parse(about: Setting, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise _wrong(expected, value)
        return value

    return parse


_app = _matching(r"[\w.]+:[\w.]+", "module:attribute, such as inbox:Inbox")
# It goes into the banner: a domain or an address literal (RFC 5321 4.1.2).
_hostname = _matching(r"[\w.-]{1,255}|\[[\w.:]{1,253}\]", "a host name or an address literal in brackets")
_store = _matching(r"maildir:[^\0]+|discard:", "maildir:PATH or discard:")
_directory = _matching(r"[^\0]+", "a directory")


# mypy checks each default against its field's type; `Any` is for the attributes of Setting, which a test checks.
def _setting(section: str, default: T, parse: Callable[[Setting, object], object], help: str, **about: Any) -> T:
    made = Setting(section=section, default=default, parse=parse, help=help, **about)
    return field(default=default, metadata={"setting": made})


def _number(section: str, default: int, help: str, minimum: int, unit: str = "") -> int:
    return _setting(section, default, _whole, help, minimum=minimum, unit=unit)


def _size(section: str, default: int, help: str, minimum: int) -> int:
    return _setting(section, default, _whole, help, minimum=minimum, unit="octets", metavar="OCTETS")


# Every wait has an end: 0 never means "off", and is allowed only where not waiting at all makes sense.
def _time(section: str, default: float, help: str, minimum: float = 0.001) -> float:
    return _setting(section, float(default), _seconds, help, minimum=minimum, unit="seconds", metavar="SECONDS")


def _word(section: str, default: T, help: str) -> T:
    return _setting(section, default, _choice, help)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting. Make one with `Config.of` or `load`; the constructor itself checks nothing."""

    app: str | None = _setting("Server", None, _app, "Handler class, instance or factory.", metavar="MODULE:ATTRIBUTE")
    listen: tuple[str, ...] = _setting(
        "Server", ("127.0.0.1:1025",), _listen, "HOST:PORT, [IPV6]:PORT or unix:PATH to listen on.", metavar="ADDRESS"
    )
    workers: int | None = _setting(
        "Server", None, _workers, "Processes; auto: by CPU affinity and cgroup quota.", minimum=1, unset="auto"
    )
    hostname: str | None = _setting(
        "Server", None, _hostname, "Name in banner and EHLO reply.", metavar="NAME", unset="the machine's full name"
    )
    backlog: int = _number("Server", 4096, "Connections that wait in the kernel for accept.", 1, "per listener")
    preload: bool = _setting("Server", False, _boolean, "Import the application in the master, before forking.")
    drain_timeout: float = _time("Server", 30, "Time that sessions have to end after a stop or reload.", 0)
    drain_idle: float = _time("Server", 5, "Idle time after which a reload ends a session with 421 4.3.2.", 0)
    max_connections: int = _number("Server", 8192, "Connections before 421 4.3.2 and close.", 1, "per worker")

    threads: int = _number("Handler", 8, "Threads for hooks that block.", 1, "per worker")
    max_pending_hooks: int = _number("Handler", 1000, "Hooks unfinished before MAIL gets 451 4.3.2.", 1, "per worker")
    hook_timeout: float = _time("Handler", 60, "Time for one hook; then 451 4.3.0.")
    # RFC 5321 4.5.3.2.6: the client waits 10 minutes for the reply to the end of data.
    data_hook_timeout: float = _time("Handler", 300, "Time for the data hook and the store; then 451 4.3.0.")

    store: str | None = _setting(
        "Storage", None, _store, "Where mail goes: maildir:PATH, discard:; without APP maildir:./mail.", metavar="STORE"
    )
    spool_dir: str | None = _setting(
        "Storage", None, _directory, "Where large messages wait, unnamed.", metavar="DIR", unset="$TMPDIR or /tmp"
    )
    spool_threshold_bytes: int = _size("Storage", 2**20, "Size above which an arriving message goes to a file.", 0)

    max_message_bytes: int = _size("Message", 2**25, "Largest message (SIZE, RFC 1870); over it 552 5.3.4.", 1)
    max_header_bytes: int = _size("Message", 2**18, "Largest header section; over it 552 5.3.4.", 1)
    max_received: int = _number("Message", 100, "Received fields before 554 5.4.6 (RFC 5321 6.3).", 1, "fields")
    max_text_line: int = _size("Message", 0, "Longest line of text; over it 554 5.6.0; 0: off.", 0)
    bare_newline: Literal["reject", "normalize", "keep"] = _word(
        "Message", "reject", "Bare CR or LF in content: 550 5.5.2; SP and CRLF instead; or left as they are."
    )
    nul_in_data: Literal["reject", "keep"] = _word("Message", "reject", "NUL in content: 554 5.6.0; or kept.")

    # RFC 5321 4.5.3.1.4: 512 octets with CRLF must work.
    max_command_octets: int = _size("Session", 2048, "Longest command with CRLF; over it 500 5.5.2.", 512)
    max_line_discard_octets: int = _size("Session", 2**17, "Octets of a line before 521 5.5.2 and close.", 512)
    # RFC 5321 4.5.3.1.8: 100 recipients must work.
    max_recipients: int = _number("Session", 1000, "Recipients before 452 4.5.3.", 100, "per transaction")
    max_messages: int = _number("Session", 0, "Messages before 452 4.5.3 (RFC 9422); 0: off.", 0, "per connection")
    max_errors: int = _number("Session", 20, "Errors before 421 4.7.0 and close.", 1, "per session")
    max_junk_commands: int = _number("Session", 100, "Commands without mail before 421 4.7.0.", 1, "between messages")
    smtputf8: bool = _setting("Session", True, _boolean, "Offer SMTPUTF8 (RFC 6531).")

    # RFC 5321 4.5.3.2.7: at least 5 minutes.
    command_timeout: float = _time("Timeouts", 300, "Time for one complete command; then 421 4.4.2, close.")
    data_timeout: float = _time(
        "Timeouts", 300, "Time for DATA or a chunk, plus octets / min_data_rate; then 421 4.4.2."
    )
    min_data_rate: int = _number("Timeouts", 500, "Rate by which octets extend data_timeout.", 1, "octets per second")
    session_timeout: float = _time("Timeouts", 3600, "Time for a session; then 421 4.4.2, when running data are done.")
    write_timeout: float = _time("Timeouts", 60, "Time without progress in writing to the client; then close.")
    linger_timeout: float = _time("Timeouts", 1, "Time a close waits for the client's.", 0)

    log_format: Literal["text", "json"] = _word("Logging", "text", "Form of a log line.")
    log_level: Literal["debug", "info", "warning", "error"] = _word("Logging", "info", "Least severity logged.")

    @classmethod
    def of(cls, **settings: object) -> Config:
        """Makes a Config from Python, in any spelling that the other sources may use.

        Raises:
            ConfigError: A name is unknown or a value not allowed.
        """
        return _build({name: _Given(value, name, "Python") for name, value in settings.items()})

    @property
    def effective_store(self) -> str | None:
        """The store to use: mail accepted without an application would be lost, so it goes to a maildir."""
        return self.store or (None if self.app else "maildir:./mail")


def _describe(one: Field[Any], hint: object) -> Setting:
    words = get_args(hint) if get_origin(hint) is Literal else ()
    about: Setting = one.metadata["setting"]
    return replace(about, name=one.name, choices=words)


_HINTS = get_type_hints(Config)
SETTINGS: Mapping[str, Setting] = {one.name: _describe(one, _HINTS[one.name]) for one in fields(Config)}


class _Given(NamedTuple):
    value: object
    where: str  # what the user wrote it under
    source: str


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
    return Resolved(_build(given), sources, tuple(unknown))


def _build(given: Mapping[str, _Given]) -> Config:
    values: dict[str, Any] = {name: _named(name, one.where).read(one.value, one.where) for name, one in given.items()}
    return Config(**values)


def _named(name: str, where: str) -> Setting:
    if name in SETTINGS:
        return SETTINGS[name]
    near = difflib.get_close_matches(name, SETTINGS, 1)
    raise ConfigError(f"{where}: no such setting" + (f", did you mean {near[0]}?" if near else ""))


def _from_command_line(arguments: Mapping[str, object]) -> dict[str, _Given]:
    given = {name: value for name, value in arguments.items() if value is not None}
    return {name: _Given(value, _named(name, name).flag, "command line") for name, value in given.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given = {name: one.environment for name, one in SETTINGS.items() if environ.get(one.environment)}
    return {name: _Given(environ[key], key, f"environment {key}") for name, key in given.items()}


def _from_file(environ: Mapping[str, str], file: Path | None) -> dict[str, _Given]:
    named = file or environ.get("FASTSMTP_CONFIG")
    path = Path(named or "pyproject.toml")
    table = _table(path) if named or path.is_file() else {}
    if table is None and named:
        raise ConfigError(f"{path}: has no table [tool.fastsmtp]")
    return {key: _Given(value, f"{key} in {path}", f"file {path}") for key, value in (table or {}).items()}


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
