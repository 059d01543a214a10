"""Mails on their way into a SQLite database: the hot path of a server whose store is a queue."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final

from fastsmtp.protocol.replies import INSUFFICIENT_STORAGE, TEMPORARY_FAILURE

from .codec import Destinations, by_destination, encode_sender
from .contract import Mail, QueueError, State
from .sqlite_schema import DELETE_MESSAGE, DROP, INSERT_ITEMS, INSERT_MESSAGES, LAST_NUMBER
from .sqlite_writer import Operation

if TYPE_CHECKING:
    from .sqlite_database import Database

# Content from this size on is a file. Below, a row is cheaper than a file with a sync of its own.
_FILE_FROM: Final = 64 * 1024  # octets
# Rows in one statement. sqlite3 gives the GIL away for each step of a statement, and gets it back when the event loop
# lets go of it: with a row for each step that was 40 % more switches of threads, and 5 % of a message. Most batches are
# not larger than this, and a text for each number up to it, for both tables, is still among those kept prepared.
_ROWS_AT_ONCE: Final = 16
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_Message = tuple[str, str, int, str | None, bytes | None]  # the row behind its number and count of items


class Put(Operation[Sequence[QueueError | None]]):
    """A batch of mails."""

    def __init__(self, mails: Sequence[Mail]) -> None:
        self._mails = mails
        self._now = time.time()
        self._rows: list[tuple[Mail, _Message, Destinations]] | None = None
        self._errors: list[QueueError | None] = [None] * len(mails)
        self._files: list[str] = []
        self.keys: list[int] = []  # of the items

    def prepare(self, database: Database) -> None:
        """Encodes the mails and writes the large contents; a mail that cannot be is refused alone."""
        self._rows, self._files = [], []
        for index, mail in enumerate(self._mails):
            try:
                self._rows.append((mail, self._row(mail, database), by_destination(mail.recipients)))
                self._errors[index] = None
            except (OSError, ValueError) as error:
                self._errors[index] = as_queue_error(error, database.path, mail.message_id)
        if self._files:
            database.bodies.sync()

    def _row(self, mail: Mail, database: Database) -> _Message:
        size = len(mail.trace) + len(mail.content)
        sender = encode_sender(mail.sender)
        if size < _FILE_FROM:
            return mail.message_id, sender, size, None, b"".join((mail.trace, mail.content))
        file = database.bodies.write(mail.trace, mail.content)
        self._files.append(file)
        return mail.message_id, sender, size, file, None

    def apply(self, database: Database) -> Sequence[QueueError | None]:
        """One row for each message, and one for each of its destinations."""
        connection = database.connection
        last = connection.execute(LAST_NUMBER).fetchone()
        number = max(int(self._now * 1e6), last[0] if last else 0)
        messages: list[tuple[object, ...]] = []
        items: list[tuple[object, ...]] = []
        for mail, message, destinations in self._rows or ():
            messages.append((number, len(destinations), *message))
            accepted_at = self._now if mail.accepted_at is None else mail.accepted_at
            due = self._now if mail.not_before is None else mail.not_before
            state = int(State.READY if due <= self._now else State.DEFERRED)
            rank = -(mail.sender.priority or 0)
            for offset, (domain, recipients) in enumerate(destinations):
                items.append((number + offset, number, domain, recipients, state, rank, accepted_at, due))
            number += len(destinations)
        _insert(connection, INSERT_MESSAGES, messages)
        _insert(connection, INSERT_ITEMS, items)
        self.keys = [row[0] for row in items]  # type: ignore[misc]
        return self._errors

    def settle(self, database: Database, committed: bool) -> None:
        """Of what was not committed nothing is left: no file, and no number, which may be another's by now."""
        if not committed:
            self.keys = []
            database.bodies.remove(self._files)


def _insert(connection: sqlite3.Connection, statement: tuple[str, str], rows: Sequence[tuple[object, ...]]) -> None:
    head, row = statement
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        connection.execute(head + ", ".join([row] * len(some)), tuple(chain.from_iterable(some)))


class Drop(Operation[set[int]]):
    """Items are not wanted any more; the result has the keys of those that were there.

    Args:
        keys: asked for in the thread, when everything is done that was asked for before.
    """

    def __init__(self, keys: Callable[[], Collection[int]]) -> None:
        self._keys = keys
        self._files: list[str] = []

    def apply(self, database: Database) -> set[int]:
        found: set[int] = set()
        self._files = []
        for key in self._keys():
            for (message,) in database.connection.execute(DROP, (key,)).fetchall():
                found.add(key)
                self._files += delete_message(database, message)
        return found

    def settle(self, database: Database, committed: bool) -> None:
        if committed:
            database.bodies.remove(self._files)


def delete_message(database: Database, message: int) -> list[str]:
    """Deletes a message that has no items any more; returns its file, to be removed behind the transaction."""
    rows = database.connection.execute(DELETE_MESSAGE, {"id": message}).fetchall()
    return [file for (file,) in rows if file is not None]


def as_queue_error(error: Exception, path: str, message_id: str | None = None) -> QueueError:
    """What a client and the log are told of an error: 452 where space is short, else 451."""
    if isinstance(error, QueueError):
        return error
    full = isinstance(error, OSError) and error.errno in _FULL
    full = full or getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    about = f"message {message_id}: " if message_id else ""
    return QueueError(INSUFFICIENT_STORAGE if full else TEMPORARY_FAILURE, f"{about}queue {path}: {error}")
