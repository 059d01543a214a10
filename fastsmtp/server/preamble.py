"""The room before the banner on a listener with `proxy_protocol`: who is it that connects?

Only listed proxies are heard, only once, and only in the very first octets. Whatever is wrong ends the connection
without a word: whoever speaks here is not an SMTP client, or not a proxy that we know.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import cast

from ..protocol.proxy import ProxyError, ProxyHeader, ProxyReader
from .entrance import Entrance
from .handshake import Handshake
from .rooms import come_in
from .sockets import endpoint


class Preamble(asyncio.BufferedProtocol):
    """Reads the PROXY header of one connection, and hands the connection on."""

    __slots__ = ("_entrance", "_reader", "_transport", "deadline", "entrance", "opened")

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
        if self.entrance.reception.is_overfull:
            self._give_up("too many connections")
        elif not self.entrance.is_proxy(endpoint(transport.get_extra_info("peername")).host):
            self._give_up("proxy_networks does not name it")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.entrance.reception.receive_view

    def buffer_updated(self, length: int) -> None:
        try:
            found = self._reader.feed(bytes(self.entrance.reception.receive_view[:length]))
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
        if entrance.config.implicit_tls:
            handshake = Handshake(entrance, header.source, header.destination)
            handshake.connection_made(transport)
            handshake.feed(octets)
        else:
            come_in(entrance, transport, header.source, header.destination, octets)
        entrance.reception.leave(self)

    def _give_up(self, reason: str) -> None:
        peer = endpoint(self._transport.get_extra_info("peername"))
        self.entrance.reception.access_log.turned_away(peer, reason, monotonic())
        self._transport.abort()

    # -- for the sweep, and the end of the worker ---------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The header did not come in time."""
        self._give_up("no PROXY header in time")

    def drain(self) -> None:
        """It has still to become a session, which will be told."""

    def cut(self) -> bool:
        """No more time; no session is cut by that."""
        self._transport.abort()
        return False
