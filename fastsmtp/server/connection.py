"""The transport adapter of a session: reads, writes, flow control, deadlines, and the way out.

Guarantees: commands are read into a buffer that all connections share, content straight into the message's own memory;
the replies of a flight leave in one write; while a hook works or output waits to be sent, no more than one read is kept
and reading stops; a close by the server waits for its last reply to arrive. Runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from time import monotonic
from typing import Final, cast

from ..protocol.envelope import Endpoint
from ..protocol.session import Session
from .dispatch import Hooks, Running
from .reception import Reception

_log = logging.getLogger("fastsmtp.worker")
_LINGER_OCTETS: Final = 262144  # read and dropped behind the last reply, so that no reset swallows it
_NEVER: Final = float("inf")


class Connection(asyncio.BufferedProtocol):
    """One client's connection."""

    __slots__ = (
        "_backlog", "_blocked", "_data_began", "_eof", "_leaving", "_lingered", "_local", "_lost", "_opened",
        "_reception", "_transport", "_unsent", "context", "deadline", "handler", "hooks", "late", "running", "session",
    )  # fmt: skip

    session: Session
    handler: object
    hooks: Hooks

    def __init__(self, reception: Reception, local: Endpoint | None) -> None:
        self._reception = reception
        self._local = local
        self._transport: asyncio.Transport
        self._opened = self._data_began = monotonic()
        self._backlog = b""  # read while a hook was at work
        self._eof = False  # the client will send no more
        self._blocked = False  # the client does not read
        self._unsent = 0  # octets of output when progress was looked at last
        self._lingered = -1  # octets dropped behind our last reply; -1: we are still talking
        self._lost = False
        self._leaving = False  # the closed hook was called
        # for the dispatcher
        self.context = copy_context()  # the hooks of a session share their context variables
        self.running: Running | None = None
        self.late: Running | None = None
        # for the sweep
        self.deadline = _NEVER

    # -- asyncio.BufferedProtocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        reception = self._reception
        peer = _endpoint(transport.get_extra_info("peername"))
        local = self._local or _endpoint(transport.get_extra_info("sockname"))
        full = reception.is_full
        reception.connections.add(self)
        try:
            self.handler = reception.application.new_handler()
            self.hooks = reception.hooks_of(self.handler)
        except Exception:
            _log.exception("no handler could be made for %s", peer)
            self.handler, self.hooks, full = None, {}, True
        self.session = Session(reception.service, {} if full else self.hooks, reception.new_id(), peer, local)
        if full:
            self.session.turn_away(reception.service.replies.too_busy)
        self.resume()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self.running is None and not self._blocked and self._lingered < 0:
            reader = self.session.reader
            if reader is not None and not reader.done:
                return reader.room()
        return self._reception.receive_view

    def buffer_updated(self, length: int) -> None:
        session = self.session
        if self.running is not None or self._blocked or self._lingered >= 0:
            self._put_off(length)
            return
        reader = session.reader
        if reader is None:
            session.receive(bytes(self._reception.receive_view[:length]))
        else:
            session.content_received(length)
            if not reader.done and not session.closing:
                return
        self.resume()

    def eof_received(self) -> bool:
        self._eof = True
        if self._lingered >= 0:
            return False
        if self.running is None and not self._blocked:
            self._transport.close()
        return True  # what is complete is answered before we close

    def pause_writing(self) -> None:
        self._blocked = True
        self._transport.pause_reading()
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._reception.now + self._reception.config.write_timeout

    def resume_writing(self) -> None:
        self._blocked = False
        if self._lingered >= 0:
            self.deadline = self._reception.now + self._reception.config.linger_timeout
        elif self.running is None and not self._lost:
            self._transport.resume_reading()
            self._wait_for_client()
            self.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self.running is None and self.late is None:
            self._leave()

    # -- going on -----------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Let the session go on with what there is, and send what it says."""
        if self._lost:
            if self.running is None and self.late is None:
                self._leave()
            return
        if self.running is not None or self._blocked or self._lingered >= 0:
            return
        session = self.session
        advance = self._reception.dispatcher.advance
        while advance(self):
            if not self._backlog or session.closing:
                self._flush()
                return
            backlog, self._backlog = self._backlog, b""
            session.receive(backlog)
            self._transport.resume_reading()
        self.deadline = self.running.deadline if self.running else _NEVER

    def _flush(self) -> None:
        session, reception = self.session, self._reception
        if session.finished:
            for finished in session.finished:
                reception.access_log.message(session, finished, monotonic())
            session.finished.clear()
        if reception.stopping and not session.closing and session.envelope is None:
            session.shut_down()
        output = session.take_output()
        if output:
            self._transport.write(output)
            if not self._blocked:
                self._wait_for_client()
        if session.closing:
            self._finish()
        elif self._eof and not self._blocked:
            self._transport.close()

    def _wait_for_client(self) -> None:
        """Set the deadline of what the client is to do next."""
        reception = self._reception
        config = reception.config
        if self.session.reader is not None:
            self._data_began = reception.now
            self.deadline = reception.now + config.data_timeout
        else:
            patience = config.drain_idle if reception.retiring else config.command_timeout
            self.deadline = min(reception.now + patience, self._opened + config.session_timeout)

    def _put_off(self, length: int) -> None:
        """Octets came that nobody can look at now: keep them, and stop reading. Behind our last reply: drop them."""
        if self._lingered >= 0:
            self._lingered += length
            if self._lingered > _LINGER_OCTETS:
                self._transport.abort()
            return
        self._backlog += bytes(self._reception.receive_view[:length])
        self._transport.pause_reading()

    def _finish(self) -> None:
        """The session is over: close, once the client has what we said."""
        self._lingered = 0
        if self._eof or (self.session.said_goodbye and not self.session.in_command):
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
        if not self._leaving:
            self._leaving = True
            if session.messages == 0 and not session.finished:
                reception.access_log.session(session, monotonic() - self._opened, self._end())
            event = session.disconnected()
            if event is not None:
                start, function = self.hooks[event.hook]
                if not start(self, function, event):
                    return  # we come here again when it is done
        reception.leave(self)

    def _end(self) -> str:
        session = self.session
        if session.said_goodbye:
            return "quit"
        return "closed by server" if session.closing else "closed by client"

    # -- deadlines and drain ------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The deadline has passed. Called by the sweep."""
        if self.running is not None:
            self.deadline = self.running.deadline
            if self.deadline <= now:
                self.deadline = _NEVER  # unless it is late, it is about to call resume
                self._reception.dispatcher.expire(self)
        elif self._blocked:
            self._look_for_progress(now)
        elif self._lingered >= 0:
            self._transport.abort()
        elif not self._data_is_on_time(now):
            self.session.time_out()
            self.resume()

    def _look_for_progress(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent >= self._unsent:
            self._transport.abort()
            return
        self._unsent = unsent
        self.deadline = now + self._reception.config.write_timeout

    def _data_is_on_time(self, now: float) -> bool:
        """Content may take its time as long as it comes at the minimum rate."""
        reader, config = self.session.reader, self._reception.config
        if reader is None:
            return False
        due = self._data_began + config.data_timeout + reader.content.size / config.min_data_rate
        self.deadline = due
        return now < due

    def drain(self) -> None:
        """The worker is about to leave. What is between two transactions ends; the rest finishes first."""
        if self.running is not None or self._lingered >= 0 or self.session.envelope is not None:
            return
        if self._reception.stopping:
            self._flush()
        else:
            self._wait_for_client()

    def cut(self) -> None:
        """No more time: close, with a word at a command boundary, without one in the middle of data."""
        session = self.session
        if self.running is None and self._lingered < 0 and session.reader is None and not self._lost:
            session.shut_down()
            self._transport.write(session.take_output())
            self._transport.close()
        else:
            self._transport.abort()

    def abort(self, bug: BaseException) -> None:
        """The session met a bug: log it whole, and close without a word."""
        _log.error("session %s: internal error", self.session.id, exc_info=bug)
        self._transport.abort()


def _endpoint(address: object) -> Endpoint:
    if isinstance(address, tuple):
        return Endpoint(address[0], address[1])
    return Endpoint("unix", 0)
