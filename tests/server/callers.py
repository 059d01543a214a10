"""A handler that tells who it believes to talk to."""

from __future__ import annotations

from typing import Final

from fastsmtp import REJECT, Answer, AuthAnswer, Credentials, Handler, Reply, Session, inline
from tests.server.journal import note

UNWANTED: Final = "192.0.2.66"  # the address that the welcome hook turns away
PASSWORD: Final = "secret"


class Callers(Handler):
    """NOOP says how things stand with a session, in the words of `standing`."""

    @inline
    def welcome(self, session: Session) -> Answer:
        note(event="welcome", peer=str(session.peer), told=bool(session.xclient))
        return REJECT if session.peer.host == UNWANTED else None

    @inline
    def auth(self, session: Session, credentials: Credentials) -> AuthAnswer:
        return None if credentials.verify(PASSWORD) else REJECT

    @inline
    def noop(self, session: Session, argument: str) -> Answer:
        tls = session.tls.version if session.tls else "none"
        return Reply(250, "2.0.0", standing(str(session.peer), str(session.local), tls, session.user or "nobody"))

    @inline
    def closed(self, session: Session) -> None:
        note(event="closed", peer=str(session.peer))


def standing(peer: str, local: str, tls: str = "none", user: str = "nobody") -> str:
    """Who a session is with, and what is known of it."""
    return f"{peer} to {local}, tls {tls}, user {user}"
