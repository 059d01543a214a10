"""Group commit: one thread for each database, and one transaction for all that has gathered.

While one transaction is synced, the next one's operations gather. An operation that fails must not take the others
with it, so a group that fails is rolled back, and each of its operations gets a transaction of its own.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

from .sqlite_database import Database, is_corrupt

_MAX_GROUP: Final = 64  # operations; one of them may be a whole batch of messages
_VACUUM_EVERY: Final = 256  # groups
_log = logging.getLogger("fastsmtp.queue")
_Result = TypeVar("_Result")


class Operation(Generic[_Result]):
    """What is to be done in a transaction. Everything but `abandoned` belongs to the writer thread."""

    abandoned = False  # set on the loop: nobody waits for the result any more

    def prepare(self, database: Database) -> None:
        """What is done before the transaction, once."""

    def apply(self, database: Database) -> _Result:
        """What is done within; it may be done again after a rollback."""
        raise NotImplementedError

    def settle(self, database: Database, committed: bool) -> None:
        """What is done behind the transaction."""


class _Call(Operation[_Result]):
    """An operation that is nothing but a function."""

    def __init__(self, function: Callable[[Database], _Result]) -> None:
        self._function = function

    def apply(self, database: Database) -> _Result:
        return self._function(database)


_Waiting = tuple[Operation[object], "asyncio.Future[object]"]


class Writer:
    """The thread of one database. `do` and `close` belong to the event loop.

    Args:
        open_database: makes the connection, in the thread; also when the one before is no good any more.
        committed: called in the thread behind a transaction in which mail came, or was given back.
    """

    def __init__(self, open_database: Callable[[], Database], name: str) -> None:
        self._open_database = open_database
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._groups = 0
        self._database: Database | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, function: Callable[[Database], _Result]) -> asyncio.Future[_Result]:
        """Has a function run in a transaction; the result comes when it is committed."""
        return self.submit(_Call(function))

    def submit(self, operation: Operation[_Result]) -> asyncio.Future[_Result]:
        """Has an operation done; the result comes when it is committed."""
        future: asyncio.Future[_Result] = self._loop.create_future()
        self._jobs.put((operation, future))  # type: ignore[arg-type]  # each result goes to its own future
        return future

    async def close(self) -> None:
        """Returns when everything is done that was asked for, and the files are closed."""
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._gather()
            if group:
                results = self._work(group)
                self._loop.call_soon_threadsafe(_tell, group, results)
        if self._database:
            self._database.close()

    def _gather(self) -> tuple[list[_Waiting], bool]:
        """All that waits, but not more than a group; and whether the thread goes on behind it."""
        job = self._jobs.get()
        group: list[_Waiting] = []
        while job is not None:
            group.append(job)
            if len(group) == _MAX_GROUP or self._jobs.empty():
                return group, True
            job = self._jobs.get()
        return group, False

    def _work(self, group: Sequence[_Waiting]) -> list[object]:
        """The result, or the exception, of each operation."""
        operations = [operation for operation, _ in group]
        try:
            return self._together(operations)
        except Exception as error:
            if len(operations) == 1 and not is_corrupt(error):
                return [error]
            self._after(error)
        return [self._alone(operation) for operation in operations]

    def _alone(self, operation: Operation[object]) -> object:
        try:
            return self._together([operation])[0]
        except Exception as error:
            self._after(error)
            return error

    def _after(self, error: Exception) -> None:
        """A corrupt database is put aside by its owner; others look for what the owner has put in its place.

        Never raises: the thread must go on, or nobody would be answered any more. What could not be put aside is
        opened again, and then it is tried again.
        """
        database = self._database
        if database and is_corrupt(error):
            self._database = None
            try:
                if database.owned and database.is_current():  # else the slot's other worker has done so a moment ago
                    database.put_aside(error)
                else:
                    database.close()
            except Exception:
                _log.exception("queue %s is corrupt (%s), and cannot be put aside", database.path, error)

    def _together(self, operations: Sequence[Operation[object]]) -> list[object]:
        database = self._current()
        wanted = [operation for operation in operations if not operation.abandoned]
        committed = False
        with database.bodies.writing():
            try:
                for operation in wanted:
                    operation.prepare(database)
                database.connection.execute("BEGIN IMMEDIATE")
                results = {operation: operation.apply(database) for operation in wanted}
                database.connection.execute("COMMIT")
                committed = True
            finally:
                if not committed and database.connection.in_transaction:
                    with suppress(Exception):  # the error that is on its way tells more
                        database.connection.execute("ROLLBACK")
                for operation in wanted:
                    operation.settle(database, committed)
        self._groups += 1
        if self._groups % _VACUUM_EVERY == 0:
            _give_back_space(database)
        return [results.get(operation) for operation in operations]

    def _current(self) -> Database:
        if self._database and not self._database.is_current():
            self._database.close()
            self._database = None
        if self._database is None:
            self._database = self._open_database()
        return self._database


def _give_back_space(database: Database) -> None:
    """What fails here must not fail the transaction before it, which is committed."""
    try:
        database.give_back_space()
    except Exception as error:
        _log.warning("queue %s: free space is not given back: %s", database.path, error)


def _tell(group: Sequence[_Waiting], results: Sequence[object]) -> None:
    for (_, future), result in zip(group, results, strict=True):
        if future.done():  # cancelled
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
