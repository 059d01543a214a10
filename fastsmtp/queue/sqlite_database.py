"""The file of one SQLite database: opened, made, checked, and put aside when it is corrupt.

A database is a directory of its own (``PATH/0``), with its log and its large contents, so that one rename puts it
aside as a whole. Only its owner does that: the worker in whose slot it is.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from .contract import State
from .sqlite_bodies import Bodies
from .sqlite_schema import MIGRATIONS

_PREPARED: Final = 64  # statements: two for each number of rows in `sqlite_put`, and the rest of `sqlite_schema`
_BUSY_TIMEOUT: Final = 10.0  # seconds to wait for another process's transaction, which takes some ms
_BUSY_PAUSE: Final = 0.005  # seconds between two tries where SQLite itself does not wait
_PAGE_BYTES: Final = 8192
# Pages in the log before they are moved into the database: 16 MB. SQLite's own 1000 costs twice the syncs.
_CHECKPOINT_PAGES: Final = 2000
_LOG_BYTES: Final = 64 * 2**20  # to which the log is cut back after a burst
_CHECKED_BYTES: Final = 64 * 2**20  # a database up to this size is checked as a whole at the start, in some 100 ms
_VACUUM_PAGES: Final = 512  # that one step gives back to the file system
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_log = logging.getLogger("fastsmtp.queue")


def is_corrupt(error: BaseException) -> bool:
    """Whether an error says that the file is no good, as opposed to the disk being full, or slow, or gone."""
    return isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT


class Database:
    """An open database. Belongs to the thread that has opened it.

    Args:
        path: its directory, which is made if it is not there.
        owned: whether we are the one that checks it, and puts it aside if it is corrupt.

    Raises:
        OSError, sqlite3.Error: it cannot be used.

    Attributes:
        connection: outside of any transaction.
        bodies: its large contents.
        name: of the shard; made together with the database.
    """

    def __init__(self, path: str, owned: bool) -> None:
        self.path = path
        self.owned = owned
        self._make_directories()
        try:
            self._open(self._look_at_it if owned else None)
        except sqlite3.DatabaseError as error:
            if not (owned and is_corrupt(error)):
                raise
            self.put_aside(error)
            self._make_directories()
            self._open()

    def _make_directories(self) -> None:
        make_directory(self.path)
        make_directory(os.path.join(self.path, "bodies"))

    def _open(self, check: Callable[[], None] | None = None) -> None:
        """Opens all there is, or nothing: who tries again every few seconds would run out of descriptors."""
        self.bodies = Bodies(os.path.join(self.path, "bodies"))
        try:
            self.connection = sqlite3.connect(
                self._file,
                timeout=_BUSY_TIMEOUT,
                isolation_level=None,
                cached_statements=_PREPARED,
                check_same_thread=False,
            )
            try:
                self._set_up()
                if check:
                    check()
            except BaseException:
                self.connection.close()
                raise
        except BaseException:
            self.bodies.close()
            raise

    @property
    def _file(self) -> str:
        return os.path.join(self.path, "queue.db")

    def _set_up(self) -> None:
        execute = self.connection.execute
        execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        execute("PRAGMA auto_vacuum = INCREMENTAL")  # in force if the database is new
        self._use_write_ahead_log()
        # Each commit is synced. NORMAL would sync at checkpoints only, and a power cut would take what was promised.
        execute("PRAGMA synchronous = FULL")
        execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        self._migrate()
        (self.name,) = execute("SELECT name FROM shard").fetchone()
        _sync_directory(self.path)
        self._inode = os.stat(self._file).st_ino

    def _use_write_ahead_log(self) -> None:
        """Likewise in force if the database is new. Who else opens it at that moment makes SQLite say BUSY at once."""
        end = time.monotonic() + _BUSY_TIMEOUT
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                    raise
            time.sleep(_BUSY_PAUSE)

    def _migrate(self) -> None:
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            (found,) = execute("PRAGMA user_version").fetchone()
            if found > len(MIGRATIONS):
                raise sqlite3.NotSupportedError(f"{self.path} was made by a newer fastsmtp (version {found})")
            for script in MIGRATIONS[found:]:
                for statement in filter(str.strip, script.split(";")):
                    execute(statement)
            if found == 0:
                execute("INSERT INTO shard VALUES (?)", (_new_name(),))
            execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            execute("COMMIT")
        except BaseException:
            self.connection.rollback()
            raise

    def _look_at_it(self) -> None:
        """What the start has to say and to clear away."""
        execute = self.connection.execute
        if os.path.getsize(self._file) <= _CHECKED_BYTES:
            (verdict,) = execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                error = sqlite3.DatabaseError(verdict)
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
        orphans = self.bodies.sweep(self._files)
        counts = dict(execute("SELECT state, count(*) FROM items GROUP BY state").fetchall())
        if counts or orphans:
            found = ", ".join(f"{counts[state]} {state.name.lower()}" for state in State if state in counts)
            _log.info("queue %s: found %s items; %d unfinished files removed", self.path, found or "no", orphans)

    def _files(self) -> list[str]:
        """The large contents that the table refers to."""
        return [file for (file,) in self.connection.execute("SELECT file FROM messages WHERE file IS NOT NULL")]

    def is_current(self) -> bool:
        """Whether its path still means this database; it may have been put aside by its owner."""
        try:
            return os.stat(self._file).st_ino == self._inode
        except FileNotFoundError:
            return False

    def put_aside(self, error: BaseException) -> None:
        """Closes it, if it is open, and renames it: nothing of it is deleted, and nothing of it is delivered."""
        self.close()
        aside = f"{self.path}.corrupt-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
        os.rename(self.path, aside)
        _sync_directory(os.path.dirname(self.path))
        _log.critical(
            "queue %s is corrupt (%s): it was moved to %s, and a new one takes its place. The messages in it are not "
            "delivered until somebody saves them: see 'A corrupt database' in docs/queue.md",
            self.path, error, aside,
        )  # fmt: skip

    def give_back_space(self) -> None:
        """Returns some of the free pages to the file system, where a quarter is free."""
        (free,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        (total,) = self.connection.execute("PRAGMA page_count").fetchone()
        if free > _VACUUM_PAGES and free * 4 >= total:
            # executescript runs it to its end; execute would stop behind the first page, as there are no columns.
            self.connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    def close(self) -> None:
        """Closes the files, if they are open; what was committed stays."""
        self.bodies.close()
        self.connection.close()


def _new_name() -> str:
    return os.urandom(4).hex()


def make_directory(path: str) -> None:
    """Makes a directory whose entry lasts; one that exists may have been made a moment ago, by another worker.

    Its parent must exist: a volume that is not mounted shall be an error, not mail on the wrong disk.
    """
    made = True
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        made = False
    try:
        _sync_directory(os.path.dirname(path))
    except PermissionError:  # a parent that we may not read has not been changed by us
        if made:
            raise


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
