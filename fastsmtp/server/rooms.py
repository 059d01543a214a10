"""How a connection comes into its last room.

A new connection passes up to three rooms, each a protocol of its own that hands the transport on to the next:
`Preamble` (PROXY protocol), `Handshake` (implicit TLS), `Connection`. Each knows those behind it, none those before.
"""

from __future__ import annotations

import asyncio

from ..protocol.envelope import Endpoint
from ..protocol.tls import TLS
from .entrance import Entrance


def connect(entrance: Entrance) -> asyncio.BaseProtocol:
    """The last room, for a connection that needs no other: traced while somebody traces."""
    return entrance.reception.connection_type(entrance)


def come_in(
    entrance: Entrance,
    transport: asyncio.Transport,
    peer: Endpoint | None,
    local: Endpoint | None,
    octets: bytes = b"",
    tls: TLS | None = None,
) -> None:
    """Go on to the last room.

    Args:
        entrance: the listener.
        transport: of the connection, or the TLS layer on it.
        peer: who connects, if a proxy has told.
        local: to where, likewise.
        octets: what was read already.
        tls: what was negotiated.
    """
    connection = entrance.reception.connection_type(entrance, peer, local, tls)
    transport.set_protocol(connection)
    connection.connection_made(transport)
    rest = memoryview(octets)
    while rest:
        room = connection.get_buffer(len(rest))
        length = min(len(room), len(rest))
        room[:length] = rest[:length]
        rest = rest[length:]
        connection.buffer_updated(length)
