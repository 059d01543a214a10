"""AUTH as a client (RFC 4954): PLAIN, or LOGIN where a relay knows nothing else. The connection is inside TLS."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final

MECHANISMS: Final = ("PLAIN", "LOGIN")


def lines_of(mechanism: str, user: str, password: str) -> Iterator[bytes]:
    """What the client says, line by line; each one but the last is answered with 334."""
    if mechanism == "PLAIN":  # RFC 4616 2
        yield b"AUTH PLAIN " + _encoded(f"\0{user}\0{password}")
    else:
        yield b"AUTH LOGIN"
        yield _encoded(user)
        yield _encoded(password)


def _encoded(text: str) -> bytes:
    return base64.b64encode(text.encode())
