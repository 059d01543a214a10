"""One setting: what is known of it, and how its value is read from any spelling that flags, variables and TOML use."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

# What a client meets may differ from listener to listener; processes, threads and storage are the whole server's.
_PER_LISTENER = {"Message", "Session", "Extensions", "TLS", "Authentication", "Networks", "Timeouts"}
_SERVER_WIDE = {"users", "auth_failures_window"}  # what all workers and listeners have in common
_OF_A_LISTENER = {"hostname", "socket_mode"}


class ConfigError(ValueError):
    """A setting is wrong; the text names it as the user wrote it, its value, and what is allowed."""


def wrong(expected: str, value: object) -> ConfigError:
    """The error of a parser; `Setting.read` puts the name in front."""
    return ConfigError(f"expected {expected}, got {value!r}")


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
    maximum: int = 2**31 - 1  # the largest whole number: what a C int holds, as listen(2) takes for its backlog
    choices: tuple[str, ...] = ()  # the words allowed; empty if it is not a choice
    metavar: str = "N"  # stands for its value in --help
    unset: str = "none"  # what None and an empty list stand for
    secret: bool = False  # its value is never shown

    @property
    def flag(self) -> str:
        """Its name on the command line, where the application is the argument."""
        return "APP" if self.name == "app" else "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> str:
        """Its environment variable."""
        return f"FASTSMTP_{self.name.upper()}"

    @property
    def is_boolean(self) -> bool:
        """Whether it is a yes or no."""
        return isinstance(self.default, bool)

    @property
    def is_list(self) -> bool:
        """Whether it may be given several times."""
        return isinstance(self.default, tuple)

    @property
    def per_listener(self) -> bool:
        """Whether one listener may have a value of its own."""
        if self.name in _SERVER_WIDE:
            return False
        return self.section in _PER_LISTENER or self.name in _OF_A_LISTENER

    @property
    def placeholder(self) -> str:
        """What stands for its value behind its flag."""
        return "|".join(self.choices) or self.metavar

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


# Parsers of numbers

_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?([A-Za-z]*)", re.ASCII)
_SCALES: Mapping[str, Mapping[str, float]] = {
    "octets": {"": 1, "K": 2**10, "KiB": 2**10, "M": 2**20, "MiB": 2**20, "G": 2**30, "GiB": 2**30},
    "seconds": {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600},
}
_SPELLINGS = {"octets": ", also written 64K, 32MiB or 1G", "seconds": ", also written 30s, 5m or 1h"}


def _quantity(about: Setting, value: object) -> object:
    """Returns the number that a text like "32M" stands for, and anything else as it is."""
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    scale = _SCALES.get(about.unit, {"": 1})
    if match is None or match[2] not in scale:
        return value
    return (float(match[1]) if "." in match[1] else int(match[1])) * scale[match[2]]


def whole(about: Setting, value: object) -> int:
    """A whole number."""
    number = _quantity(about, value)
    if type(number) is not int or not about.minimum <= number <= about.maximum:  # a bool is an int but no number
        also = _SPELLINGS.get(about.unit, "")
        raise wrong(f"a whole number from {about.minimum:g} to {about.maximum}{also}", value)
    return number


def duration(about: Setting, value: object) -> float:
    """A time in seconds."""
    number = _quantity(about, value)
    number = number if type(number) is not int else float(min(number, 2**31))
    if type(number) is not float or not about.minimum <= number < 2**31:  # refuses nan, too
        raise wrong(f"a time of at least {about.minimum:g} seconds, such as 30, 500ms, 5m or 1h", value)
    return number


def share(about: Setting, value: object) -> float:
    """A part of something: not nothing, at most all."""
    number = _quantity(about, value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= 1:
        raise wrong("a number above 0 and at most 1, such as 0.8", value)
    return float(number)


def processes(about: Setting, value: object) -> int | None:
    """A whole number, or "auto"."""
    try:
        return None if str(value).strip().lower() == "auto" else whole(about, value)
    except ConfigError as error:
        raise ConfigError(f'{error} (or "auto")') from None


# Parsers of words

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def boolean(about: Setting, value: object) -> bool:
    """A yes or no."""
    word = str(value).strip().lower()
    if word not in _BOOLEANS:
        raise wrong("true or false, yes or no, on or off, 1 or 0", value)
    return _BOOLEANS[word]


def choice(about: Setting, value: object) -> str:
    """One of the setting's words."""
    word = str(value).strip().lower()
    if word not in about.choices:
        raise wrong(" or ".join(about.choices), value)
    return word


