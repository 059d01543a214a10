"""A next hop, as a URL names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypedDict
from urllib.parse import parse_qsl, unquote

from .secrets import check_secret

Security = Literal["off", "opportunistic", "encrypt", "required"]

_PORTS: Final = {"smtp": 25, "smtps": 465, "lmtp": 24}
_SECURITY: Final[Mapping[str, Security]] = {
    "off": "off",
    "opportunistic": "opportunistic",
    "encrypt": "encrypt",
    "required": "required",
}
_AUTHORITY: Final = re.compile(r"(?:(?P<user>[^@/]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?/?")
_OPTIONS: Final = ("tls", "ca", "password", "connections", "idle")


@dataclass(frozen=True, slots=True)
class Hop:
    """Where mail goes next.

    Attributes:
        host: a name or an address; its certificate is checked for it.
        port: of TCP; 0 where there is a path.
        path: of a unix socket, empty for TCP.
        address: the address to connect to, empty: find out from the host.
        lmtp: LMTP instead of SMTP (RFC 2033).
        implicit_tls: TLS before the greeting (RFC 8314).
        security: ``off``; ``opportunistic``: STARTTLS where it is offered, with any certificate, and clear text where
            it fails (RFC 7435); ``encrypt``: TLS or nothing, with any certificate; ``required``: TLS with a good one.
        ca: authorities to believe besides the system's, PEM.
        user: for AUTH, empty: none.
        password: where the password is, ``file:PATH`` or ``env:NAME``.
        connections: at most so many at once, for each process.
        idle_seconds: a connection that was not used for so long is closed. Servers wait for 5 minutes (RFC 5321
            4.5.3.2.7), busy ones much less.
    """

    host: str
    port: int = 25
    path: str = ""
    address: str = ""
    lmtp: bool = False
    implicit_tls: bool = False
    security: Security = "opportunistic"
    ca: str = ""
    user: str = ""
    password: str = ""
    connections: int = 20
    idle_seconds: float = 10.0

    def __str__(self) -> str:
        where = f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"
        return f"{'lmtp' if self.lmtp else 'smtp'}://{where}"

    def secured(self) -> Hop:
        """The same hop, where only TLS with a good certificate will do."""
        return replace(self, security="required")


class _Limits(TypedDict, total=False):
    connections: int
    idle_seconds: float


def parse_hop(url: str) -> Hop:
    """Reads ``smtp://HOST[:PORT]``, ``smtps://``, ``lmtp://`` or ``lmtp://unix:/PATH``, with options behind ``?``.

    The options are ``tls`` (off, opportunistic, encrypt or required), ``ca=FILE``; ``password=file:PATH`` or
    ``env:NAME``, for ``smtp://USER@HOST``; ``connections=N`` and ``idle=SECONDS``.

    Raises:
        ValueError: the text says what is wrong.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _PORTS:
        raise ValueError(f"{url!r}: expected smtp://HOST[:PORT], smtps://, lmtp:// or lmtp://unix:/PATH")
    place, _, query = rest.partition("?")
    options = _options(url, query)
    if place.startswith("unix:"):
        return _unix(url, scheme, place.removeprefix("unix:"), options)
    match = _AUTHORITY.fullmatch(place)
    if match is None or not 0 < int(match["port"] or _PORTS[scheme]) < 65536:
        raise ValueError(f"{url!r}: {place!r} is no HOST[:PORT]")
    return _checked(
        url,
        Hop(
            host=match["host"].strip("[]"),
            port=int(match["port"] or _PORTS[scheme]),
            lmtp=scheme == "lmtp",
            implicit_tls=scheme == "smtps",
            security=_security(url, options, secure=scheme == "smtps" or bool(match["user"])),
            ca=options.get("ca", ""),
            user=unquote(match["user"] or ""),
            password=options.get("password", ""),
            **_limits(url, options),
        ),
    )


def _options(url: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise ValueError(f"{url!r}: options are written ?NAME=VALUE&...") from None
    for name, value in pairs:
        if name not in _OPTIONS or not value:
            raise ValueError(f"{url!r}: option {name!r}: expected one of {', '.join(_OPTIONS)}, with a value")
    return dict(pairs)


def _unix(url: str, scheme: str, path: str, options: dict[str, str]) -> Hop:
    if not path or "\0" in path or scheme == "smtps" or options.keys() - {"connections", "idle"}:
        raise ValueError(f"{url!r}: a unix socket needs a path, and has neither TLS nor login")
    hop = Hop(host="localhost", port=0, path=path, lmtp=scheme == "lmtp", security="off")
    return replace(hop, **_limits(url, options))


def _limits(url: str, options: dict[str, str]) -> _Limits:
    limits: _Limits = {}
    if "connections" in options:
        limits["connections"] = _number(url, options, "connections", 1, 1000)
    if "idle" in options:
        limits["idle_seconds"] = float(_number(url, options, "idle", 0, 3600))
    return limits


def _number(url: str, options: dict[str, str], name: str, least: int, most: int) -> int:
    text = options[name]
    if not (text.isascii() and text.isdigit() and len(text) < 6 and least <= int(text) <= most):
        raise ValueError(f"{url!r}: {name}: expected a number of {least} to {most}")
    return int(text)


def _security(url: str, options: dict[str, str], secure: bool) -> Security:
    """A password is for the right server only, so with a user the default is the strictest."""
    word = options.get("tls", "required" if secure else "opportunistic")
    if word not in _SECURITY:
        raise ValueError(f"{url!r}: tls: expected {', '.join(_SECURITY)}")
    return _SECURITY[word]


def _checked(url: str, hop: Hop) -> Hop:
    if bool(hop.user) != bool(hop.password):
        raise ValueError(f"{url!r}: a user needs password=file:PATH or password=env:NAME, and a password needs a user")
    if hop.password:
        check_secret(hop.password)
    if hop.user and hop.security == "opportunistic":
        raise ValueError(f"{url!r}: a password needs tls=required, encrypt or off")
    if hop.implicit_tls and hop.security in ("off", "opportunistic"):
        raise ValueError(f"{url!r}: smtps:// is TLS: tls must be required or encrypt")
    return hop
