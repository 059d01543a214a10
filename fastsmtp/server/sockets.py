"""Addresses as the socket module has them."""

from __future__ import annotations

from typing import Final

from ..protocol.envelope import Endpoint

# A client that resets its connection before we look leaves octets to be read, but no address. Whoever it is, it must
# not pass for a client of a unix socket.
NOBODY: Final = Endpoint("unknown", 0)


def endpoint(address: object) -> Endpoint:
    """The endpoint that a socket's address stands for; `NOBODY` if there is none any more."""
    if isinstance(address, tuple):
        return Endpoint._make(address[:2])
    return NOBODY if address is None else Endpoint("unix", 0)
