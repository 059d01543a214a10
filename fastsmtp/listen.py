"""Where to listen, and what holds there alone: ``ADDRESS [NAME[=VALUE]]...``."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass

from .settings import Setting, wrong

# sockaddr_un.sun_path has 108 octets on Linux, the last one a NUL.
_MAX_UNIX_PATH = 107
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[\w.-]*|\*)):(?P<port>\d{1,5})", re.ASCII)
_OPTION = re.compile(r"(?P<name>[A-Za-z][\w-]*)(?:=(?P<value>.+))?", re.ASCII)
# A comma ends a listener only in front of an address, for it also stands within the value of an option.
_NEXT = re.compile(r"\s*,\s*(?=unix:|fd:|\[|(?:[\w.-]*|\*):\d+(?:[\s,]|$))")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: a host and a TCP port (0: the kernel chooses), a unix socket's path, or an inherited socket.

    An IPv6 host has no brackets. A unix socket has an empty host and port 0; only it has a path. A socket that whoever
    started us has opened has a descriptor: its number, or its name among those of systemd. Options are settings
    for this listener alone, named as fields of Config; the value of a bare word is empty. What they mean, and whether
    they are allowed, `Config.for_listener` knows.
    """

    host: str
    port: int
    path: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    descriptor: str | None = None

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Reads ``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH`` or ``fd:N``, and options, with white space between.

        An empty host or ``*`` is every IPv4 interface.

        Raises:
            ConfigError: The text is not of this form.
        """
        address, *options = text.split() or [""]
        descriptor = _descriptor(address, text) if address.startswith("fd:") else None
        host, port, path = ("", 0, None) if descriptor else _place(address, text)
        return cls(host, port, path, tuple(_option(each, text) for each in options), descriptor)

    @property
    def address(self) -> str:
        """Its text without the options."""
        if self.path is not None:
            return f"unix:{self.path}"
        if self.descriptor is not None:
            return f"fd:{self.descriptor}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return " ".join([self.address, *(f"{name}={value}" if value else name for name, value in self.options)])


def _place(address: str, text: str) -> tuple[str, int, str | None]:
    if address.startswith("unix:"):
        return "", 0, _unix_path(address, text)
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise wrong(_syntax(address), text)
    if int(match["port"]) > 65535:
        raise wrong("a port from 0 to 65535", text)
    if match["ipv6"] is not None:
        return _ipv6(match["ipv6"], text), int(match["port"]), None
    return "0.0.0.0" if match["host"] in ("", "*") else match["host"], int(match["port"]), None


def _descriptor(address: str, text: str) -> str:
    found = address.removeprefix("fd:")
    if not re.fullmatch(r"[\w.-]{1,255}", found, re.ASCII):
        raise wrong("fd:N with the number or the systemd name of a socket", text)
    return found


def _unix_path(address: str, text: str) -> str:
    path = address.removeprefix("unix:")
    if not path or "\0" in path or len(os.fsencode(path)) > _MAX_UNIX_PATH:
        raise wrong(f"unix:PATH with a path of 1 to {_MAX_UNIX_PATH} octets", text)
    return path


def _ipv6(host: str, text: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise wrong("an IPv6 address between the brackets, as in [::1]:1025", text) from None
    return host


def _syntax(address: str) -> str:
    if address.count(":") > 1 and "[" not in address:
        return "brackets around an IPv6 address, as in [::1]:1025"
    return "HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N"


def _option(option: str, text: str) -> tuple[str, str]:
    match = _OPTION.fullmatch(option)
    if match is None:
        raise wrong(f"NAME or NAME=VALUE behind the address, not {option!r}", text)
    return match["name"].replace("-", "_"), match["value"] or ""


def address(about: Setting, value: object) -> str | None:
    """Reads a setting that is one address without options; "none" is no address."""
    if value == "none":
        return None
    if not isinstance(value, str) or len(value.split()) != 1 or value.startswith("fd:"):
        raise wrong('HOST:PORT, [IPV6]:PORT, unix:PATH or "none"', value)
    return Listen.parse(value).address


def listeners(about: Setting, value: object) -> tuple[str, ...]:
    """Reads the setting: one listener or several, each in the spelling of ``str(Listen)``."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
        raise wrong("one or more of HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N", value)
    return tuple(str(Listen.parse(each)) for text in texts for each in _NEXT.split(text))
