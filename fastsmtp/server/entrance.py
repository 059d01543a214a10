"""What the connections of one listener share: its settings, its service, its certificates, and who may come in.

Each listener may have settings of its own, so that one server takes mail for its domains on one port, submissions on
another, and LMTP on a socket. A new connection passes up to three rooms, each a protocol of its own that hands the
transport on to the next: `Preamble` (PROXY protocol), `Handshake` (implicit TLS), `Connection`. Runs on the loop.
"""

from __future__ import annotations

import asyncio
import ssl
from threading import Lock
from typing import TYPE_CHECKING, Final

from ..config import Config
from ..networks import Networks
from ..protocol.envelope import Endpoint
from ..protocol.replies import Reply
from ..protocol.service import Service
from ..protocol.tls import TLS
from .certificates import Certificates
from .clients import Clients, client_key
from .connection import Connection
from .handshake import Handshake
from .preamble import Preamble
from .tls import TLSLayer

if TYPE_CHECKING:
    from .reception import Reception

_LOOPBACK: Final = Networks(["127.0.0.0/8", "::1/128"])
_HURRY: Final = 10.0  # seconds; what a command or a handshake gets under stress
_FEW: Final = 5  # errors, junk commands: likewise


class LoginGuard:
    """Counts failed logins per client, over all workers; the session asks before it looks at credentials.

    Sessions ask from the loop and from pool threads, so there is a lock: AUTH is no hot path.
    """

    def __init__(self, clients: Clients, config: Config) -> None:
        self._clients = clients
        self._most = config.auth_failures_per_client
        self._exempt = Networks(config.exempt_networks)
        self._lock = Lock()

    def key_of(self, host: str) -> bytes | None:
        """The client that an address belongs to; none where it is exempt, or no address."""
        return None if host in self._exempt else client_key(host)

    def may_try(self, client: bytes | None) -> bool:
        """Whether so many attempts have not failed yet."""
        if client is None or not self._most:
            return True
        with self._lock:
            return self._clients.auth_failures(client) < self._most

    def auth_failed(self, client: bytes | None) -> None:
        """An attempt has failed."""
        if client is not None:
            with self._lock:
                self._clients.auth_failed(client)


class Entrance:
    """One listener, as its connections see it.

    Args:
        reception: the worker's.
        config: the settings that hold for this listener.
        service: the server as its sessions see it.
        certificates: for TLS; None without.
        local: the listener's address, where it has only one; else None.
    """

    def __init__(
        self,
        reception: Reception,
        config: Config,
        service: Service,
        certificates: Certificates | None,
        local: Endpoint | None,
    ) -> None:
        self.reception: Final = reception
        self.config: Final = config
        self.service: Final = service
        self.certificates: Final = certificates
        self.local: Final = local
        self.greet_wait: Final = max(config.greet_wait, 0.05 if config.early_talker == "reject" else 0.0)
        self.stressed = False
        self.handshake_timeout = config.tls_handshake_timeout
        self.command_deadline = 0.0  # of a command that is awaited from now on
        self.oldest = 0.0  # when a session began that is too old now
        self._command_timeout = config.command_timeout
        self._calm = service.limits
        self._exempt = Networks(config.exempt_networks)
        self._proxies = Networks(config.proxy_networks)
        self._xclients = Networks(config.xclient_networks)
        self.look_at_the_clock(reception.now)

    def new_protocol(self) -> asyncio.BaseProtocol:
        """The first room of a new connection."""
        if self.config.proxy_protocol:
            return Preamble(self)
        if self.config.implicit_tls:
            return Handshake(self)
        return Connection(self)

    def look_at_the_clock(self, now: float) -> None:
        """Called by the sweep: what is awaited from now on may last so long."""
        retiring = self.reception.retiring
        self.command_deadline = now + (self.config.drain_idle if retiring else self._command_timeout)
        self.oldest = now - self.config.session_timeout

    def be_stressed(self, stressed: bool) -> None:
        """Have less patience while connections are scarce."""
        config, calm = self.config, self._calm
        self.stressed = stressed
        self._command_timeout = min(config.command_timeout, _HURRY) if stressed else config.command_timeout
        self.handshake_timeout = min(config.tls_handshake_timeout, _HURRY) if stressed else config.tls_handshake_timeout
        self.service.limits = calm.under_stress(_FEW) if stressed else calm

    # -- who may come in ----------------------------------------------------------------------------------------------

    def is_proxy(self, host: str) -> bool:
        """Whether this address may say for whom it connects."""
        return host in self._proxies

    def may_xclient(self, host: str, told: bool) -> bool:
        """Whether this client may use XCLIENT; `told`: a proxy says that this is its address."""
        return bool(self._xclients) and host in self._xclients and self._is_credible(host, told)

    def _is_credible(self, host: str, told: bool) -> bool:
        """A loop-back address that only a proxy names is easily faked."""
        return not told or self.config.proxy_trust_loopback or host not in _LOOPBACK

    def admit(self, host: str, told: bool, for_others: bool) -> tuple[bytes | None, Reply | None]:
        """A client has come.

        Args:
            host: its address.
            told: whether a proxy says so.
            for_others: it may use XCLIENT, so it is a proxy itself and not one client.

        Returns:
            The key under which it is counted, None if it is not; and the reply that turns it away, None if it may stay.
        """
        replies = self.service.replies
        if self.reception.is_full:
            return None, replies.too_busy
        if for_others or (host in self._exempt and self._is_credible(host, told)):
            return None, None
        key = client_key(host)
        if key is None:
            return None, None
        open_now, in_last_minute = self.reception.clients.connect(key)
        most, rate = self.config.max_connections_per_client, self.config.connection_rate_per_client
        if (most and open_now > most) or (rate and in_last_minute > rate):
            return key, replies.too_many_connections
        return key, None

    def depart(self, key: bytes) -> None:
        """A client that was counted is gone."""
        self.reception.clients.disconnect(key)

    def facts(self, layer: TLSLayer) -> TLS:
        """What there is to know of a TLS layer."""
        assert self.certificates is not None
        tls: ssl.SSLObject = layer.get_extra_info("ssl_object")
        cipher = tls.cipher()
        return TLS(
            tls.version() or "",
            cipher[0] if cipher else "",
            self.certificates.server_name(tls),
            tls.getpeercert() or None,
            {"tls-server-end-point": self.certificates.end_point(tls)},
        )

    # -- the rooms ----------------------------------------------------------------------------------------------------

    def come_in(
        self,
        transport: asyncio.Transport,
        peer: Endpoint | None,
        local: Endpoint | None,
        octets: bytes = b"",
        tls: TLS | None = None,
    ) -> None:
        """Go on to the last room.

        Args:
            transport: of the connection, or the TLS layer on it.
            peer: who connects, if a proxy has told.
            local: to where, likewise.
            octets: what was read already.
            tls: what was negotiated.
        """
        connection = Connection(self, peer, local, tls)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        feed(connection, octets)


def feed(protocol: Connection, octets: bytes) -> None:
    """Give a protocol octets that another one has read."""
    rest = memoryview(octets)
    while rest:
        room = protocol.get_buffer(len(rest))
        length = min(len(room), len(rest))
        room[:length] = rest[:length]
        rest = rest[length:]
        protocol.buffer_updated(length)
