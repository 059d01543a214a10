"""A worker's books: whatever becomes of connections, messages and logins is counted here, and logged here.

One place for both, so that no refusal has a line without a number. Runs on the loop, but `login` on any thread.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from ..protocol import scan
from ..protocol.envelope import Endpoint
from ..protocol.replies import Reply
from ..protocol.session import Finished, Session
from .access_log import AccessLog
from .columns import (
    COMMANDS,
    COMMANDS_OTHER,
    CONNECTIONS,
    HOOK_SECONDS,
    LOGINS_ACCEPTED,
    LOGINS_REFUSED,
    MESSAGE_BYTES,
    MESSAGE_SECONDS,
    MESSAGE_SIZE_BYTES,
    MESSAGES_ACCEPTED,
    MESSAGES_REFUSED,
    RECIPIENTS_ACCEPTED,
    RECIPIENTS_REFUSED,
    REPLIES_2XX,
    SESSIONS_BY_END,
    TLS_HANDSHAKES_COMPLETED,
    TLS_HANDSHAKES_FAILED,
    TLS_SESSIONS_1_2,
    TLS_SESSIONS_1_3,
    refusal_index,
)
from .scoreboard import Row

MANY: Final = 4096  # replies that may gather; one turn of the loop can bring hundreds of thousands, and 20 MB of verbs
_first_digit: Final = itemgetter(0)  # of an encoded reply, as the octet it is


class Books:
    """Counts and logs.

    Args:
        row: the worker's.
        access_log: likewise.

    Attributes:
        cells: of the row, for what is counted where it happens.
        verbs: of commands, since they were counted last. Sessions append to it, in whatever thread they are.
        replies: encoded, likewise; on the loop.
        hook_seconds: how long hooks took, likewise; from any thread.
    """

    def __init__(self, row: Row, access_log: AccessLog) -> None:
        self.cells = row.cells
        self.verbs: Final[list[bytes]] = []
        self.replies: Final[list[bytes]] = []
        self.hook_seconds: Final[list[float]] = []
        self._message_seconds: list[float] = []
        self._message_sizes: list[float] = []
        self._log = access_log

    def count(self) -> None:
        """Count what has gathered; once a second, and when there are `MANY` replies.

        Hot path: so many at once cost a third of one at a time.
        """
        self._count_commands()
        self._count_replies()
        cells = self.cells
        hook_seconds = self.hook_seconds[:]
        del self.hook_seconds[: len(hook_seconds)]  # a thread may have appended another one meanwhile
        HOOK_SECONDS.observe_all(cells, hook_seconds)
        MESSAGE_SECONDS.observe_all(cells, self._message_seconds)
        MESSAGE_SIZE_BYTES.observe_all(cells, self._message_sizes)
        self._message_seconds.clear()
        self._message_sizes.clear()

    def _count_commands(self) -> None:
        """A search for each verb that there is takes half as long as to look each one up that was said."""
        cells = self.cells
        verbs = self.verbs[:]
        del self.verbs[: len(verbs)]
        said = b"\n%b\n" % b"\n\n".join(verbs)
        others = len(verbs) - verbs.count(b"")  # a line that is no command
        for verb, column in COMMANDS.items():
            times = scan.count(said, b"\n%b\n" % verb)
            cells[column] += times
            others -= times
        cells[COMMANDS_OTHER] += others

    def _count_replies(self) -> None:
        digits = list(map(_first_digit, self.replies))
        self.replies.clear()
        for number, digit in enumerate(b"2345"):
            self.cells[REPLIES_2XX + number] += digits.count(digit)

    def message(self, session: Session, finished: Finished, now: float) -> None:
        """A message got its verdict. Its counters are written at once: a killed worker leaves them behind."""
        cells = self.cells
        _, envelope, size, reply, started, refused = finished
        if reply is None or reply.code < 300:
            cells[MESSAGES_ACCEPTED] += 1
            cells[MESSAGE_BYTES] += size
        else:
            cells[MESSAGES_REFUSED] += 1
            cells[refusal_index(reply)] += 1
        cells[RECIPIENTS_ACCEPTED] += len(envelope.recipients)
        if refused:
            cells[RECIPIENTS_REFUSED] += refused
        self._message_seconds.append(now - started)
        self._message_sizes.append(size)
        self._log.message(session, finished, now)

    def refusal(self, session: Session, line: bytes, reply: Reply, now: float) -> None:
        """A command was refused."""
        self.cells[refusal_index(reply)] += 1
        self._log.refusal(session, line, reply, now)

    def session(self, session: Session, began: float, now: float, end: str, messages: bool) -> None:
        """A session has ended; `messages`: whether its messages have lines of their own, so that it needs none."""
        self.cells[SESSIONS_BY_END[end]] += 1
        said = session.last_words
        if said is not None and said.code >= 400:
            self.cells[refusal_index(said)] += 1
        if said is not None or not messages:
            self._log.session(session, began, now, end)

    def turned_away(self, peer: Endpoint, column: int, reason: str, now: float) -> None:
        """A connection ended before there was a session; `column` counts such ends."""
        self.cells[CONNECTIONS] += 1
        self.cells[column] += 1
        self._log.turned_away(peer, reason, now)

    def tls(self, version: str) -> None:
        """A handshake was done."""
        self.cells[TLS_HANDSHAKES_COMPLETED] += 1
        self.cells[TLS_SESSIONS_1_3 if version == "TLSv1.3" else TLS_SESSIONS_1_2] += 1

    def tls_failed(self, peer: Endpoint, reason: str, now: float) -> None:
        """A handshake that STARTTLS asked for failed."""
        self.cells[TLS_HANDSHAKES_FAILED] += 1
        self._log.turned_away(peer, f"TLS handshake: {reason}", now)

    def login(self, accepted: bool) -> None:
        """A login was decided."""
        self.cells[LOGINS_ACCEPTED if accepted else LOGINS_REFUSED] += 1
