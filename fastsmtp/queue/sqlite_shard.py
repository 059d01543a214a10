"""One SQLite database as a shard of a queue: what each operation does to the tables."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from . import sqlite_schema as sql
from .codec import decode_notes, decode_recipients, decode_sender
from .contract import Mail, QueueError, State, Statistics, Summary
from .shard import Claim, Filter, Found, Outcome, Wanted, statistics
from .sqlite_bodies import DamagedBodyError
from .sqlite_database import Database
from .sqlite_put import Drop, Put, as_queue_error, delete_message
from .sqlite_writer import Operation, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

# Destinations that one look passes by because the consumer is busy with them already; the next look goes on there.
_MAX_STEPS: Final = 1000
_BAD_MOMENT: Final = 60.0  # seconds until a content is looked for again that could not be read
_Result = TypeVar("_Result")
_log = logging.getLogger("fastsmtp.queue")


class SQLiteShard:
    """One database, with a thread of its own.

    Args:
        path: the database's directory.
        owned: whether it is our slot's.
        ring: called in the thread when there is something for consumers.
    """

    def __init__(self, path: str, owned: bool, ring: Callable[[], None]) -> None:
        self.path = path
        self.name = ""
        self._ring = ring
        self._writer = Writer(lambda: Database(path, owned), "queue")

    async def open(self) -> None:
        """Opens the database, so that what is wrong with it is known.

        Raises:
            QueueError: it cannot be used.
        """
        self.name = await self._told(self._writer.do(lambda database: database.name))

    async def close(self) -> None:
        """Returns when what was asked for is done."""
        await self._writer.close()

    async def _told(self, result: Awaitable[_Result]) -> _Result:
        try:
            return await result
        except (sqlite3.Error, OSError) as error:
            raise as_queue_error(error, self.path) from error

    # -- Shard --------------------------------------------------------------------------------------------------------

    async def put(self, mails: Sequence[Mail]) -> Sequence[QueueError | None]:
        put = Put(mails)
        try:
            errors = await self._told(self._writer.submit(put))
        except asyncio.CancelledError:
            put.abandoned = True
            self._writer.submit(Drop(lambda: put.keys))  # if it was too late for that
            raise
        except QueueError as error:
            return [error] * len(mails)
        except UnicodeError as error:  # one of them is no text; the others shall go on
            if len(mails) == 1:
                return [as_queue_error(error, self.path, mails[0].message_id)]
            return [error for mail in mails for error in await self.put([mail])]
        self._ring()
        return errors

    async def claim(self, wanted: Wanted) -> Found:
        return await self._told(self._writer.do(lambda database: _claim(database, wanted)))

    async def finish(self, outcome: Outcome) -> bool:
        if outcome.state is None:
            return await self._told(self._writer.submit(_Finish(outcome)))
        return await self._told(self._writer.do(lambda database: _change(database, outcome)))

    async def extend(self, held: Collection[tuple[int, int]], lease: float) -> set[int]:
        until = time.time() + lease

        def extend(database: Database) -> set[int]:
            execute = database.connection.execute
            return {key for key, token in held if not execute(sql.EXTEND, (until, key, token)).rowcount}

        return await self._told(self._writer.do(extend))

    async def give_back(self, held: Collection[tuple[int, int]]) -> None:
        await self._told(self._writer.do(lambda database: _executemany(database, sql.GIVE_BACK, held)))
        self._ring()

    async def stats(self) -> Statistics:
        return await self._told(self._writer.do(_stats))

    async def ls(self, which: Filter) -> list[Summary]:
        return await self._told(self._writer.do(lambda database: list(self._summaries(database, which))))

    async def show(self, key: int) -> tuple[Summary, bytes] | None:
        return await self._told(self._writer.do(lambda database: self._show(database, key)))

    async def move(self, keys: Collection[int], origins: Collection[State], state: State) -> set[int]:
        marks = ", ".join(str(int(origin)) for origin in origins)
        statement = f"""
            UPDATE items SET attempts = CASE state WHEN {int(State.DEAD)} THEN 0 ELSE attempts END, state = ?, due = ?
            WHERE id = ? AND state IN ({marks})
        """

        def move(database: Database) -> set[int]:
            execute, now = database.connection.execute, time.time()
            return {key for key in keys if execute(statement, (int(state), now, key)).rowcount}

        moved = await self._told(self._writer.do(move))
        self._ring()
        return moved

    async def drop(self, keys: Collection[int]) -> set[int]:
        return await self._told(self._writer.submit(Drop(lambda: keys)))

    def _summaries(self, database: Database, which: Filter) -> Iterator[Summary]:
        conditions, values = ["1"], list[Any]()
        for column, value in (("state", which.state), ("destination", which.destination)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        query = f"{sql.SUMMARY} WHERE {' AND '.join(conditions)} ORDER BY accepted_at, items.id LIMIT ?"
        for row in database.connection.execute(query, (*values, which.limit)):
            yield self._summary(row)

    def _show(self, database: Database, key: int) -> tuple[Summary, bytes] | None:
        row = database.connection.execute(f"{sql.SUMMARY} WHERE items.id = ?", (key,)).fetchone()
        if row is None:
            return None
        file, content = database.connection.execute(sql.CONTENT, (key,)).fetchone()
        summary = self._summary(row)
        return summary, bytes(content if file is None else database.bodies.read(file, summary.size))

    def _summary(self, row: tuple[Any, ...]) -> Summary:
        key, message_id, state, destination, sender, recipients, *rest, due, attempts, reason, notes = row
        size, accepted_at = rest
        return Summary(
            f"{self.name}-{key}", message_id, State(state), destination, decode_sender(sender).address,
            tuple(each.address for each in decode_recipients(recipients)), size, accepted_at,
            due if state in (State.DEFERRED, State.LEASED) else None, attempts, reason, decode_notes(notes),
        )  # fmt: skip


class _Finish(Operation[bool]):
    """An item is done."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._files: list[str] = []

    def apply(self, database: Database) -> bool:
        found = database.connection.execute(sql.FINISH, (self._outcome.key, self._outcome.token)).fetchall()
        self._files = [file for (message,) in found for file in delete_message(database, message)]
        return bool(found)

    def settle(self, database: Database, committed: bool) -> None:
        if committed:
            database.bodies.remove(self._files)


