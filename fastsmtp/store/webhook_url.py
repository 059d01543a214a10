"""The URL of a webhook: the endpoint's own, with options of ours in its query."""

from __future__ import annotations

import base64
import binascii
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from fastsmtp.client.secrets import check_secret, read_secret
from fastsmtp.client.tls import tls_context

from .webhook_request import Format

_OURS: Final = ("format", "secret", "timeout", "connections", "ca")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where messages are posted, and how.

    Attributes:
        url: without our options.
        format: of the body.
        secret: where the key of the signature is, ``file:PATH`` or ``env:NAME``; empty: no signature.
        timeout: seconds for a message, all tries together.
        connections: at most so many at once, for each worker.
        ca: authorities to believe besides the system's, PEM.
    """

    url: str
    format: Format = Format.RAW
    secret: str = ""
    timeout: float = 60.0
    connections: int = 20
    ca: str = ""

    def __str__(self) -> str:
        """Without query: it may hold a key of the endpoint's."""
        return self.url.partition("?")[0]

    def read_key(self) -> bytes:
        """The key, empty if nothing is to be signed. ``whsec_`` marks base64, as Standard Webhooks write it.

        Raises:
            ValueError: there is none where it should be, or it is no base64.
        """
        if not self.secret:
            return b""
        text = read_secret(self.secret)
        if not text.startswith("whsec_"):
            return text.encode()
        try:
            return base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise ValueError(f"{self.secret}: what stands behind whsec_ is no base64") from None

    def tls_context(self) -> ssl.SSLContext | None:
        """Raises OSError if the authorities cannot be read."""
        return tls_context(True, self.ca) if self.ca else None


def parse_endpoint(location: str) -> Endpoint:
    """Reads ``https://HOST/PATH?...``; of the query format, secret, timeout, connections and ca are ours.

    Raises:
        ValueError: the text says what is wrong.
    """
    parts = urlsplit(location)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.fragment:
        raise ValueError(f"store 'webhook:{location}': expected webhook:https://HOST/PATH")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = {name: value for name, value in pairs if name in _OURS}
    secret = options.get("secret", "")
    if secret:
        check_secret(secret)
    return Endpoint(
        url=_without_options(parts, pairs),
        format=_format(options.get("format", "raw")),
        secret=secret,
        timeout=float(_number(options, "timeout", 60, 3600)),
        connections=_number(options, "connections", 20, 1000),
        ca=options.get("ca", ""),
    )


def _without_options(parts: SplitResult, pairs: list[tuple[str, str]]) -> str:
    return urlunsplit(parts._replace(query=urlencode([pair for pair in pairs if pair[0] not in _OURS])))


def _format(word: str) -> Format:
    try:
        return Format(word)
    except ValueError:
        raise ValueError(f"webhook: format {word!r}: expected raw or json") from None


def _number(options: dict[str, str], name: str, default: int, most: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most):
        raise ValueError(f"webhook: {name} {text!r}: expected a number of 1 to {most}")
    return int(text)
