"""The room before the banner on a listener with `proxy_protocol`: who is it that connects?

Only listed proxies are heard, only once, and only in the very first octets. Whatever is wrong ends the connection
without a word: whoever speaks here is not an SMTP client, or not a proxy that we know.
"""

from __future__ import annotations

import asyncio
from mmap import mmap
from time import monotonic
from typing import cast

from ..protocol.proxy import ProxyError, ProxyHeader, ProxyReader
from .columns import REFUSED_PROXY
from .entrance import Entrance
from .handshake import Handshake
from .rooms import come_in
from .sockets import NOBODY, endpoint


class Preamble(asyncio.BufferedProtocol):
    """Reads the PROXY header of one connection, and hands the connection on."""

    __slots__ = ("_reader", "_transport", "deadline", "entrance", "opened")

    def __init__(self, entrance: Entrance) -> None:
        self.entrance = entrance
        self.opened = monotonic()
        self.deadline = self.opened + entrance.config.proxy_timeout
        self._reader = ProxyReader(entrance.config.proxy_v2_max_bytes)
        self._transport: asyncio.Transport

    # -- asyncio.BufferedProtocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.entrance.reception.connections.add(self)
        # Too many connections are no reason to stop here: behind the header we can say so, and know to whom.
        peer = endpoint(transport.get_extra_info("peername"))
        if peer is NOBODY:
            self._transport.abort()
        elif not self.entrance.is_proxy(peer.host):
            self._give_up("proxy_networks does not name it")

    def get_buffer(self, sizehint: int) -> mmap:
        return self.entrance.reception.receive_buffer

    def buffer_updated(self, length: int) -> None:
        try:
            found = self._reader.feed(self.entrance.reception.receive_buffer[:length])
        except ProxyError as error:
            self._give_up(f"no PROXY header: {error}")
            return
        if found:
            self._hand_on(*found)

    def connection_lost(self, exc: Exception | None) -> None:
        self.entrance.reception.leave(self)

    # -- going on -----------------------------------------------------------------------------------------------------

    def _hand_on(self, header: ProxyHeader, octets: bytes) -> None:
        entrance, transport = self.entrance, self._transport
        entrance.reception.connections.discard(self)  # the next room counts, and both together are one connection
        if entrance.config.implicit_tls:
            handshake = Handshake(entrance, header.source, header.destination)
            handshake.connection_made(transport)
            handshake.feed(octets)
        else:
            come_in(entrance, transport, header.source, header.destination, octets)

    def _give_up(self, reason: str) -> None:
        peer = endpoint(self._transport.get_extra_info("peername"))
        self.entrance.reception.books.turned_away(peer, REFUSED_PROXY, reason, monotonic())
        self._transport.abort()

    # -- for the sweep, and the end of the worker ---------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The header did not come in time."""
        self._give_up("no PROXY header in time")

    def drain(self) -> None:
        """It has still to become a session, which will be told; but who is silent is not waited for."""
        self.deadline = min(self.deadline, monotonic() + self.entrance.config.drain_idle)

    def cut(self) -> bool:
        """No more time; no session is cut by that."""
        self._transport.abort()
        return False
