"""The transport adapter of a session: reads, writes, flow control, delays, deadlines, STARTTLS, and the way out.

Guarantees: commands are read into a buffer that all connections share, content straight into the message's own memory;
the replies of a flight leave in one write; while a hook works or output waits to be sent, no more than one read is kept
and reading stops; a close by the server waits for its last reply to arrive. Runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from mmap import mmap
from time import monotonic
from typing import ClassVar, Final

from ..protocol.envelope import Endpoint
from ..protocol.lines import begins_with_large_chunk
from ..protocol.replies import EARLY_TALKER, Reply
from ..protocol.session import Reader, Session
from ..protocol.tls import TLS
from .books import MANY
from .columns import CONNECTIONS, REFUSED_EARLY_TALKER, REFUSED_PER_CLIENT, REFUSED_TOO_BUSY, TIMEOUTS
from .dispatch import Running, Tables
from .entrance import Entrance
from .reception import SWEEP_INTERVAL
from .sockets import NOBODY, endpoint, say_the_rest_at_the_end
from .tls import TLSLayer
from .turn import Turn

_log = logging.getLogger("fastsmtp.worker")
_LINGER_OCTETS: Final = 262144  # read and dropped behind the last reply, so that no reset swallows it
_SMALL: Final = 16384  # octets of content that wait until all sockets are read; the rest of a message may follow
_NEVER: Final = float("inf")


class Connection(asyncio.BufferedProtocol):
    """One client's connection, and its session's driver."""

    __slots__ = (
        "_backlog",
        "_began_with",
        "_blocked",
        "_cells",
        "_client",
        "_closed",
        "_data_began",
        "_deaf",
        "_eof",
        "_held",
        "_leaving",
        "_lingered",
        "_local",
        "_lost",
        "_noted",
        "_peer",
        "_reader",
        "_receive_buffer",
        "_reception",
        "_replies",
        "_securing",
        "_tls",
        "_transport",
        "_turn",
        "_unsent",
        "_write",
        "context",
        "deadline",
        "entrance",
        "handler",
        "late",
        "opened",
        "running",
        "session",
        "tables",
    )  # fmt: skip

    session_type: ClassVar[type[Session]] = Session  # that of `tracing` tells what it does
    # uvloop looks whether there is one; an AttributeError for each connection would cost 0.6 us. It calls get_buffer.
    data_received: ClassVar[None] = None
    session: Session
    handler: object
    tables: Tables

    def __init__(
        self, entrance: Entrance, peer: Endpoint | None = None, local: Endpoint | None = None, tls: TLS | None = None
    ) -> None:
        # per process
        self.entrance = entrance
        self._reception = reception = entrance.reception
        self._receive_buffer = reception.receive_buffer
        self._cells = reception.books.cells
        self._replies = reception.books.replies
        self._turn = reception.turn
        # per connection
        self._peer = peer  # as a proxy has told it
        self._local = local or entrance.local
        self._tls = tls
        self._client: bytes | None = None  # under which the client is counted
        self._transport: asyncio.Transport
        self._write: Callable[[list[bytes]], None]
        self.opened = monotonic()
        self.context = copy_context()  # the hooks of a session share their context variables
        # reading: what get_buffer and buffer_updated look at
        self._reader: Reader | None = None  # where content goes now
        self._deaf = False  # what is read now cannot be looked at: a hook works, output waits, or all is said
        # what the deafness comes from
        self.running: Running | None = None  # set by the dispatcher
        self.late: Running | None = None  # likewise
        self._blocked = False  # the client does not read
        self._held = False  # the output waits for its time
        self._securing = False  # the handshake that STARTTLS asked for is under way
        self._lingered = -1  # octets dropped behind our last reply; -1: we are still talking
        # what happened meanwhile
        self._backlog = b""  # read while deaf
        self._noted = False  # the access log knows this session
        self._eof = False  # the client will send no more
        self._lost = False
        self._closed = False  # the closed hook was called
        self._leaving = reception.stopping  # the server goes away: say so between two transactions
        # for the sweep
        self.deadline = _NEVER
        self._began_with: Reader | None = None  # whose time began at...
        self._data_began = 0.0
        self._unsent = 0  # octets of output when progress was looked at last

    # -- asyncio.BufferedProtocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's are none by inheritance
        self._write = self._transport.writelines
        entrance, reception = self.entrance, self._reception
        told, peer = self._peer is not None, self._peer or endpoint(transport.get_extra_info("peername"))
        local = self._local or endpoint(transport.get_extra_info("sockname"))
        key, may_xclient = entrance.standing_of(peer.host, told)
        refusal = entrance.service.replies.closing if peer is NOBODY else entrance.refusal_of(key)
        if refusal is not entrance.service.replies.too_busy:
            self._client = key
        reception.connections.add(self)
        self._cells[CONNECTIONS] += 1
        try:
            self.handler = reception.application.new_handler()
            self.tables = reception.tables_of(self.handler)
        except Exception:
            _log.exception("no handler could be made for %s", peer)
            refusal = entrance.service.replies.too_busy
        deciders = {} if refusal else self.tables.on_loop
        self.session = self.session_type(
            entrance.service,
            deciders,
            self,
            reception.new_id(),
            peer,
            local,
            self._tls,
            may_xclient,
            self._client,
        )
        if refusal:
            self._turn_away(refusal)
        elif entrance.greet_wait:
            self._deaf = True
            asyncio.get_running_loop().call_later(entrance.greet_wait, self._greet)
        else:
            self.session.greet()
            self._send()

    def _turn_away(self, refusal: Reply) -> None:
        self.session.turn_away(refusal)
        self._cells[REFUSED_TOO_BUSY if refusal.enhanced == "4.3.2" else REFUSED_PER_CLIENT] += 1
        self._eof = True  # whatever it says: lingering would take the descriptors that we do not have
        self._send()
        self.deadline = self._reception.now + self.entrance.config.refusal_timeout

    def _greet(self) -> None:
        """The wait before the banner is over."""
        if self._lost:
            return
        if self._backlog and self.entrance.config.early_talker == "reject":
            self._cells[REFUSED_EARLY_TALKER] += 1
            self.session.turn_away(EARLY_TALKER)
        else:
            self.session.greet()
        self.resume()

    def get_buffer(self, sizehint: int) -> memoryview | mmap:
        reader = self._reader
        return self._receive_buffer if reader is None else reader.room()

    def buffer_updated(self, length: int) -> None:
        if self._deaf:
            self._overhear(length)
        elif self._reader is None:
            octets = self._receive_buffer[:length]
            turn = self._turn
            # The rest of a large chunk can go where it is to stay: half the CPU of 1 MB. Other flights wait their turn,
            # and whatever the client said before: a socket that had more than one read gives them all in one turn.
            if length >= _SMALL and begins_with_large_chunk(octets) and not self._waits_in(turn):
                self._receive(octets)
                return
            # Hot path: Turn.work, without the call
            turn.works.append((self._receive, octets))
            if not turn.scheduled:
                turn.schedule()
        elif length < _SMALL:
            self._deaf = True
            self._reader = None
            self._turn.work(self._receive_content, length)
        else:  # of a large message: better looked at while it is in the cache
            self.session.content_received(length)
            self._send()

    def _waits_in(self, turn: Turn) -> bool:
        """Whether something that was read in this turn is still to be looked at."""
        receive = self._receive
        return any(call == receive for call, _ in turn.works)

    def eof_received(self) -> bool:
        self._turn.work(self._end_input, None)
        return True  # what is complete is answered before we close

    def pause_writing(self) -> None:
        self._blocked = self._deaf = True
        self._reader = None
        self._transport.pause_reading()
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._reception.now + self.entrance.config.write_timeout

    def resume_writing(self) -> None:
        self._blocked = False
        if self._lingered >= 0:
            self.deadline = self._reception.now + self.entrance.config.linger_timeout
        elif not self._lost:
            self.deadline = self.entrance.command_deadline
            self._transport.resume_reading()
            self.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._deaf = True
        self.resume()

    # -- going on -----------------------------------------------------------------------------------------------------

    def _receive(self, octets: bytes) -> None:
        if self._deaf:  # since it was read
            self._put_off(octets)
            return
        session = self.session
        session.receive(octets)
        # Hot path: commands were answered, and that is all.
        if session.stopped or session.finished or session.refusals or self._leaving or self._eof:
            self._send()
            return
        self._reader = None  # these octets may have been the rest of a chunk, read before its BDAT was executed
        if session.output:
            self._say(session)

    def _receive_content(self, length: int) -> None:
        if not (self._lost or self.running or self.session.closing):  # it may have expired since this was read
            self.session.content_received(length)
            self.resume()

    def _end_input(self, nothing: None) -> None:
        self._eof = True
        if not self._deaf or self._lingered >= 0:
            self._turn.leave(self._hang_up, False)

    def resume(self) -> None:
        """The session has worked, or may work again: go on with what came meanwhile, and send what it says."""
        if self._lost:
            if self.running is None:
                self._leave()
            else:
                self.running.begin()
            return
        if self._lingered >= 0:
            return
        session = self.session
        if self.running is None and not self._blocked and not self._held:
            self._deaf = False
            if self._backlog and not session.closing and not session.delay and not session.starting_tls:
                backlog, self._backlog = self._backlog, b""
                session.receive(backlog)
                self._transport.resume_reading()
        self._send()

    def _send(self) -> None:
        """Send the replies of a flight, and see what the session wants next."""
        session = self.session
        if session.pending is not None:
            self._wait_for_answer()
            return
        if session.delay:
            self._hold_back(session.delay)
            return
        if session.finished or session.refusals:
            self._log_verdicts()
        if self._leaving and session.envelope is None and not session.closing:
            session.shut_down()
        if session.output:
            self._say(session)
        self._reader = None
        if session.stopped or self._eof:
            self._look_ahead(session)

    def _say(self, session: Session) -> None:
        """Have the session's output written at the end of the turn, in one piece."""
        output, session.output = session.output, []
        replies = self._replies
        replies += output
        if len(replies) > MANY:
            self._reception.books.count()
        self.deadline = self.entrance.command_deadline
        turn = self._turn  # Hot path: Turn.leave, without the call
        turn.departures.append((self._write, output))
        if not turn.scheduled:
            turn.schedule()

    def _hold_back(self, delay: float) -> None:
        """The replies wait, and nobody is heard meanwhile; a timer waits with them, and no thread."""
        self._deaf = True
        self._reader = None
        if not self._held:
            self._held = True
            self.deadline = _NEVER
            asyncio.get_running_loop().call_later(delay, self._let_go)

    def _let_go(self) -> None:
        """The delay is over: send what waited, then go on."""
        self._held = False
        session = self.session
        if self._lost or session.pending is not None:
            return
        if session.output:
            self._say(session)
        session.go_on()
        self.resume()

    def _look_ahead(self, session: Session) -> None:
        """What comes next is no command."""
        if session.closing:
            self._finish()
        elif session.starting_tls:
            self._deaf = True
            if not self._securing:  # else a hook that was late has returned during the handshake
                self._securing = True
                self._turn.leave(self._start_tls, None)
        elif self._eof:
            if not self._blocked:
                self._turn.leave(self._hang_up, False)
        elif not self._blocked:
            self._expect_content(session)

    def _wait_for_answer(self) -> None:
        self._deaf = True
        self._reader = None
        running = self.running
        assert running is not None
        self.deadline = running.deadline
        running.begin()

    def _log_verdicts(self) -> None:
        session, books = self.session, self._reception.books
        for finished in session.finished:
            self._noted = True
            books.message(session, finished, monotonic())
        session.finished.clear()
        for line, reply in session.refusals:
            books.refusal(session, line, reply, monotonic())
        session.refusals.clear()

    def _expect_content(self, session: Session) -> None:
        if self._began_with is not session.reader:
            self._began_with = session.reader
            self._data_began = self._reception.now
            self.deadline = self._data_began + self.entrance.config.data_timeout
        self._reader = session.reader

    def _overhear(self, length: int) -> None:
        """Octets come that nobody can look at now. Behind our last reply nobody ever will."""
        if self._lingered < 0:
            self._put_off(self._receive_buffer[:length])
            return
        self._lingered += length
        if self._lingered > _LINGER_OCTETS:
            self._transport.abort()

    def _put_off(self, octets: bytes) -> None:
        """Keep what was read, and stop reading."""
        if self._lost or self._lingered >= 0:
            return
        # What came behind STARTTLS in clear text is not to be looked at (RFC 3207 6).
        if not self.session.starting_tls:
            self._backlog += octets
            self._transport.pause_reading()

    # -- STARTTLS -----------------------------------------------------------------------------------------------------

    def _start_tls(self, nothing: None) -> None:
        """The 220 is written: what comes next is the client's handshake."""
        if self._lost:
            return
        entrance, lower = self.entrance, self._transport
        assert entrance.certificates is not None
        self._backlog = b""
        self.deadline = self._reception.now + entrance.handshake_timeout
        layer = TLSLayer(
            entrance.certificates.context, self._reception.cipher_view, self._tls_established, self._tls_failed
        )
        lower.set_protocol(layer)
        lower.resume_reading()
        layer.start(lower)

    def _tls_established(self, layer: TLSLayer) -> None:
        self._transport = layer
        self._write = layer.writelines
        self._deaf = self._blocked = self._securing = False
        self.deadline = self.entrance.command_deadline
        layer.set_protocol(self)
        self.session.tls_started(self.entrance.facts(layer))
        self._send()  # it may be time to leave

    def _tls_failed(self, reason: str) -> None:
        """There is no way back to clear text (RFC 3207 4.1)."""
        if self.deadline <= self._reception.now:
            reason = "not done in time"
        self._reception.books.tls_failed(self.session.peer, reason, monotonic())
        self.connection_lost(None)

    def _finish(self) -> None:
        """The session is over: close, once the client has what we said."""
        self._lingered = 0
        self._deaf = True
        self._reader = None
        in_step = self._eof or (self.session.said_goodbye and not self.session.in_command)
        if self.entrance.is_tcp:
            say_the_rest_at_the_end(self._transport)
        self._turn.leave(self._hang_up, not in_step)

    def _hang_up(self, linger: bool) -> None:
        """Close behind what was written; if the client may still be sending, in a way that does not reset it."""
        if self._lost:
            return
        if not linger:
            # The loop closes in its next turn. Asked for first, that turn's replies leave before: an end that leaves on
            # its own finds the client asleep again.
            self._turn.schedule()
            self._transport.close()
            return
        if not self._blocked:
            self.deadline = self._reception.now + self.entrance.config.linger_timeout
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()

    def _leave(self) -> None:
        """The connection is gone, and nobody works for it any more: call the closed hook, and be forgotten."""
        reception, session = self._reception, self.session
        self.deadline = _NEVER
        if not self._closed and not self.late:
            self._closed = True
            if session.finished or session.refusals:
                self._log_verdicts()
            reception.books.session(session, self.opened, monotonic(), self._end(), self._noted)
            session.disconnected()
            if self.running is not None:
                self.running.begin()
                self.deadline = self.running.deadline
                return  # we come here again when the hook is done
        if self._client is not None:
            self.entrance.depart(self._client)
            self._client = None
        if not self.late:
            session.driver = None  # a cycle would wait for the collector, with all its memory: 10 us a session
        reception.leave(self)

    def _end(self) -> str:
        session = self.session
        if session.said_goodbye:
            return "quit"
        return "closed by server" if session.closing else "closed by client"

    # -- deadlines and drain ------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The deadline has passed, or the session is as old as one may be. Called by the sweep."""
        if self._lost and self.running is None:
            return
        overdue = self.deadline <= now
        if self.running is not None:
            self.deadline = self.running.deadline
            if self.deadline <= now:
                # Unless it is late, it is about to call resume, or to begin with the next hook of its flight.
                self.deadline = now + SWEEP_INTERVAL
                self._reception.dispatcher.expire(self)
        elif self._held:
            return  # it goes on by itself
        elif self.session.starting_tls:
            if overdue:
                self._transport.abort()
        elif self._blocked:
            if overdue:
                self._look_for_progress(now)
        elif self._lingered >= 0:
            if overdue:
                self._transport.abort()
        elif (reader := self.session.reader) is None or (overdue and not self._data_is_on_time(reader, now)):
            if reader is None and self._reception.retiring:
                self.session.shut_down()
            else:
                self._cells[TIMEOUTS] += 1
                self.session.time_out()
            self._send()

    def _look_for_progress(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent >= self._unsent:
            self._transport.abort()
            return
        self._unsent = unsent
        self.deadline = now + self.entrance.config.write_timeout

    def _data_is_on_time(self, reader: Reader, now: float) -> bool:
        """Content may take its time as long as it comes at the minimum rate."""
        config = self.entrance.config
        self.deadline = self._data_began + config.data_timeout + reader.arrived / config.min_data_rate
        return now < self.deadline

    def drain(self) -> None:
        """The worker is about to leave. What is between two transactions ends; the rest finishes first."""
        self._leaving = self._reception.stopping
        if self._deaf or self.session.envelope is not None:
            return
        self.deadline = self.entrance.command_deadline
        self._send()

    def cut(self) -> bool:
        """No more time: close, with a word at a command boundary, without one in the middle of data.

        Returns:
            Whether that cut a session short; one that had its last reply already is no loss.
        """
        session = self.session
        if self._deaf or session.reader is not None:
            self._transport.abort()
            return self._lingered < 0 and not self._lost
        session.shut_down()
        self._send()
        self._reception.turn.finish()
        self._transport.close()
        return True

    def abort(self, bug: BaseException) -> None:
        """The session met a bug: log it whole, and close without a word."""
        _log.error("session %s: internal error", self.session.id, exc_info=bug)
        self._transport.abort()
