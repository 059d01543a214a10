"""The room before the banner on a listener with `implicit_tls` (RFC 8314): TLS first, then SMTP.

Clear text, a handshake that fails or does not end in time: the connection is closed, with no reply in clear text.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import cast

from ..protocol.envelope import Endpoint
from .columns import REFUSED_TLS_HANDSHAKE, TLS_HANDSHAKES_FAILED
from .entrance import Entrance
from .rooms import come_in
from .sockets import endpoint
from .tls import TLSLayer


class Handshake(asyncio.BaseProtocol):
    """Negotiates TLS on one connection, and hands the connection on.

    To the event loop it is the protocol of a new connection until it has the transport, then the layer is.
    """

    __slots__ = ("_layer", "_local", "_peer", "_reason", "deadline", "entrance", "opened")

    def __init__(self, entrance: Entrance, peer: Endpoint | None = None, local: Endpoint | None = None) -> None:
        assert entrance.certificates is not None, "the configuration makes sure of that"
        self.entrance = entrance
        self.opened = monotonic()
        self.deadline = self.opened + entrance.handshake_timeout
        self._peer = peer
        self._local = local
        self._reason = ""  # why we gave it up, if it was us
        self._layer = TLSLayer(
            entrance.certificates.context, entrance.reception.cipher_view, self._established, self._failed
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.entrance.reception.connections.add(self)
        lower = cast(asyncio.Transport, transport)
        lower.set_protocol(self._layer)
        self._layer.start(lower)
        if self.entrance.reception.is_overfull:
            self._give_up("too many connections")

    def feed(self, octets: bytes) -> None:
        """Octets that were read before."""
        if octets:
            self._layer.feed(octets)

    def _established(self, layer: TLSLayer) -> None:
        entrance = self.entrance
        entrance.reception.connections.discard(self)  # the session counts, and both together are one connection
        come_in(entrance, layer, self._peer, self._local, tls=entrance.facts(layer))

    def _failed(self, reason: str) -> None:
        reception = self.entrance.reception
        reception.leave(self)
        peer = self._peer or endpoint(self._layer.get_extra_info("peername"))
        reception.books.cells[TLS_HANDSHAKES_FAILED] += 1
        why = f"TLS handshake: {self._reason or reason}"
        reception.books.turned_away(peer, REFUSED_TLS_HANDSHAKE, why, monotonic())

    def _give_up(self, reason: str) -> None:
        self._reason = reason
        self._layer.abort()

    # -- for the sweep, and the end of the worker ---------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The handshake has not ended in time."""
        self._give_up("not done in time")

    def drain(self) -> None:
        """It has still to become a session, which will be told; but who is silent is not waited for."""
        self.deadline = min(self.deadline, monotonic() + self.entrance.config.drain_idle)

    def cut(self) -> bool:
        """No more time; no session is cut by that."""
        self._layer.abort()
        return False
