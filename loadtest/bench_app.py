"""The handlers that every speed figure refers to: all hooks of a message overridden, each accepting with None.

fastsmtp serve loadtest.bench_app:AsyncHooks --listen 127.0.0.1:2525 --workers 1
"""

from __future__ import annotations

from fastsmtp import Handler, Message, Recipient, Sender, Session, inline


class AsyncHooks(Handler):
    """Hooks on the event loop."""

    async def welcome(self, session: Session) -> None:
        return None

    async def ehlo(self, session: Session, name: str) -> None:
        return None

    async def mail(self, session: Session, sender: Sender) -> None:
        return None

    async def rcpt(self, session: Session, recipient: Recipient) -> None:
        return None

    async def data(self, session: Session, message: Message) -> None:
        return None

    async def rset(self, session: Session) -> None:
        return None


class InlineHooks(Handler):
    """Quick hooks on the event loop, without a coroutine each."""

    @inline
    def welcome(self, session: Session) -> None:
        return None

    @inline
    def ehlo(self, session: Session, name: str) -> None:
        return None

    @inline
    def mail(self, session: Session, sender: Sender) -> None:
        return None

    @inline
    def rcpt(self, session: Session, recipient: Recipient) -> None:
        return None

    @inline
    def data(self, session: Session, message: Message) -> None:
        return None

    @inline
    def rset(self, session: Session) -> None:
        return None


class ThreadHooks(Handler):
    """Hooks that may block, in the thread pool."""

    def mail(self, session: Session, sender: Sender) -> None:
        return None

    def rcpt(self, session: Session, recipient: Recipient) -> None:
        return None

    def data(self, session: Session, message: Message) -> None:
        return None
