"""Applications that decide logins, in each of the ways a hook can be written; the user's name says how."""

from __future__ import annotations

import os

from fastsmtp import REJECT, AuthAnswer, Credentials, Handler, Reply, ScramKey, Session, SMTPError, inline
from fastsmtp.protocol.events import Answer
from fastsmtp.protocol.sasl import MECHANISMS
from tests.server import gates
from tests.server.journal import note

PASSWORD = "correct horse"
TOKEN = "ya29.token"
KEY = ScramKey.of(PASSWORD, b"0123456789abcdef")


def _decide(credentials: Credentials) -> AuthAnswer:
    match credentials.username:
        case "busy":
            return Reply(454, "4.7.0", "the database rests")
        case "locked":
            return Reply(535, "5.7.8", "account locked")
        case "vip":
            return Reply(235, "2.7.0", "at your service")
        case "shut":
            return Reply(535, "5.7.8", "go away", close=True)
        case "broken":
            raise LookupError("the table of users is gone")
        case "raised":
            raise SMTPError(Reply(535, "5.7.8", "raised"))
        case "odd":
            return True  # type: ignore[return-value]  # a mistake that handlers make
    if credentials.mechanism.startswith("SCRAM"):
        return KEY if credentials.username == "alice" else REJECT
    knows = credentials.token == TOKEN if credentials.token is not None else credentials.verify(PASSWORD)
    return None if knows and credentials.username == "alice" else REJECT


class _Logins(Handler):
    auth_mechanisms = MECHANISMS

    @inline
    def welcome(self, session: Session) -> Answer:
        return Reply(220, None, f"pid {os.getpid()}")

    @inline
    def noop(self, session: Session, argument: str) -> Answer:
        """Tells what the session knows of its client."""
        tls = session.tls
        known = (tls.version, tls.cipher, tls.server_name, _subject(tls.client_certificate)) if tls else ()
        return Reply(250, "2.0.0", " ".join(map(str, (session.user, *known))))


def _subject(certificate: object) -> str | None:
    """The first alternative name of a client's certificate."""
    if not isinstance(certificate, dict):
        return None
    name: str = certificate["subjectAltName"][0][1]
    return name


class AsyncLogins(_Logins):
    async def auth(self, session: Session, credentials: Credentials) -> AuthAnswer:
        if credentials.username == "late":
            note(event="auth")
            await gates.wait("auth")
        return _decide(credentials)


class ThreadedLogins(_Logins):
    def auth(self, session: Session, credentials: Credentials) -> AuthAnswer:
        if credentials.username == "late":
            note(event="auth")
            gates.stand("auth")
        return _decide(credentials)


class InlineLogins(_Logins):
    @inline
    def auth(self, session: Session, credentials: Credentials) -> AuthAnswer:
        return _decide(credentials)
