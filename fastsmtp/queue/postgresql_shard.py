"""One PostgreSQL database as a shard of a queue."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import asyncpg

from fastsmtp.protocol.replies import TEMPORARY_FAILURE

from . import postgresql_schema as sql
from .codec import by_destination, decode_notes, decode_recipients, decode_sender
from .contract import Mail, QueueError, State, Statistics, Summary
from .postgresql_link import Connection, Link
from .postgresql_put import MAX_STATEMENT, Numbers, Rows
from .shard import Claim, Filter, Found, Outcome, Wanted, statistics

_STATS_TIMEOUT: Final = 5.0  # seconds
_MAX_REMOVED: Final = 1000  # items in one statement


class PostgreSQLShard:
    """One database, over one connection for what comes in and one for what goes out.

    Args:
        dsn: whom to connect to.
        title: of the server, for people: without the password.
        arrived: called when there is something for consumers.
    """

    def __init__(self, dsn: str, title: str, arrived: Callable[[PostgreSQLShard], None]) -> None:
        self.title = title
        self.inward = Link(dsn, title)
        self.outward = Link(dsn, title)
        self._arrived = arrived
        self._numbers = Numbers()
        self._done: list[tuple[Outcome, asyncio.Future[bool]]] = []  # waits to be removed
        self._removing: asyncio.Task[None] | None = None
        self._withdrawing: set[asyncio.Task[set[int]]] = set()

    @property
    def name(self) -> str:
        return self.inward.name or self.outward.name

    async def open(self) -> None:
        """Connects, so that the name is known.

        Raises:
            QueueError: the server cannot be reached.
        """
        if not self.name:
            await self.outward.do(_nothing)

    async def close(self) -> None:
        """Returns when what was asked for is done."""
        if self._removing:
            await self._removing
        if self._withdrawing:
            await asyncio.wait(self._withdrawing)
        await self.inward.close()
        await self.outward.close()

    # -- in -----------------------------------------------------------------------------------------------------------

    async def put(self, mails: Sequence[Mail]) -> Sequence[QueueError | None]:
        errors: list[QueueError | None] = [None] * len(mails)
        now = time.time()
        rows = Rows()
        try:
            for place, mail in enumerate(mails):
                try:
                    await self._add(rows, place, mail, now)
                except (ValueError, QueueError) as error:
                    errors[place] = _about(mail, error)
                if rows.octets >= MAX_STATEMENT:
                    rows, full = Rows(), rows
                    await self._store(full, mails, errors)
            await self._store(rows, mails, errors)
        except asyncio.CancelledError:
            self._withdraw(rows.items[0])
            raise
        if None in errors:
            self._arrived(self)
        return errors

    async def _add(self, rows: Rows, place: int, mail: Mail, now: float) -> None:
        destinations = by_destination(mail.recipients)
        if len(destinations) > sql.BLOCK:
            raise ValueError(f"{len(destinations)} destinations: more than {sql.BLOCK}")
        if not self._numbers.has(len(destinations)):
            self._numbers.refill(await self.inward.do(lambda connection: connection.fetchval(sql.NEXT_BLOCK)))
        rows.add(place, mail, self._numbers.take(len(destinations)), destinations, now)

    async def _store(self, rows: Rows, mails: Sequence[Mail], errors: list[QueueError | None]) -> None:
        if not rows.places:
            return
        try:
            await self.inward.do(lambda connection: connection.execute(sql.PUT, *rows.messages, *rows.items))
        except QueueError as error:
            if isinstance(error.__cause__, asyncpg.DataError) and len(rows.places) > 1:
                for row in rows.split():  # one of them does not fit into the tables; the others shall
                    await self._store(row, mails, errors)
                return
            for place in rows.places:
                errors[place] = _about(mails[place], error)

    def _withdraw(self, keys: Sequence[int]) -> None:
        """Nobody waits for the answer any more, and none was given: what was committed all the same goes away."""
        task = asyncio.ensure_future(self.drop(list(keys)))
        self._withdrawing.add(task)
        task.add_done_callback(self._is_withdrawn)

    def _is_withdrawn(self, task: asyncio.Task[set[int]]) -> None:
        self._withdrawing.discard(task)
        if not task.cancelled():
            task.exception()  # then it stays, as a duplicate

    # -- out ----------------------------------------------------------------------------------------------------------

    async def claim(self, wanted: Wanted) -> Found:
        token = secrets.randbits(62)
        busy, working = list(wanted.busy), list(wanted.busy.values())

        async def take(connection: Connection) -> Found:
            arguments = (wanted.count, wanted.per_destination, busy, working, wanted.after, wanted.lease, token)
            rows = await connection.fetch(sql.CLAIM, *arguments)
            claims = [_claim(token, row) for row in rows]
            after = claims[-1].destination if claims else wanted.after
            due = None if len(claims) >= wanted.count else await connection.fetchval(sql.NEXT_DUE)
            return Found(claims, after, None if due is None else max(0.0, due))

        return await self.outward.do(take)

    async def finish(self, outcome: Outcome) -> bool:
        if outcome.state is None:
            return await self._remove_later(outcome)
        values = (int(outcome.state), outcome.due, outcome.reason, outcome.recipients, outcome.notes)

        def change(connection: Connection) -> Any:
            return connection.execute(sql.CHANGE, *values, outcome.key, outcome.token)

        return bool(await self.outward.do(change) == "UPDATE 1")

    async def _remove_later(self, outcome: Outcome) -> bool:
        """While one statement removes items, the next one's gather."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._done.append((outcome, future))
        if self._removing is None or self._removing.done():
            self._removing = asyncio.ensure_future(self._remove())
        return await future

    async def _remove(self) -> None:
        while self._done:
            group, self._done = self._done[:_MAX_REMOVED], self._done[_MAX_REMOVED:]
            keys, tokens = [each.key for each, _ in group], [each.token for each, _ in group]
            try:
                removed = await self._removed(keys, tokens)
            except Exception as error:  # a bug, too: who waits for ever for an answer, extends the lease for ever
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                continue
            for outcome, future in group:
                if not future.done():
                    future.set_result(outcome.key in removed)

    async def _removed(self, keys: Sequence[int], tokens: Sequence[int | None]) -> set[int]:
        rows = await self.outward.do(lambda connection: connection.fetch(sql.REMOVE, keys, tokens))
        return {row[0] for row in rows}

    async def extend(self, held: Collection[tuple[int, int]], lease: float) -> set[int]:
        keys, tokens = [key for key, _ in held], [token for _, token in held]
        rows = await self.outward.do(lambda connection: connection.fetch(sql.EXTEND, keys, tokens, lease))
        return {*keys} - {row[0] for row in rows}

    async def give_back(self, held: Collection[tuple[int, int]]) -> None:
        keys, tokens = [key for key, _ in held], [token for _, token in held]
        await self.outward.do(lambda connection: connection.execute(sql.GIVE_BACK, keys, tokens))
        self._arrived(self)

    # -- for people ---------------------------------------------------------------------------------------------------

    async def stats(self) -> Statistics:
        return statistics(await self.outward.do(lambda connection: connection.fetch(sql.STATS), _STATS_TIMEOUT))

    async def ls(self, which: Filter) -> list[Summary]:
        state = None if which.state is None else int(which.state)
        arguments = (state, which.destination, which.limit)
        return [self._summary(row) for row in await self.outward.do(lambda each: each.fetch(sql.LS, *arguments))]

    async def show(self, key: int) -> tuple[Summary, bytes] | None:
        row = await self.outward.do(lambda connection: connection.fetchrow(sql.SHOW, key))
        content = await self.outward.do(lambda connection: connection.fetchval(sql.CONTENT, key))
        return (self._summary(row), content) if row is not None and content is not None else None

    async def move(self, keys: Collection[int], origins: Collection[State], state: State) -> set[int]:
        arguments = (int(state), list(keys), [int(origin) for origin in origins])
        rows = await self.outward.do(lambda connection: connection.fetch(sql.MOVE, *arguments))
        self._arrived(self)
        return {row[0] for row in rows}

    async def drop(self, keys: Collection[int]) -> set[int]:
        return await self._removed(list(keys), [None] * len(keys))

    def _summary(self, row: Any) -> Summary:
        """The item of a row of `sql.SUMMARY`."""
        state = State(row["state"])
        return Summary(
            f"{self.name}-{row['id']}", row["message_id"], state, row["destination"],
            decode_sender(row["sender"]).address,
            tuple(each.address for each in decode_recipients(row["recipients"])),
            row["size"], row["accepted_at"], row["due"] if state in (State.DEFERRED, State.LEASED) else None,
            row["attempts"], row["reason"], decode_notes(row["notes"]),
        )  # fmt: skip


def _claim(token: int, row: Any) -> Claim:
    """The claim of a row of `sql.CLAIM`."""
    key, message_id, destination, sender, recipients, content, accepted_at, attempts, reason, notes = row
    return Claim(
        key, token, message_id, destination, sender, recipients, memoryview(content), accepted_at, attempts, reason,
        notes,
    )  # fmt: skip


def _about(mail: Mail, error: Exception) -> QueueError:
    reply = error.reply if isinstance(error, QueueError) else TEMPORARY_FAILURE
    found = QueueError(reply, f"message {mail.message_id}: {error}")
    found.__cause__ = error.__cause__ or error
    return found


async def _nothing(connection: Connection) -> None:
    """That there is a connection is all that was wanted."""
