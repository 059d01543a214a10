"""Plays the part of a connection for a session: hands octets in, gathers replies and messages, without any I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fastsmtp import TLS, Endpoint, Reply, Session, SMTPError
from fastsmtp.protocol.content import ContentSpace
from fastsmtp.protocol.events import FAILED, PENDING
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.memory import BufferPool
from fastsmtp.protocol.service import Service
from fastsmtp.protocol.session import Finished
from tests.protocol.application import ANSWERING, Delivered, decide, delivered, let_in

HOSTNAME: Final = "mx.example"
SESSION_ID: Final = "id"
PEER: Final = Endpoint("192.0.2.1", 50000)
TLS_FACTS: Final = TLS("TLSv1.3", "TLS_AES_256_GCM_SHA384")
LOCAL: Final = Endpoint("192.0.2.25", 25)


def never() -> bool:
    """The patience of a driver whose hooks answer in place."""
    return False


class Driver:
    """A session and what comes out of it.

    Args:
        limits: the session's.
        service: instead of one with these limits and nothing else.
        may_xclient: whether the client is trusted with XCLIENT.
        space: where contents go; made from the limits if not given.
        asks_later: for each question, whether its hook answers PENDING first.
        waits: for each pending question, whether its answer comes only behind the next octets.
        into_room: whether content is put into the reader's memory, as a connection does.
        deciders: instead of those of `tests.protocol.application`.
        tls: what the connection has from its beginning.

    Attributes:
        output: every octet that the session said.
        messages: what it handed over and what was accepted.
        delays: the seconds that replies were to wait.
        finished: what the log is told of messages.
        refusals: what the log is told of refused commands.
        hooks: those that are decided here.
    """

    hooks: Sequence[str] = ANSWERING

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        service: Service | None = None,
        may_xclient: bool = False,
        space: ContentSpace | None = None,
        asks_later: Callable[[], bool] = never,
        waits: Callable[[], bool] = never,
        into_room: bool = False,
        deciders: Mapping[str, Callable[[Session, Any], Any]] | None = None,
        tls: TLS | None = None,
    ) -> None:
        self.output = b""
        self.messages: list[Delivered] = []
        self.delays: list[float] = []
        self.finished: list[Finished] = []
        self.refusals: list[tuple[bytes, Reply]] = []
        self._asks_later, self._waits, self._into_room = asks_later, waits, into_room
        self._owed: object = None  # the answer to the pending question
        self._backlog = b""  # what came while it was pending
        space = space or ContentSpace(limits or Limits(), BufferPool())
        if deciders is None:
            deciders = {hook: self._decider(hook) for hook in self.hooks}
        service = service or Service(HOSTNAME, space)
        self.session = Session(service, deciders, self, SESSION_ID, PEER, LOCAL, tls, may_xclient)
        self.session.greet()
        self._settle()

    def decide(self, hook: str, subject: Any) -> object:
        """What a hook answers."""
        return let_in(subject) if hook == "auth" else decide(hook, subject)

    def _decider(self, hook: str) -> Callable[[Session, Any], Any]:
        def decider(session: Session, subject: Any) -> Any:
            assert session is self.session
            try:
                answer = self.decide(hook, subject)
            except SMTPError as error:
                answer = error.reply
            except RuntimeError:
                answer = FAILED
            if hook == "data" and answer is None:
                self.messages.append(delivered(subject))
            if self._asks_later():
                self._owed = answer
                return PENDING
            return answer

        return decider

    def send(self, octets: bytes) -> None:
        """The client sends; octets that no command awaits any more are dropped."""
        session = self.session
        self._backlog += octets
        if session.pending is not None:
            session.answer(self._owed)
            self._settle()
        while self._backlog and session.pending is None and not session.closing and not session.starting_tls:
            octets, self._backlog = self._backlog, b""
            if self._into_room and session.reader is not None:
                room = session.reader.room()
                length = min(len(room), len(octets))
                room[:length], self._backlog = octets[:length], octets[length:]
                session.content_received(length)
            else:
                session.receive(octets)
            self._settle()

    def start_tls(self, tls: TLS = TLS_FACTS) -> None:
        """The handshake that the session asked for has succeeded; what waited in clear text is gone."""
        assert self.session.starting_tls
        self._backlog = b""
        self.session.tls_started(tls)
        self._settle()

    def finish(self) -> None:
        """The client has nothing more to say: every open question gets its answer."""
        while self.session.pending is not None:
            self.send(b"")

    def _settle(self) -> None:
        """As a connection does behind each call: take the output, and answer what is pending."""
        session = self.session
        while session.delay or (session.pending is not None and not self._waits()):
            if session.pending is not None:
                session.answer(self._owed)
            if session.delay:
                self.delays.append(session.delay)
                session.go_on()
        self.output += b"".join(session.output)
        session.output.clear()
        self.finished += session.finished
        session.finished.clear()
        self.refusals += session.refusals
        session.refusals.clear()
        reasons = (session.closing, session.pending, session.reader, session.starting_tls)
        assert session.stopped == any(reasons)
