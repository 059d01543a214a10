"""Traced sessions, in a worker: what both sides say, as the session takes it and says it, without secrets and content.

Nothing of this runs while nobody traces. A connection that begins while somebody does is a `TracedConnection`, which
differs from others only in its session; a `TracedSession` differs only in that it tells what it does. It tells from
within, where commands are executed, and not from what the socket brings: there alone it is known which octets are a
command, which content, and which may be a secret (`authentication.without_secrets` has been there first).

Records leave on whatever thread the session works.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from ..networks import Networks
from ..protocol.envelope import Endpoint
from ..protocol.events import Decider
from ..protocol.service import Service
from ..protocol.session import Session
from ..protocol.tls import TLS
from .columns import TRACE_RECORDS_DROPPED, TRACE_RECORDS_SENT
from .connection import Connection
from .reception import Reception
from .scoreboard import Row
from .trace_link import Filter, TraceLink

_INTERVAL: Final = 1.0  # seconds between two looks at the board
_MOST_HELD_BACK: Final = 256  # records of a session that wait for its recipient
_MAX_LINE: Final = 2048  # octets of a command that are told
_RCPT_DOMAIN: Final = re.compile(rb"RCPT[ \t]+TO:[ \t]*<[^>]*@([^@>]+)>", re.I)
_SECRET: Final = "(not shown)"
# Questions that no command at hand asks, and the one whose command is known with its reply only.
_NO_COMMANDS: Final = frozenset({"welcome", "timeout", "closed", "error", "auth"})


class Tracer:
    """Knows the traces that there are. Runs on the loop; `send` on any thread.

    Args:
        loop: the worker's.
        link: to the admin process.
        row: the worker's.
        slot: likewise.
        reception: whose connections are traced.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: TraceLink, row: Row, slot: int, reception: Reception
    ) -> None:
        self._loop = loop
        self._link = link
        self._cells = row.cells
        self._slot = slot
        self._reception = reception
        self._number = 0
        self.traces: dict[int, Filter] = {}
        self._timer = loop.call_soon(self._look)

    def stop(self) -> None:
        """The worker ends."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._link.number != self._number:
            self._change()
        self._timer = self._loop.call_later(_INTERVAL, self._look)

    def _change(self) -> None:
        number, traces = self._link.number, self._link.read()
        if traces is None:
            return
        new = [each for each in traces if each not in self.traces]
        self._number, self.traces = number, traces
        self._reception.tracer = self if traces else None
        self._reception.connection_type = TracedConnection if traces else Connection
        if new:
            self.send(new, {"event": "tracing"})

    def send(self, to: list[int], record: dict[str, object]) -> None:
        """Hand a record over, for these traces."""
        stamped = {"time": round(time.time(), 6), "worker": self._slot, **record}
        self._cells[TRACE_RECORDS_SENT if self._link.send(to, stamped) else TRACE_RECORDS_DROPPED] += 1


class Dialogue:
    """What is told of one session, and to whom.

    A trace that wants a recipient gets nothing until there is one; then it gets what was held back, too.
    """

    __slots__ = ("_held_back", "_id", "_open", "_tracer", "_waiting")

    def __init__(self, tracer: Tracer, session: Session, listener: str) -> None:
        self._tracer = tracer
        self._id = session.id
        self._held_back: list[dict[str, object]] = []
        matching = {
            number: wanted
            for number, wanted in tracer.traces.items()
            if (wanted.listener is None or wanted.listener == listener)
            and (wanted.peer is None or session.peer.host in Networks([wanted.peer]))
        }
        self._open = [number for number, wanted in matching.items() if wanted.rcpt is None]
        self._waiting = {number: wanted.rcpt for number, wanted in matching.items() if wanted.rcpt is not None}

    def tell(self, event: str, **fields: object) -> None:
        """Tell who wants to know."""
        traces = self._tracer.traces
        record = {"session": self._id, "event": event, **fields}
        if to := [number for number in self._open if number in traces]:
            self._tracer.send(to, record)
        if self._waiting and len(self._held_back) < _MOST_HELD_BACK:
            self._held_back.append({"time": round(time.time(), 6), **record})

    def recipient(self, domain: str) -> None:
        """A recipient was named: who waits for this domain gets all that was said."""
        matched = [number for number, wanted in self._waiting.items() if wanted == domain]
        for number in matched:
            del self._waiting[number]
        self._open += matched
        if to := [number for number in matched if number in self._tracer.traces]:
            for record in self._held_back:
                self._tracer.send(to, record)
        if not self._waiting:
            self._held_back.clear()


class _Output(list[bytes]):
    """The replies of a session, which is told of each."""

    __slots__ = ("_told",)

    def __init__(self, told: Callable[[bytes], None]) -> None:
        super().__init__()
        self._told = told

    def append(self, reply: bytes, /) -> None:
        self._told(reply)
        super().append(reply)

    def extend(self, replies: Iterable[bytes], /) -> None:
        for reply in replies:
            self.append(reply)


class TracedSession(Session):
    """A session that tells what it does; its driver is a `TracedConnection`."""

    __slots__ = ("_data_refused", "_last_code", "_told", "dialogue")

    def __init__(
        self,
        service: Service,
        deciders: Mapping[str, Decider],
        driver: object,
        id: str,
        peer: Endpoint,
        local: Endpoint,
        tls: TLS | None = None,
        may_xclient: bool = False,
        client: bytes | None = None,
    ) -> None:
        super().__init__(service, deciders, driver, id, peer, local, tls, may_xclient, client)
        assert isinstance(driver, Connection)
        tracer, listener = driver.entrance.reception.tracer, driver.entrance.address
        self._told: bytes | None = None  # the command that was told last
        self._last_code = 0  # of the last reply
        self._data_refused = False  # what is no command may be the content that was to follow
        self.dialogue = Dialogue(tracer, self, listener) if tracer else None
        if self.dialogue:
            self.watch_output()
            self._tell("begin", peer=str(self.peer), local=str(self.local), listener=listener, tls=_told_of(self.tls))

    def watch_output(self) -> None:
        """Be told of replies; the driver takes the list with those that it sends."""
        if self.dialogue:
            self.output = _Output(self._replied)

    def _tell(self, event: str, **fields: object) -> None:
        if self.dialogue:
            self.dialogue.tell(event, **fields)

    # -- what a session does ------------------------------------------------------------------------------------------

    def ask(self, hook: str, subject: Any = None) -> None:
        if hook not in _NO_COMMANDS and self.line is not self._told and self._last_code != 354:
            self._said(self.line, 0)  # before the hook works, which may take its time
        super().ask(hook, subject)

    def tls_started(self, tls: TLS) -> None:
        super().tls_started(tls)
        self._tell("tls", **_told_of(tls) or {})

    def disconnected(self) -> None:
        super().disconnected()
        said = self.last_words
        end = "quit" if self.said_goodbye else f"closed by {'server' if said else 'client'}"
        self._tell("end", end=end, messages=self.messages)

    # -- what is told of it -------------------------------------------------------------------------------------------

    def _replied(self, reply: bytes) -> None:
        """A reply is about to leave: first tell what it answers."""
        code = int(reply[:3])
        if self._last_code == 354:
            if self.finished:
                self._tell("content", octets=self.finished[-1][2])
        elif self._last_code == 334 and code != 421:
            self._tell("command", line=_SECRET)
            self._told = self.line
        elif self._last_code and (self.line is not self._told or not self.line) and not self._ends_unasked(code):
            self._said(self.line, code)
        self._last_code = code
        self._data_refused = (self._data_refused and code >= 500) or (self.line[:4].upper() == b"DATA" and code >= 400)
        self._tell("reply", lines=[f"334 {_SECRET}"] if code == 334 else _lines(reply))

    def _ends_unasked(self, code: int) -> bool:
        """Whether this reply answers no command: a time-out, or the server leaves."""
        return code == 421 and not self.line

    def _said(self, line: bytes, code: int) -> None:
        """Tell a command; `code` of its reply, if that is known."""
        self._told = line
        if self._data_refused and code >= 500:
            self._tell("command", line=f"({len(line)} octets that are no command)")
        elif not line and self.said_auth:
            self._tell("command", line=_SECRET)
        else:
            self._tell("command", line=_text(line[:_MAX_LINE]))
            if self.dialogue and (match := _RCPT_DOMAIN.match(line)):
                self.dialogue.recipient(_text(match[1]).lower())


class TracedConnection(Connection):
    """A connection whose session is traced."""

    __slots__ = ()

    session_type: ClassVar[type[Session]] = TracedSession

    def _say(self, session: Session) -> None:
        super()._say(session)
        assert isinstance(session, TracedSession)
        session.watch_output()


def _told_of(tls: TLS | None) -> dict[str, str] | None:
    return {"version": tls.version, "cipher": tls.cipher} if tls else None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


def _lines(reply: bytes) -> list[str]:
    return [_text(line) for line in reply.removesuffix(b"\r\n").split(b"\r\n")]
