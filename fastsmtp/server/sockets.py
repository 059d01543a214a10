"""Addresses as the socket module has them."""

from __future__ import annotations

from ..protocol.envelope import Endpoint


def endpoint(address: object) -> Endpoint:
    """The endpoint that a socket's address stands for."""
    if isinstance(address, tuple):
        return Endpoint(address[0], address[1])
    return Endpoint("unix", 0)