def matching(pattern: str, expected: str) -> Callable[[Setting, object], str]:
    """Makes a parser of texts that are one whole match."""

    def parse(about: Setting, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise wrong(expected, value)
        return value

    return parse


def file(about: Setting, value: object) -> str | None:
    """A file's path; "none", so that a listener can do without the file that the others have."""
    if value == "none":
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise wrong('a file, or "none"', value)
    return value


_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*", re.ASCII)  # RFC 6750 2.1; short ones can be guessed


def token(about: Setting, value: object) -> str:
    """A secret that goes into an Authorization field. What is wrong with it is said without it."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ConfigError("expected 16 to 512 of A-Z a-z 0-9 . _ ~ + / - (not shown here)")
    return value


# Parsers of lists: arrays, texts with commas, or both. "none" is the empty list, for an empty variable is one not set.


def _items(value: object, expected: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise wrong(expected, value)
    items = [item.strip() for text in texts for item in text.split(",")]
    return [] if items == ["none"] else items


def files(about: Setting, value: object) -> tuple[str, ...]:
    """Paths of files, in their order."""
    expected = 'files, separated by commas, or "none"'
    items = _items(value, expected)
    for item in items:
        if not item or "\0" in item:
            raise wrong(expected, item)
    return tuple(items)


def networks(about: Setting, value: object) -> tuple[str, ...]:
    """Networks in their usual spelling, each one once."""
    expected = 'networks such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32, no bits set behind the prefix, or "none"'
    return tuple(dict.fromkeys(_network(item, expected) for item in _items(value, expected)))


def _network(text: str, expected: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise wrong(expected, text) from None
    if "%" in text:  # a scope: it would be kept, and compared with nothing
        raise wrong(expected, text)
    return str(network)


def words(*allowed: str) -> Callable[[Setting, object], tuple[str, ...]]:
    """Makes a parser of lists of upper-case words, each one once."""
    expected = f'words out of {", ".join(allowed)}, or "none"'

    def parse(about: Setting, value: object) -> tuple[str, ...]:
        items = _items(value, expected)
        for item in items:
            if item.upper() not in allowed:
                raise wrong(expected, item)
        return tuple(dict.fromkeys(item.upper() for item in items))

    return parse


# Fields of Config. mypy checks each default against its field's type; `Any` is for the attributes of Setting, which a
# test checks.


def setting(section: str, default: T, parse: Callable[[Setting, object], object], help: str, **about: Any) -> T:
    """A field of any kind."""
    made = Setting(section=section, default=default, parse=parse, help=help, **about)
    return field(default=default, metadata={"setting": made})


def count(section: str, default: int, help: str, minimum: int, unit: str = "") -> int:
    """A field that counts something."""
    return setting(section, default, whole, help, minimum=minimum, unit=unit)


def octets(section: str, default: int, help: str, minimum: int) -> int:
    """A field with a size."""
    return setting(section, default, whole, help, minimum=minimum, unit="octets", metavar="OCTETS")


def interval(section: str, default: int, help: str) -> int:
    """A field with whole seconds that EHLO tells; 9 digits at most (RFC 2852 4, RFC 4865 4)."""
    about = {"unit": "seconds", "metavar": "SECONDS", "maximum": 10**9 - 1}
    return setting(section, default, whole, help, **about)


def seconds(section: str, default: float, help: str, minimum: float = 0.001) -> float:
    """A field with a wait. Every wait has an end: 0 never means "off", and is allowed only where not waiting does."""
    return setting(section, float(default), duration, help, minimum=minimum, unit="seconds", metavar="SECONDS")


def flag(section: str, default: bool, help: str) -> bool:
    """A field that is a yes or no."""
    return setting(section, default, boolean, help)


def word(section: str, default: T, help: str) -> T:
    """A field that is one of the words of its Literal type."""
    return setting(section, default, choice, help)


def network_list(section: str, default: tuple[str, ...], help: str) -> tuple[str, ...]:
    """A field with networks."""
    return setting(section, default, networks, help, metavar="NETWORK")
