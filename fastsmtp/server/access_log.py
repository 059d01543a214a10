"""One line for each message, and one for each session that brought none.

Lines gather for a moment and are written together: a system call per line would cost more than the line. What the
client said is escaped, so that it can neither begin a line of its own nor pose as another field.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, Literal

from ..protocol.envelope import Endpoint, Mailbox
from ..protocol.replies import Reply
from ..protocol.session import Finished, Session

_DELAY: Final = 0.1  # seconds that a line may wait for company
_MAX_WAITING: Final = 512  # lines
_MAX_COMMAND: Final = 128  # octets of a refused command
_ACCEPTED: Final = "250 2.0.0"


_is_plain: Final = re.compile(r"[!#-\[\]-~]+").fullmatch  # printable ASCII without space, quote, backslash
_is_plain_route: Final = re.compile(r" from=[!#-\[\]-~]+ to=[!#-\[\]-~]+").fullmatch  # two such words in their fields


def _word(text: str) -> str:
    """A text as one word: with JSON's escapes, in quotes, where it holds anything odd."""
    return text if _is_plain(text) else json.dumps(text)


def _mailbox(local: str, domain: str) -> str:
    """An address in brackets, as one word."""
    return _word(f"<{local}@{domain}>" if domain else f"<{local}>")


def _route(sender: Mailbox, to: Mailbox) -> str:
    """The fields that say from whom to whom. Hot path: one look at two ordinary addresses."""
    if sender.domain and to.domain:
        fields = f" from=<{sender.local}@{sender.domain}> to=<{to.local}@{to.domain}>"
        if _is_plain_route(fields):
            return fields
    return f" from={_mailbox(sender.local, sender.domain)} to={_mailbox(to.local, to.domain)}"


class AccessLog:
    """The access log of one worker. Runs on the loop.

    Args:
        descriptor: where the lines go.
        format: ``text`` (``key=value``) or ``json``, one object a line.
        call_later: schedules a call (delay in seconds, callback).
    """

    def __init__(
        self,
        descriptor: int,
        format: Literal["text", "json"],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._descriptor = descriptor
        self._at_once = _octets_at_once(descriptor)
        self._message_line = _message_json if format == "json" else _message_text
        self._session_line = _session_json if format == "json" else _session_text
        self._refusal_line = _refusal_json if format == "json" else _refusal_text
        self._turned_away_line = _turned_away_json if format == "json" else _turned_away_text
        self._call_later = call_later
        self._lines: list[str] = []
        self._second = 0.0  # when the second of the stamp began, by the monotonic clock
        self._date = ""  # and time, of that second
        self._ms = -1  # behind its beginning
        self._stamp = ""  # of that moment

    def message(self, session: Session, finished: Finished, now: float) -> None:
        """Note what became of a message; `now` by the clock of the session's service."""
        self._write(self._message_line(self._stamp_of(now), session, finished, now))

    def session(self, session: Session, began: float, now: float, end: str) -> None:
        """Note a session that brought no message.

        Args:
            session: the session.
            began: when the client connected, by the clock of the session's service.
            now: likewise.
            end: how it ended.
        """
        self._write(self._session_line(self._stamp_of(now), session, end, (now - began) * 1000))

    def refusal(self, session: Session, line: bytes, reply: Reply, now: float) -> None:
        """Note a command that was refused; of a line that may hold a secret only the verb is there."""
        self._write(self._refusal_line(self._stamp_of(now), session, line[:_MAX_COMMAND].decode("latin-1"), reply))

    def turned_away(self, peer: Endpoint, reason: str, now: float) -> None:
        """Note a connection that ended before there was a session."""
        self._write(self._turned_away_line(self._stamp_of(now), peer, reason))

    def _stamp_of(self, now: float) -> str:
        """The time stamp for a moment of the monotonic clock; the wall clock is looked at once a second."""
        ms = int((now - self._second) * 1000)
        if ms != self._ms:
            if not 0 <= ms < 1000:
                wall = time.time()
                self._second = now - wall % 1
                self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall))
                ms = int((now - self._second) * 1000)
            self._ms = ms
            self._stamp = f"{self._date}.{ms:03d}Z"
        return self._stamp

    def _write(self, line: str) -> None:
        lines = self._lines
        if not lines:
            self._call_later(_DELAY, self.flush)
        lines.append(line)
        if len(lines) >= _MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._lines:
            return
        lines = [line.encode() for line in self._lines]
        self._lines.clear()
        for octets in _together(lines, self._at_once):
            with suppress(OSError):  # a log that cannot be written must not stop the mail
                os.write(self._descriptor, octets)


