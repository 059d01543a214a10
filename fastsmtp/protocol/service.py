"""What all sessions of a listener share: the server's name, its limits and rules, what it offers, where content goes.

Everything that can be known at start-up is made here, once per listener and process.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from .commands import LMTP, SMTP
from .content import ContentSpace
from .extensions import Offer, Switches, offer
from .limits import Limits
from .memory import BufferPool
from .policy import Policy
from .replies import HostReplies, Reply
from .states import State

if TYPE_CHECKING:
    from .session import Session


class Clients(Protocol):
    """What is remembered of clients beyond their sessions. A client is a key; one without is never remembered."""

    def key_of(self, host: str) -> bytes | None:
        """The client that an address belongs to."""

    def may_try(self, client: bytes | None) -> bool:
        """Whether a client may try to log in; not if too many of its attempts have failed."""

    def auth_failed(self, client: bytes | None) -> None:
        """A login of this client has failed."""

    def auth_accepted(self) -> None:
        """A login has succeeded."""


class NoMemory:
    """Remembers nothing of any client."""

    def key_of(self, host: str) -> bytes | None:
        """Nobody is anybody."""
        return None

    def may_try(self, client: bytes | None) -> bool:
        """Everybody may."""
        return True

    def auth_failed(self, client: bytes | None) -> None:
        """Nobody counts it."""

    def auth_accepted(self) -> None:
        """Likewise."""


def _epoch() -> datetime:
    return datetime.fromtimestamp(0, UTC)


class Service:
    """The server as its sessions see it.

    Args:
        hostname: the name in the banner and in EHLO (RFC 5321 4.1.1.1).
        space: where contents find room, and the limits.
        switches: which extensions to offer.
        policy: what is asked of clients.
        clients: what is remembered of them.
        clock: monotonic seconds, for the durations in the log.
        now: the time of day, for FUTURERELEASE.
        tally: is told the verb of each command, in whatever thread the session is; empty for a response of AUTH.

    Attributes:
        mail_refusal: the reply to every MAIL while the server has no room; None while it has. The driver sets it.
    """

    def __init__(
        self,
        hostname: str,
        space: ContentSpace | None = None,
        switches: Switches | None = None,
        policy: Policy | None = None,
        clients: Clients | None = None,
        clock: Callable[[], float] = float,
        now: Callable[[], datetime] = _epoch,
        tally: Callable[[bytes], object] = len,
    ) -> None:
        self.hostname = hostname
        self.clock = clock
        self.tally = tally
        self.space = space or ContentSpace(Limits(), BufferPool())
        self.limits = self.space.limits
        self.policy = policy or Policy()
        self.clients = clients or NoMemory()
        self.states = LMTP if self.policy.lmtp else SMTP
        self.replies = HostReplies(hostname)
        self.mail_refusal: Reply | None = None
        self._switches = switches or Switches()
        self._now = now
        self._offers: dict[tuple[bool, bool, bool, bool], Offer] = {}
        self._ehlo: dict[Offer, Reply] = {}
        self.no_offer = Offer([], self.limits)  # to a client that said HELO, or nothing yet
        self.helo = Reply(250, None, hostname)

    def home_of(self, session: Session) -> State:
        """The state of a session between two transactions."""
        policy, states = self.policy, self.states
        in_clear = policy.require_tls and session.tls is None
        if not session.client_name:
            return states.start_in_clear if in_clear else states.start
        if in_clear:
            return states.tls_first
        if policy.require_auth and session.user is None:
            return states.login_first
        return states.ready

    def mechanisms_for(self, session: Session) -> tuple[str, ...]:
        """The SASL mechanisms that a session may use; none where nobody authenticates."""
        if "auth" not in session.deciders:
            return ()
        mechanisms = self.policy.mechanisms
        if session.tls and session.tls.bindings:
            return mechanisms
        return tuple(name for name in mechanisms if not name.endswith("-PLUS"))  # no channel to bind to

    def offer_to(self, session: Session) -> Offer:
        """What a session is offered, as things stand with it."""
        known = session.user is not None
        situation = session.tls is not None, known, "auth" in session.deciders, session.may_xclient
        found = self._offers.get(situation)
        if found is None:
            found = self._make_offer(session)
            if not (known and self._switches.futurerelease):  # whose latest date moves with the clock
                self._offers[situation] = found
        return found

    def _make_offer(self, session: Session) -> Offer:
        policy, in_clear = self.policy, session.tls is None
        may_log_in = not (in_clear and (policy.auth_requires_tls or policy.require_tls))
        return offer(
            self._switches,
            self.limits,
            tls=not in_clear,
            authenticated=session.user is not None,
            starttls=policy.starttls and in_clear,
            mechanisms=self.mechanisms_for(session) if may_log_in else (),
            xclient=session.may_xclient,
            now=self._now,
        )

    def ehlo_reply(self, offer: Offer, own: Reply | None) -> Reply:
        """The reply to EHLO: the server's name and a line for each keyword.

        Args:
            offer: what the client is offered.
            own: a handler's reply; its text follows the name, as a greeting may (RFC 5321 4.1.1.1).
        """
        if own:
            return Reply(250, None, "\n".join((f"{self.hostname} {own.text}", *offer.keywords)))
        reply = self._ehlo.get(offer)
        if reply is None:
            reply = Reply(250, None, "\n".join((self.hostname, *offer.keywords)))
            if offer in self._offers.values():
                self._ehlo[offer] = reply
        return reply
