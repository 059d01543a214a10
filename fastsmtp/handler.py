"""What the user writes: a handler, whose hooks decide; and how each hook is to be called, found once per class.

| a hook written as | runs                        | and may                                          |
|-------------------|-----------------------------|--------------------------------------------------|
| ``async def``     | on the worker's event loop  | await; it must not block                         |
| ``def``           | in the worker's thread pool | block: databases, DNS, files, CPU                |
| ``@inline`` def   | on the loop, directly       | neither: for what is done in a few microseconds  |
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import ClassVar, Final, TypeVar

from .protocol.credentials import Credentials
from .protocol.envelope import Message, Recipient, Sender
from .protocol.events import HOOKS, Answer, AuthAnswer, DataAnswer
from .protocol.replies import Reply
from .protocol.session import Session

HookAnswer = Answer | Awaitable[Answer]
_Function = TypeVar("_Function", bound=Callable[..., object])

_INLINE: Final = "_fastsmtp_inline"


def inline(hook: _Function) -> _Function:
    """Mark a ``def`` hook that is quick enough for the event loop: it saves the way to a thread and back.

    While it runs, no other session of the worker makes progress.
    """
    if inspect.iscoroutinefunction(hook):
        raise TypeError(f"@inline on {hook.__qualname__}: an async hook runs on the loop already")
    setattr(hook, _INLINE, True)
    return hook


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The worker that a `Handler.lifespan` belongs to.

    Attributes:
        slot: the worker's place, 0 to N-1; a successor takes the same one.
        pid: its process.
        hostname: the server's name.
    """

    slot: int
    pid: int
    hostname: str


class Handler:
    """The base of handlers. Override the hooks that are to decide something; each one is optional.

    A hook returns None or ACCEPT to accept, REJECT to refuse, CLOSE to refuse and hang up, or a `Reply` with a text of
    its own; it may raise `SMTPError(reply)` instead. Any other exception is logged, and the client gets 451 4.3.0.
    Hooks of one session never run at the same time. Given a class, the server makes an instance for each session;
    given an instance, all sessions share it.

    Attributes:
        auth_mechanisms: SASL mechanisms that the `auth` hook can decide, in order of preference: any of PLAIN, LOGIN,
            CRAM-MD5, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, XOAUTH2, OAUTHBEARER. The setting of that name overrides it.
        checks_authzid: whether the `auth` hook looks at ``credentials.authzid``. If not, a login as somebody else is
            refused without asking it.
    """

    auth_mechanisms: ClassVar[tuple[str, ...]] = ("PLAIN", "LOGIN")
    checks_authzid: ClassVar[bool] = False

    @classmethod
    @asynccontextmanager
    async def lifespan(cls, worker: WorkerInfo) -> AsyncIterator[None]:
        """Runs around the life of each worker, on its loop: open pools and clients here, close them behind the yield.

        Override it with these same two decorators. What it opens is best kept on the class, where hooks find it.
        """
        yield

    def welcome(self, session: Session) -> HookAnswer:
        """A client has connected, nothing was said yet. Refused: 554, and the client may only QUIT (RFC 5321 3.1)."""

    def helo(self, session: Session, name: str) -> HookAnswer:
        """HELO with the client's name, which nobody has verified."""

    def ehlo(self, session: Session, name: str) -> HookAnswer:
        """EHLO with the client's name, which nobody has verified (RFC 5321 4.1.4)."""

    def auth(self, session: Session, credentials: Credentials) -> AuthAnswer | Awaitable[AuthAnswer]:
        """A login (RFC 4954). Accepted: 235, and `session.user` says who it is. REJECT: 535, after a delay.

        PLAIN and LOGIN bring a password, XOAUTH2 and OAUTHBEARER a token; ``credentials.verify(password)`` compares
        for them and for CRAM-MD5. For SCRAM return the user's `ScramKey`, and the session finds out; there nothing
        else lets anybody in. If you cannot tell now, return ``Reply(454, "4.7.0", ...)``.
        """

    def mail(self, session: Session, sender: Sender) -> HookAnswer:
        """MAIL: a transaction begins (RFC 5321 4.1.1.2). Refused: 550, no transaction."""

    def rcpt(self, session: Session, recipient: Recipient) -> HookAnswer:
        """RCPT, for each recipient (RFC 5321 4.1.1.3); `session.envelope` has those accepted before."""

    def data(self, session: Session, message: Message) -> DataAnswer | Awaitable[DataAnswer]:
        """The message is complete, and the client waits for its 250, which is sent when this returns.

        250 makes the message the server's responsibility (RFC 5321 4.2.5): it promises whatever this hook, and the
        store behind it if one is configured, made durable.

        It may return a list with an answer for each of `message.recipients`. LMTP says each of them (RFC 2033 4.2);
        SMTP has one reply for all, and the first refusal is it.
        """

    def rset(self, session: Session) -> HookAnswer:
        """RSET: the transaction is given up (RFC 5321 4.1.1.5)."""

    def noop(self, session: Session, argument: str) -> HookAnswer:
        """NOOP (RFC 5321 4.1.1.9)."""

    def vrfy(self, session: Session, argument: str) -> HookAnswer:
        """VRFY with what the client wants verified (RFC 5321 3.5). Accepted without a reply of its own: 252."""

    def help(self, session: Session, argument: str) -> HookAnswer:
        """HELP (RFC 5321 4.1.1.8)."""

    def error(self, session: Session, reply: Reply) -> HookAnswer:
        """The server is about to refuse a command with `reply`, for a fault of the client. A `Reply` replaces it."""

    def timeout(self, session: Session) -> HookAnswer:
        """A deadline of the session has passed: 421 and a close follow. A `Reply` of 421 replaces the server's own."""

    def closed(self, session: Session) -> HookAnswer:
        """The connection is gone. Always the last call; the answer does not matter."""


class Kind(Enum):
    """Where a hook runs."""

    ASYNC = "event loop"
    THREAD = "thread pool"
    INLINE = "event loop, inline"


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook that a handler implements; `function` takes the handler, the session, and the event's arguments."""

    name: str
    kind: Kind
    function: Callable[..., object]


@cache
def hooks_of(handler_class: type) -> dict[str, Hook]:
    """The hooks that a class implements, by name."""
    found = {}
    for name in HOOKS:
        function = getattr(handler_class, name, None)
        if function is not None and function is not getattr(Handler, name):
            found[name] = Hook(name, _kind_of(function), function)
    return found


def _kind_of(function: Callable[..., object]) -> Kind:
    if inspect.iscoroutinefunction(function):
        return Kind.ASYNC
    return Kind.INLINE if getattr(function, _INLINE, False) else Kind.THREAD
