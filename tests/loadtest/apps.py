"""Applications that the load tests meet."""

from __future__ import annotations

import time

from fastsmtp import REJECT, AuthAnswer, Credentials, Handler, Message, Recipient, Reply, Sender, Session

USER, PASSWORD = "ann@example.org", "open: sesame"


class Picky(Handler):
    """Refuses the recipient that a share of the messages names; knows one user."""

    async def auth(self, session: Session, credentials: Credentials) -> AuthAnswer:
        return None if credentials.username == USER and credentials.verify(PASSWORD) else REJECT

    async def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        return Reply(550, "5.1.1", "nobody here") if recipient.domain == "refused.example" else None


class Slow(Handler):
    """Takes its time for each message."""

    def data(self, session: Session, message: Message) -> None:
        time.sleep(0.9)


class Closed(Handler):
    """Takes no mail."""

    async def mail(self, session: Session, sender: Sender) -> Reply:
        return Reply(550, "5.7.1", "not from you")


class Hangs(Handler):
    """Says nothing more at MAIL."""

    def mail(self, session: Session, sender: Sender) -> None:
        time.sleep(60)