def _claim(database: Database, wanted: Wanted) -> Found:
    execute, now = database.connection.execute, time.time()
    execute(sql.WAKE, (now,))
    token, after, claims = secrets.randbits(62), wanted.after, list[Claim]()
    wrapped = False
    for _ in range(_MAX_STEPS):
        if len(claims) >= wanted.count:
            break
        (destination,) = execute(sql.NEXT_DESTINATION, (after,)).fetchone()
        if destination is None or (wrapped and destination > wanted.after):
            if wrapped:
                break
            wrapped = True
            (destination,) = execute(sql.FIRST_DESTINATION).fetchone()
            if destination is None:
                break
        room = min(wanted.room(destination), wanted.count - len(claims))
        if room > 0:
            taken = execute(sql.TAKE, (now + wanted.lease, token, destination, room)).fetchall()
            claims += [claim for row in sorted(taken) if (claim := _claimed(database, destination, token, row))]
        after = destination
    (due,) = execute(sql.NEXT_DUE).fetchone()
    return Found(claims, after, None if due is None else max(0.0, due - now))


def _claimed(database: Database, destination: str, token: int, row: tuple[Any, ...]) -> Claim | None:
    key, message, recipients, accepted_at, attempts, reason, notes = row
    execute = database.connection.execute
    message_id, sender, size, file, content = execute(sql.MESSAGE, (message,)).fetchone()
    try:
        octets = memoryview(content) if file is None else database.bodies.read(file, size)
    except (FileNotFoundError, DamagedBodyError) as error:  # the item is not lost: somebody may bring the file back
        lost = f"its content cannot be read: {error}"
        _log.error("message %s for %s goes to the dead letters: %s", message_id, destination, lost)
        execute(sql.CHANGE, (int(State.DEAD), None, lost, None, notes, key, token))
        return None
    except OSError as error:  # too many files are open, or the disk has a bad moment
        trouble = f"its content cannot be read now: {error}"
        _log.error("message %s for %s has to wait: %s", message_id, destination, trouble)
        execute(sql.PUT_OFF, (time.time() + _BAD_MOMENT, trouble, key, token))
        return None
    return Claim(key, token, message_id, destination, sender, recipients, octets, accepted_at, attempts, reason, notes)


def _change(database: Database, outcome: Outcome) -> bool:
    state = int(State.READY if outcome.state is None else outcome.state)
    values = (state, outcome.due, outcome.reason, outcome.recipients, outcome.notes, outcome.key, outcome.token)
    return bool(database.connection.execute(sql.CHANGE, values).rowcount)


def _executemany(database: Database, statement: str, rows: Collection[tuple[int, int]]) -> None:
    database.connection.executemany(statement, rows)


def _stats(database: Database) -> Statistics:
    rows = database.connection.execute(sql.STATS).fetchall()
    return statistics(rows)
