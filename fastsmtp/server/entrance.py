"""What the connections of one listener share: its settings, its service, its certificates, and who may come in.

Each listener may have settings of its own, so that one server takes mail for its domains on one port, submissions on
another, and LMTP on a socket. Runs on the loop.
"""

from __future__ import annotations

import logging
import ssl
from threading import Lock
from typing import Final, NamedTuple

from ..config import Config
from ..networks import Networks
from ..protocol.envelope import Endpoint
from ..protocol.replies import INSUFFICIENT_STORAGE, Reply
from ..protocol.service import Service
from ..protocol.tls import TLS
from .books import Books
from .certificates import Certificates
from .clients import Clients, client_key
from .reception import SWEEP_INTERVAL, Reception
from .tls import TLSLayer

_LOOPBACK: Final = Networks(["127.0.0.0/8", "::1/128"])
_log = logging.getLogger("fastsmtp.worker")
_REMEMBERED: Final = 4096  # clients
_HURRY: Final = 10.0  # seconds; what a command or a handshake gets under stress
_FEW: Final = 5  # errors, junk commands: likewise


class Standing(NamedTuple):
    """What a client is to a listener: the key under which it is counted, None if it is not; whether it may XCLIENT."""

    key: bytes | None
    may_xclient: bool


class LoginGuard:
    """Counts failed logins per client, over all workers; the session asks before it looks at credentials.

    Sessions ask from the loop and from pool threads, so there is a lock: AUTH is no hot path.
    """

    def __init__(self, clients: Clients, books: Books, config: Config) -> None:
        self._books = books
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
        self._books.login(accepted=False)
        if client is not None:
            with self._lock:
                self._clients.auth_failed(client)

    def auth_accepted(self) -> None:
        """An attempt has succeeded."""
        self._books.login(accepted=True)


class Entrance:
    """One listener, as its connections see it.

    Args:
        reception: the worker's.
        config: the settings that hold for this listener.
        service: the server as its sessions see it.
        certificates: for TLS; None without.
        local: the listener's address, where it has only one; else None.
        address: as the log names it.
    """

    def __init__(
        self,
        reception: Reception,
        config: Config,
        service: Service,
        certificates: Certificates | None,
        local: Endpoint | None,
        address: str,
    ) -> None:
        self.reception: Final = reception
        self.config: Final = config
        self.service: Final = service
        self.certificates: Final = certificates
        self.local: Final = local
        self.is_tcp: Final = local is None or local.host != "unix"
        self.address: Final = address
        self.greet_wait: Final = max(config.greet_wait, 0.05 if config.early_talker == "reject" else 0.0)
        self.stressed = False
        self.handshake_timeout = config.tls_handshake_timeout
        self.command_deadline = 0.0  # of a command that is awaited from now on
        self.oldest = 0.0  # when a session began that is too old now
        self._command_timeout = config.command_timeout
        self._calm = service.limits
        least = config.min_free_bytes
        self._least_free = 1.5 * config.max_message_bytes if least is None else least
        self._is_full = False  # the store is
        self._overload: Reply | None = None  # what overload says to MAIL
        self._exempt = Networks(config.exempt_networks)
        self._proxies = Networks(config.proxy_networks)
        self._xclients = Networks(config.xclient_networks)
        # Hot path: one look-up for a client that was here before, 0.9 us less a connection.
        self._standings: dict[tuple[str, bool], Standing] = {}
        self.look_at_the_clock(reception.now)

    def look_at_the_clock(self, now: float) -> None:
        """Called by the sweep: what is awaited from now on may last so long."""
        # `now` is up to a sweep old when a command is awaited; a session that is not idle must not be taken for idle.
        idle = self.config.drain_idle + SWEEP_INTERVAL
        self.command_deadline = now + (idle if self.reception.retiring else self._command_timeout)
        self.oldest = now - self.config.session_timeout

    def be_stressed(self, stressed: bool) -> None:
        """Have less patience while connections are scarce."""
        config, calm = self.config, self._calm
        self.stressed = stressed
        self._command_timeout = min(config.command_timeout, _HURRY) if stressed else config.command_timeout
        self.handshake_timeout = min(config.tls_handshake_timeout, _HURRY) if stressed else config.tls_handshake_timeout
        self.service.limits = calm.under_stress(_FEW) if stressed else calm

    def be_full(self, free: int | None) -> None:
        """Refuse mail while there is too little room; the way back takes a tenth more, lest we waver."""
        full = free is not None and free < (1.1 * self._least_free if self._is_full else self._least_free)
        if full != self._is_full:
            self._is_full = full
            self._refuse_mail()
            _log.warning("%s free in the store: mail is %s", free, "refused with 452" if full else "taken again")

    def be_overloaded(self, refusal: Reply | None) -> None:
        """Overload: the reply to MAIL, None if mail is taken again."""
        self._overload = refusal
        self._refuse_mail()

    def _refuse_mail(self) -> None:
        self.service.mail_refusal = INSUFFICIENT_STORAGE if self._is_full else self._overload

    # -- who may come in ----------------------------------------------------------------------------------------------

    def is_proxy(self, host: str) -> bool:
        """Whether this address may say for whom it connects."""
        return host in self._proxies

    def standing_of(self, host: str, told: bool) -> Standing:
        """What a client is to us.

        Args:
            host: its address.
            told: whether a proxy says so. A loop-back address that only a proxy names is easily faked.
        """
        found = self._standings.get((host, told))
        if found is None:
            credible = not told or self.config.proxy_trust_loopback or host not in _LOOPBACK
            may_xclient = credible and host in self._xclients
            exempt = may_xclient or (credible and host in self._exempt)  # who speaks for others is not one client
            found = Standing(None if exempt else client_key(host), may_xclient)
            if len(self._standings) >= _REMEMBERED:
                self._standings.clear()
            self._standings[host, told] = found
        return found

    def refusal_of(self, key: bytes | None) -> Reply | None:
        """A client has come, and is counted under this key: the reply that turns it away, None if it may stay."""
        replies = self.service.replies
        if self.reception.is_full:
            return replies.too_busy
        if key is None:
            return None
        open_now, in_last_minute = self.reception.clients.connect(key)
        most, rate = self.config.max_connections_per_client, self.config.connection_rate_per_client
        if (most and open_now > most) or (rate and in_last_minute > rate):
            return replies.too_many_connections
        return None

    def depart(self, key: bytes) -> None:
        """A client that was counted is gone."""
        self.reception.clients.disconnect(key)

    def facts(self, layer: TLSLayer) -> TLS:
        """What there is to know of a TLS layer."""
        assert self.certificates is not None
        tls: ssl.SSLObject = layer.get_extra_info("ssl_object")
        cipher = tls.cipher()
        self.reception.books.tls(tls.version() or "")
        return TLS(
            tls.version() or "",
            cipher[0] if cipher else "",
            self.certificates.server_name(tls),
            tls.getpeercert() or None,
            {"tls-server-end-point": self.certificates.end_point(tls)},
        )