def _octets_at_once(descriptor: int) -> int:
    """The workers share a pipe, and only so much of one write is not mixed with what others write (pipe(7))."""
    with suppress(OSError):  # it is closed
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return select.PIPE_BUF
    return sys.maxsize


def _together(lines: Sequence[bytes], most: int) -> Iterator[bytes]:
    """Lines as they are written together, so many octets at a time."""
    some: list[bytes] = []
    size = 0
    for line in lines:
        if some and size + len(line) > most:
            yield b"".join(some)
            some, size = [], 0
        some.append(line)
        size += len(line)
    yield b"".join(some)


def _status(reply: Reply) -> str:
    return f"{reply.code} {reply.enhanced}" if reply.enhanced else str(reply.code)


# Hot path: one format string a line, 2.5 us; a dict of fields that is formatted word by word, 9 us.


def _security_text(session: Session) -> str:
    tls = f" tls={session.tls.version}" if session.tls else ""
    return tls if session.user is None else f"{tls} user={_word(session.user)}"


def _security_json(session: Session) -> str:
    tls = f',"tls":"{session.tls.version}"' if session.tls else ""
    return tls if session.user is None else f'{tls},"user":{json.dumps(session.user)}'


def _message_text(stamp: str, session: Session, finished: Finished, now: float) -> str:
    message_id, envelope, size, reply, started, refused = finished
    recipients = envelope.recipients
    return (
        f"{stamp} event=message id={message_id} peer={session.peer} helo={session.client_name}"
        f" proto={session.protocol_of(envelope)}{_route(envelope.sender, recipients[0])}"
        f" rcpts={len(recipients)} refused={refused} size={size}"
        f' reply="{_status(reply) if reply else _ACCEPTED}" ms={(now - started) * 1000:.1f}'
        f"{_security_text(session) if session.tls or session.user else ''}\n"
    )


def _message_json(stamp: str, session: Session, finished: Finished, now: float) -> str:
    message_id, envelope, size, reply, started, refused = finished
    return (
        f'{{"time":"{stamp}","event":"message","id":"{message_id}","peer":"{session.peer}","helo":"{session.client_name}"'
        f',"proto":"{session.protocol_of(envelope)}","from":{json.dumps(envelope.sender.address)}'
        f',"to":{json.dumps(envelope.recipients[0].address)},"rcpts":{len(envelope.recipients)},"refused":{refused}'
        f',"size":{size},"reply":"{_status(reply) if reply else _ACCEPTED}"'
        f',"ms":{(now - started) * 1000:.1f}'
        f"{_security_json(session) if session.tls or session.user else ''}}}\n"
    )


def _session_text(stamp: str, session: Session, end: str, ms: float) -> str:
    said = f' reply="{_status(session.last_words)}"' if session.last_words else ""
    return (
        f"{stamp} event=session id={session.id} peer={session.peer} helo={session.client_name}"
        f' errors={session.errors} end="{end}"{said} ms={ms:.1f}{_security_text(session)}\n'
    )


def _session_json(stamp: str, session: Session, end: str, ms: float) -> str:
    said = f',"reply":"{_status(session.last_words)}"' if session.last_words else ""
    return (
        f'{{"time":"{stamp}","event":"session","id":"{session.id}","peer":"{session.peer}"'
        f',"helo":"{session.client_name}","errors":{session.errors},"end":"{end}"{said},"ms":{ms:.1f}'
        f"{_security_json(session)}}}\n"
    )


def _refusal_text(stamp: str, session: Session, command: str, reply: Reply) -> str:
    return (
        f"{stamp} event=refused id={session.id} peer={session.peer} helo={session.client_name}"
        f" command={json.dumps(command)} reply={json.dumps(str(reply))}{_security_text(session)}\n"
    )


def _refusal_json(stamp: str, session: Session, command: str, reply: Reply) -> str:
    return (
        f'{{"time":"{stamp}","event":"refused","id":"{session.id}","peer":"{session.peer}"'
        f',"helo":"{session.client_name}","command":{json.dumps(command)},"reply":{json.dumps(str(reply))}'
        f"{_security_json(session)}}}\n"
    )


def _turned_away_text(stamp: str, peer: Endpoint, reason: str) -> str:
    return f"{stamp} event=turned-away peer={peer} reason={json.dumps(reason)}\n"


def _turned_away_json(stamp: str, peer: Endpoint, reason: str) -> str:
    return f'{{"time":"{stamp}","event":"turned-away","peer":"{peer}","reason":{json.dumps(reason)}}}\n'
