"""The transport adapter of a session: reads, writes, flow control, deadlines, and the way out.

Guarantees: commands are read into a buffer that all connections share, content straight into the message's own memory;
the replies of a flight leave in one write; while a hook works or output waits to be sent, no more than one read is kept
and reading stops; a close by the server waits for its last reply to arrive. Runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from time import monotonic
from typing import Final, cast

from ..protocol.data import DataReader
from ..protocol.envelope import Endpoint
from ..protocol.session import Session
from .dispatch import Running, Tables
from .reception import Reception

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
        "_closed",
        "_data_began",
        "_deaf",
        "_depart",
        "_eof",
        "_leaving",
        "_lingered",
        "_local",
        "_lost",
        "_noted",
        "_reader",
        "_receive_view",
        "_reception",
        "_transport",
        "_unsent",
        "_work",
        "_write",
        "context",
        "deadline",
        "handler",
        "late",
        "opened",
        "running",
        "session",
        "tables",
    )  # fmt: skip

    session: Session
    handler: object
    tables: Tables

    def __init__(self, reception: Reception, local: Endpoint | None) -> None:
        # per process
        self._reception = reception
        self._receive_view = reception.receive_view
        self._local = local  # the listener's address, where it has only one
        # per connection
        self._transport: asyncio.Transport
        self._work = reception.turn.work
        self._depart = reception.turn.leave
        self._write: Callable[[bytes], None]
        self.opened = monotonic()
        self.context = copy_context()  # the hooks of a session share their context variables
        # reading: what get_buffer and buffer_updated look at
        self._reader: DataReader | None = None  # where content goes now
        self._deaf = False  # what is read now cannot be looked at: a hook works, output waits, or all is said
        # what the deafness comes from
        self.running: Running | None = None  # set by the dispatcher
        self.late: Running | None = None  # likewise
        self._blocked = False  # the client does not read
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
        self._began_with: DataReader | None = None  # whose time began at...
        self._data_began = 0.0
        self._unsent = 0  # octets of output when progress was looked at last

    # -- asyncio.BufferedProtocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._write = self._transport.write
        reception = self._reception
        peer = _endpoint(transport.get_extra_info("peername"))
        local = self._local or _endpoint(transport.get_extra_info("sockname"))
        full = reception.is_full
        reception.connections.add(self)
        try:
            self.handler = reception.application.new_handler()
            self.tables = reception.tables_of(self.handler)
        except Exception:
            _log.exception("no handler could be made for %s", peer)
            full = True
        session_id = reception.new_id()
        if full:
            self.session = Session(reception.service, {}, self, session_id, peer, local)
            self.session.turn_away(reception.service.replies.too_busy)
            self._eof = True  # whatever it says: lingering would take the descriptors that we do not have
        else:
            self.session = Session(reception.service, self.tables.on_loop, self, session_id, peer, local)
            self.session.greet()
        self._send()

    def get_buffer(self, sizehint: int) -> memoryview:
        reader = self._reader
        return self._receive_view if reader is None else reader.room()

    def buffer_updated(self, length: int) -> None:
        if self._deaf:
            self._overhear(length)
        elif self._reader is None:
            self._work(self._receive, bytes(self._receive_view[:length]))
        elif length < _SMALL:
            self._deaf = True
            self._reader = None
            self._work(self._receive_content, length)
        else:  # of a large message: better looked at while it is in the cache
            self.session.content_received(length)
            self._send()

    def eof_received(self) -> bool:
        self._work(self._end_input, None)
        return True  # what is complete is answered before we close

    def pause_writing(self) -> None:
        self._blocked = self._deaf = True
        self._reader = None
        self._transport.pause_reading()
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._reception.now + self._reception.config.write_timeout

    def resume_writing(self) -> None:
        self._blocked = False
        if self._lingered >= 0:
            self.deadline = self._reception.now + self._reception.config.linger_timeout
        elif not self._lost:
            self.deadline = self._reception.command_deadline
            self._transport.resume_reading()
            self.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._deaf = True
        self.resume()

    # -- going on -----------------------------------------------------------------------------------------------------

    def _receive(self, octets: bytes) -> None:
        if self._deaf:  # since it was read
            self._put_off(octets)
        else:
            self.session.receive(octets)
            self._send()

    def _receive_content(self, length: int) -> None:
        if not self._lost:
            self.session.content_received(length)
            self.resume()

    def _end_input(self, nothing: None) -> None:
        self._eof = True
        if not self._deaf or self._lingered >= 0:
            self._depart(self._hang_up, False)

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
        if self._backlog and self.running is None and not self._blocked and not session.closing:
            backlog, self._backlog = self._backlog, b""
            session.receive(backlog)
            self._transport.resume_reading()
        if self.running is None:
            self._deaf = self._blocked
        self._send()

    def _send(self) -> None:
        """Send the replies of a flight, and see what the session wants next."""
        session = self.session
        if session.pending is not None:
            self._wait_for_answer()
            return
        if session.finished:
            self._log_messages()
        if self._leaving and session.envelope is None and not session.closing:
            session.shut_down()
        output = session.output
        if output:
            self.deadline = self._reception.command_deadline
            self._depart(self._write, output[0] if len(output) == 1 else b"".join(output))
            output.clear()
        self._reader = None
        if session.stopped or self._eof:
            self._look_ahead(session)

    def _look_ahead(self, session: Session) -> None:
        """What comes next is no command."""
        if session.closing:
            self._finish()
        elif self._eof:
            if not self._blocked:
                self._depart(self._hang_up, False)
        elif not self._blocked:
            self._expect_content(session)

    def _wait_for_answer(self) -> None:
        self._deaf = True
        self._reader = None
        running = self.running
        assert running is not None
        self.deadline = running.deadline
        running.begin()

    def _log_messages(self) -> None:
        session = self.session
        for finished in session.finished:
            self._noted = True
            self._reception.access_log.message(session, finished, monotonic())
        session.finished.clear()

    def _expect_content(self, session: Session) -> None:
        if self._began_with is not session.reader:
            self._began_with = session.reader
            self._data_began = self._reception.now
            self.deadline = self._data_began + self._reception.config.data_timeout
        self._reader = session.reader

    def _overhear(self, length: int) -> None:
        """Octets come that nobody can look at now. Behind our last reply nobody ever will."""
        if self._lingered < 0:
            self._put_off(bytes(self._receive_view[:length]))
            return
        self._lingered += length
        if self._lingered > _LINGER_OCTETS:
            self._transport.abort()

    def _put_off(self, octets: bytes) -> None:
        """Keep what was read, and stop reading."""
        if not self._lost and self._lingered < 0:
            self._backlog += octets
            self._transport.pause_reading()

    def _finish(self) -> None:
        """The session is over: close, once the client has what we said."""
        self._lingered = 0
        self._deaf = True
        self._reader = None
        in_step = self._eof or (self.session.said_goodbye and not self.session.in_command)
        self._depart(self._hang_up, not in_step)

    def _hang_up(self, linger: bool) -> None:
        """Close behind what was written; if the client may still be sending, in a way that does not reset it."""
        if self._lost:
            return
        if not linger:
            self._transport.close()
            return
        if not self._blocked:
            self.deadline = self._reception.now + self._reception.config.linger_timeout
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()

    def _leave(self) -> None:
        """The connection is gone, and nobody works for it any more: call the closed hook, and be forgotten."""
        reception, session = self._reception, self.session
        self.deadline = _NEVER
        if not self._closed and not self.late:
            self._closed = True
            self._log_messages()
            if not self._noted:
                reception.access_log.session(session, self.opened, monotonic(), self._end())
            session.disconnected()
            if self.running is not None:
                self.running.begin()
                self.deadline = self.running.deadline
                return  # we come here again when the hook is done
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
                self.deadline = _NEVER  # unless it is late, it is about to call resume
                self._reception.dispatcher.expire(self)
        elif self._blocked:
            if overdue:
                self._look_for_progress(now)
        elif self._lingered >= 0:
            if overdue:
                self._transport.abort()
        elif self._reader is None or (overdue and not self._data_is_on_time(self._reader, now)):
            if self._reader is None and self._reception.retiring:
                self.session.shut_down()
            else:
                self.session.time_out()
            self._send()

    def _look_for_progress(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent >= self._unsent:
            self._transport.abort()
            return
        self._unsent = unsent
        self.deadline = now + self._reception.config.write_timeout

    def _data_is_on_time(self, reader: DataReader, now: float) -> bool:
        """Content may take its time as long as it comes at the minimum rate."""
        config = self._reception.config
        self.deadline = self._data_began + config.data_timeout + reader.content.size / config.min_data_rate
        return now < self.deadline

    def drain(self) -> None:
        """The worker is about to leave. What is between two transactions ends; the rest finishes first."""
        self._leaving = self._reception.stopping
        if self._deaf or self.session.envelope is not None:
            return
        self.deadline = self._reception.command_deadline
        self._send()

    def cut(self) -> bool:
        """No more time: close, with a word at a command boundary, without one in the middle of data.

        Returns:
            Whether that cut a session short; one that had its last reply already is no loss.
        """
        session = self.session
        if self._deaf or session.reader is not None:
            self._transport.abort()
            return self._lingered < 0
        session.shut_down()
        self._send()
        self._reception.turn.finish()
        self._transport.close()
        return True

    def abort(self, bug: BaseException) -> None:
        """The session met a bug: log it whole, and close without a word."""
        _log.error("session %s: internal error", self.session.id, exc_info=bug)
        self._transport.abort()


def _endpoint(address: object) -> Endpoint:
    if isinstance(address, tuple):
        return Endpoint(address[0], address[1])
    return Endpoint("unix", 0)
