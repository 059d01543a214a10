"""One line for each message, and one for each session that brought none.

Lines gather for a moment and are written together: a system call per line would cost more than the line. What the
client said is escaped, so that it can neither begin a line of its own nor pose as another field.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from typing import Final, Literal

from ..protocol.replies import Reply
from ..protocol.session import Finished, Session

_DELAY: Final = 0.1  # seconds that a line may wait for company
_MAX_WAITING: Final = 512  # lines
_ODD: Final = re.compile(r'[^!#-\[\]-~]')  # whatever is not printable ASCII, and space, quote, backslash
_ACCEPTED: Final = "250 2.0.0"

Field = str | int | float | None
Fields = dict[str, Field]


def escape(text: str) -> str:
    """Text as one word: JSON's escapes in quotes where it holds anything odd."""
    return json.dumps(text) if _ODD.search(text) else text


class AccessLog:
    """The access log of one worker. Runs on the loop.

    Args:
        descriptor: where the lines go.
        format: ``text`` (``key=value``) or ``json``, one object a line.
        call_later: schedules a call (delay in seconds, callback).
    """

    def __init__(
        self, descriptor: int, format: Literal["text", "json"], call_later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._descriptor = descriptor
        self._format = _format_json if format == "json" else _format_text
        self._call_later = call_later
        self._lines: list[str] = []
        self._second = 0  # the time stamp is made anew once a second
        self._stamp = ""

    def message(self, session: Session, finished: Finished, now: float) -> None:
        """Note what became of a message; `now` by the clock of the session's service."""
        envelope, reply = finished.envelope, finished.reply
        recipients = envelope.recipients
        fields: Fields = {
            "event": "message",
            "id": finished.message_id,
            "peer": str(session.peer),
            "helo": session.client_name,
            "proto": session.protocol,
            "from": f"<{envelope.sender.address}>",
            "to": f"<{recipients[0].address}>" if recipients else None,
            "rcpts": len(recipients),
            "refused": finished.recipients_refused,
            "size": finished.size,
            "reply": _status(reply) if reply else _ACCEPTED,
            "ms": round((now - finished.started) * 1000, 1),
        }
        self._write(fields)

    def session(self, session: Session, duration: float, end: str) -> None:
        """Note a session that brought no message.

        Args:
            session: the session.
            duration: seconds.
            end: how it ended.
        """
        fields: Fields = {
            "event": "session",
            "id": session.id,
            "peer": str(session.peer),
            "helo": session.client_name or None,
            "errors": session.errors,
            "end": end,
            "ms": round(duration * 1000, 1),
        }
        self._write(fields)

    def _write(self, fields: Fields) -> None:
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        self._lines.append(self._format(f"{self._stamp}.{int(now % 1 * 1000):03d}Z", fields))
        if len(self._lines) == 1:
            self._call_later(_DELAY, self.flush)
        elif len(self._lines) >= _MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._lines:
            return
        octets = "".join(self._lines).encode()
        self._lines.clear()
        try:
            os.write(self._descriptor, octets)
        except OSError:
            pass  # a log that cannot be written must not stop the mail


def _status(reply: Reply) -> str:
    return f"{reply.code} {reply.enhanced}" if reply.enhanced else str(reply.code)


def _format_json(stamp: str, fields: Fields) -> str:
    return json.dumps({"time": stamp, **fields}, separators=(",", ":")) + "\n"


def _format_text(stamp: str, fields: Fields) -> str:
    words = [f"{name}={escape(value) if isinstance(value, str) else value}" for name, value in fields.items() if value is not None]
    return f"{stamp} {' '.join(words)}\n"
