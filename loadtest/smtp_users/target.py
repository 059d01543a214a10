"""Where the load goes: a URL, as in Locust's --host."""

from __future__ import annotations

import functools
import ssl
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

_DEFAULT_PORTS = {"smtp": 25, "smtps": 465}  # RFC 5321 4.5.4.2, RFC 8314 3.3

RETRY_DELAY = 1.0  # seconds from a connection that failed to the next: a server that refuses is not hammered


@dataclass(frozen=True, slots=True)
class Target:
    """An SMTP server, and how to speak to it.

    Args:
        host: name or address.
        port: of TCP.
        implicit_tls: TLS from the first octet (RFC 8314 3).
        starttls: STARTTLS behind the first EHLO (RFC 3207).
        user: of AUTH PLAIN (RFC 4616); empty for none.
        password: that belongs to it.
    """

    host: str
    port: int
    implicit_tls: bool = False
    starttls: bool = False
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read ``smtp://[USER:PASSWORD@]HOST[:PORT][?starttls=1]``, or the same with ``smtps`` for implicit TLS.

        Raises:
            ValueError: it is no such URL.
        """
        parts = urlsplit(url if "://" in url else f"smtp://{url}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        starttls = options.pop("starttls", "0")
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or options or starttls not in {"0", "1"}:
            raise ValueError(f"{url!r}: expected smtp[s]://[USER:PASSWORD@]HOST[:PORT][?starttls=1]")
        return cls(
            parts.hostname,
            parts.port or _DEFAULT_PORTS[parts.scheme],
            implicit_tls=parts.scheme == "smtps",
            starttls=starttls == "1",
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
        )


@functools.cache
def tls_context() -> ssl.SSLContext:
    """For all users of a process. Certificates are not checked: load goes to one's own server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
