"""The handler that the conformance cases are written for: it takes all mail, and knows one user."""

from __future__ import annotations

from fastsmtp import REJECT, Answer, Credentials, Handler, Session, inline

USER = "test@example.org"
PASSWORD = "secret"


class Conformance(Handler):
    @inline
    def auth(self, session: Session, credentials: Credentials) -> Answer:
        return None if credentials.username == USER and credentials.verify(PASSWORD) else REJECT
