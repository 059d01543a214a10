"""What is special about a queue in SQLite: its files, and what becomes of it when they are no good."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
import time
from pathlib import Path

import pytest

from fastsmtp.protocol.replies import INSUFFICIENT_STORAGE, TEMPORARY_FAILURE
from fastsmtp.queue import Queue, QueueError, sqlite_backend, sqlite_writer
from fastsmtp.queue.sqlite_database import Database
from fastsmtp.queue.sqlite_put import Put
from tests.queue.mails import counts, drain, mail, run, take

LARGE = b"x" * 70_000


def files(path: Path) -> list[Path]:
    """Large contents that a queue has."""
    return sorted(path.glob("*/bodies/*"))


def damage(path: Path) -> None:
    """Overwrites the middle of a database that nobody has open."""
    with open(path / "0" / "queue.db", "r+b") as file:
        file.seek(0)
        file.write(os.urandom(20_000))


def fill(path: Path, *ids: str, slot: int = 0) -> None:
    async def main() -> None:
        async with Queue.open(f"queue:{path}", slot=slot) as queue:
            await queue.put([mail(each) for each in ids])

    run(main())


def ids_in(path: Path) -> list[str]:
    async def main() -> list[str]:
        async with Queue.open(f"queue:{path}") as queue:
            return sorted(item.message_id for item in await drain(queue))

    return run(main())


def test_each_worker_slot_has_a_database(tmp_path: Path) -> None:
    for slot in range(3):
        fill(tmp_path / "queue", f"ID{slot}", slot=slot)
    assert sorted(each.parent.name for each in tmp_path.glob("queue/*/queue.db")) == ["0", "1", "2"]
    assert ids_in(tmp_path / "queue") == ["ID0", "ID1", "ID2"]


def test_a_consumer_finds_a_database_that_comes_later(tmp_path: Path) -> None:
    url = f"queue:{tmp_path}/queue"

    async def main() -> str:
        async with Queue.open(url, slot=0), Queue.open(url) as consumer:
            waiting = asyncio.ensure_future(take(consumer, 1))
            await asyncio.wait({waiting}, timeout=0.2)
            async with Queue.open(url, slot=1) as another:
                await another.put([mail("ID1")])
                (item,) = await waiting
                await item.ack()
                return item.message_id

    assert run(main()) == "ID1"


def test_large_contents_are_files_as_long_as_they_are_needed(tmp_path: Path) -> None:
    async def main() -> None:
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            await queue.put([mail("small"), mail("large", "a@one.example", "b@two.example", content=LARGE)])
            assert [file.read_bytes() for file in files(tmp_path / "queue")] == [LARGE]
            items = await take(queue, 3)
            for item in items:
                if item.message_id == "large":
                    assert len(files(tmp_path / "queue")) == 1
                    await item.ack()
            assert files(tmp_path / "queue") == []
            assert all(bytes(item.content) == LARGE for item in items if item.message_id == "large")

    run(main())


def test_files_of_a_crash_are_swept_and_the_start_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            await queue.put([mail("large", content=LARGE)])
        (tmp_path / "queue" / "0" / "bodies" / "orphan").write_bytes(b"half a message")
        with caplog.at_level(logging.INFO):
            async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
                assert [file.read_bytes() for file in files(tmp_path / "queue")] == [LARGE]
                (item,) = await drain(queue)
                assert bytes(item.content) == LARGE

    run(main())
    assert "found 1 ready items; 1 unfinished files removed" in caplog.text


def test_a_sweep_waits_for_what_is_being_written(tmp_path: Path) -> None:
    """Somebody else puts a large message while the owner starts: its file is not an orphan."""
    database = Database(str(tmp_path / "0"), owned=False)

    async def main() -> str:
        with database.bodies.writing():
            name = database.bodies.write(b"", LARGE)
            starting = asyncio.ensure_future(asyncio.to_thread(Database, str(tmp_path / "0"), True))
            await asyncio.wait({starting}, timeout=0.3)
            assert not starting.done()
            database.connection.execute("INSERT INTO messages VALUES (1, 1, 'ID1', '=a@b', 1, ?, NULL)", (name,))
        (await starting).close()
        return name

    assert database.bodies.read(run(main()), len(LARGE)) == LARGE
    database.close()


def test_a_corrupt_database_is_put_aside_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "queue"
    fill(path, "old")
    damage(path)
    fill(path, "new")
    (aside,) = path.glob("0.corrupt-*")
    assert "is corrupt" in caplog.text
    assert str(aside) in caplog.text
    assert (aside / "queue.db").exists()
    assert ids_in(path) == ["new"]


def test_a_database_that_becomes_corrupt_at_work_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch that meets it is stored in the new one; a consumer that had the old one open finds the new one."""
    path = tmp_path / "queue"
    broken = True

    original = Database.is_current

    def corrupt(database: Database) -> bool:
        nonlocal broken
        if broken and database.owned:
            broken = False
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        return original(database)

    async def main() -> list[str]:
        async with Queue.open(f"queue:{path}", slot=0) as queue, Queue.open(f"queue:{path}") as consumer:
            await queue.put([mail("old")])
            monkeypatch.setattr(Database, "is_current", corrupt)
            await queue.put([mail("new")])
            return [item.message_id for item in await take(consumer, 1)]

    assert run(main()) == ["new"]
    assert len(list(path.glob("0.corrupt-*"))) == 1
    assert "is corrupt" in caplog.text


def test_a_corrupt_database_that_cannot_be_put_aside_does_not_silence_the_queue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(database: Database) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    def fail(database: Database, error: BaseException) -> None:
        database.close()
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async def main() -> list[str]:
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            (shard,) = await queue._backend.shards()
            with monkeypatch.context() as broken:
                broken.setattr(Database, "put_aside", fail)
                with pytest.raises(sqlite3.DatabaseError):
                    await shard._writer.do(corrupt)  # type: ignore[attr-defined]  # it is a SQLite shard
            await queue.put([mail("after")])
            return [item.message_id for item in await drain(queue)]

    assert run(main()) == ["after"]
    assert "cannot be put aside" in caplog.text


def test_what_is_committed_stays_so_if_no_space_can_be_given_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(database: Database) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def main() -> list[str]:
        monkeypatch.setattr(sqlite_writer, "_VACUUM_EVERY", 1)
        monkeypatch.setattr(Database, "give_back_space", fail)
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            await queue.put([mail("ID1")])
            return [item.message_id for item in await drain(queue)]

    assert run(main()) == ["ID1"]
    assert "free space is not given back" in caplog.text


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "queue", "old")
    with sqlite3.connect(tmp_path / "queue" / "0" / "queue.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(QueueError, match="newer fastsmtp"):
        fill(tmp_path / "queue", "new")
    assert not list(tmp_path.glob("queue/*corrupt*"))


@pytest.mark.parametrize("owned", [True, False])
def test_a_database_that_cannot_be_opened_leaves_no_descriptor(tmp_path: Path, owned: bool) -> None:
    Database(str(tmp_path / "0"), owned=True).close()
    with sqlite3.connect(tmp_path / "0" / "queue.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = sorted(os.listdir("/proc/self/fd"))
    errors = []  # what they refer to would be closed with them
    for _ in range(5):
        with pytest.raises(sqlite3.NotSupportedError) as failure:
            Database(str(tmp_path / "0"), owned=owned)
        errors.append(failure)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_slot_that_cannot_be_opened_is_tried_again_after_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "queue", "ID1")
    with sqlite3.connect(tmp_path / "queue" / "0" / "queue.db") as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("PRAGMA user_version = 99")

    async def main() -> list[str]:
        async with Queue.open(f"queue:{tmp_path}/queue") as queue:
            for _ in range(10):
                assert (await queue.stats()).unreachable
            assert caplog.text.count("newer fastsmtp") == 1
            connection.execute(f"PRAGMA user_version = {version}")
            connection.close()
            monkeypatch.setattr(sqlite_backend, "monotonic", lambda: time.monotonic() + 5)
            return [item.message_id for item in await drain(queue)]

    assert run(main()) == ["ID1"]


def test_a_full_disk_is_452_and_the_queue_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            await queue.put([mail("before")])
            (shard,) = await queue._backend.shards()

            async def limit(pages: int) -> None:
                await shard._writer.do(  # type: ignore[attr-defined]  # it is a SQLite shard
                    lambda database: database.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
                )

            await limit(1)
            (error,) = await queue.put_each([mail("full", content=b"x" * 60_000)])
            assert error is not None
            assert error.reply == INSUFFICIENT_STORAGE
            assert "full" in error.reason
            await limit(2**30)
            await queue.put([mail("after")])
            assert sorted(item.message_id for item in await drain(queue)) == ["after", "before"]

    run(main())


@pytest.mark.parametrize(
    ("code", "reply"),
    [(errno.ENOSPC, INSUFFICIENT_STORAGE), (errno.EDQUOT, INSUFFICIENT_STORAGE), (errno.EIO, TEMPORARY_FAILURE)],
)
def test_a_file_that_cannot_be_written_is_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reply: object
) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    async def main() -> None:
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            monkeypatch.setattr(os, "fdatasync", failing)
            errors = await queue.put_each([mail("one"), mail("large", content=LARGE), mail("two")])
            assert [error and error.reply for error in errors] == [None, reply, None]
            assert files(tmp_path / "queue") == []
            assert sorted(item.message_id for item in await drain(queue)) == ["one", "two"]

    run(main())


def test_a_content_that_is_gone_is_a_dead_letter(tmp_path: Path) -> None:
    async def main() -> None:
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            await queue.put([mail("large", content=LARGE), mail("small")])
            (file,) = files(tmp_path / "queue")
            file.unlink()
            (item,) = await take(queue, 1)
            assert item.message_id == "small"
            await item.ack()
            assert await counts(queue) == {"DEAD": 1}

    run(main())


@pytest.mark.parametrize("left", [0, 100])
def test_a_content_that_is_not_whole_is_not_handed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    async def main() -> None:
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            await queue.put([mail("large", content=LARGE), mail("small")])
            (file,) = files(tmp_path / "queue")
            os.truncate(file, left)
            (item,) = await take(queue, 1)
            assert item.message_id == "small"
            await item.ack()
            assert await counts(queue) == {"DEAD": 1}

    run(main())
    (file,) = files(tmp_path / "queue")
    assert f"goes to the dead letters: its content cannot be read: {file.name} has {left} octets" in caplog.text


def test_a_content_that_cannot_be_read_now_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As when too many files are open: the mail is there, and no consumer has failed with it."""

    async def main() -> None:
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            await queue.put([mail("large", content=LARGE), mail("small")])
            (file,) = files(tmp_path / "queue")
            aside = file.rename(tmp_path / "aside")
            file.symlink_to(file)  # ELOOP
            (item,) = await take(queue, 1)
            await item.ack()
            assert await counts(queue) == {"DEFERRED": 1}
            file.unlink()
            aside.rename(file)
            (waiting,) = await queue.ls()
            assert waiting.attempts == 0
            await queue.retry([waiting.id])
            (item,) = await take(queue, 1)
            assert item.message_id == "large"
            await item.ack()

    run(main())
    assert "has to wait: its content cannot be read now" in caplog.text


def test_a_put_that_was_rolled_back_has_no_numbers(tmp_path: Path) -> None:
    """They are free again: if it is cancelled now, it must not drop what another one has put there since."""
    database = Database(str(tmp_path / "0"), owned=True)
    put = Put([mail("mine")])
    put.prepare(database)
    put.apply(database)
    assert len(put.keys) == 1
    put.settle(database, committed=False)
    assert put.keys == []
    database.close()


def test_what_cannot_be_read_is_held_and_the_others_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "queue", "ID1", "ID2", "ID3")
    with sqlite3.connect(tmp_path / "queue" / "0" / "queue.db") as connection:
        connection.execute("UPDATE items SET recipients = '?' WHERE id = (SELECT min(id) FROM items)")
    connection.close()

    async def main() -> None:
        async with Queue.open(f"queue:{tmp_path}/queue") as queue:
            items = await take(queue, 2)
            assert sorted(item.message_id for item in items) == ["ID2", "ID3"]
            assert await counts(queue) == {"LEASED": 2, "HELD": 1}

    run(main())
    assert "is held: cannot be read" in caplog.text


def test_files_give_their_space_back(tmp_path: Path) -> None:
    """What has grown in a bad hour does not stay so large."""
    size = 0

    async def main() -> None:
        nonlocal size
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            await queue.put([mail(f"ID{number}", content=b"x" * 50_000) for number in range(400)])
            await drain(queue)
            (shard,) = await queue._backend.shards()
            size = await shard._writer.do(  # type: ignore[attr-defined]
                lambda database: database.connection.execute("PRAGMA page_count").fetchone()[0]
            )
            for _ in range(1000):
                await queue.stats()

    run(main())
    database = tmp_path / "queue" / "0" / "queue.db"
    assert size * 8192 > 20_000_000
    assert database.stat().st_size < 10_000_000


def test_the_parent_directory_must_exist(tmp_path: Path) -> None:
    with pytest.raises(QueueError, match="No such file or directory"):
        fill(tmp_path / "missing" / "queue", "ID1")


def test_a_long_path_still_has_a_bell(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    fill(deep / "queue", "ID1")
    assert ids_in(deep / "queue") == ["ID1"]


class _Contended:
    """A connection to a new database that others open at the same moment; SQLite does not wait for them itself."""

    def __init__(self) -> None:
        self.tries = 0

    def execute(self, statement: str) -> None:
        self.tries += 1
        if self.tries < 3:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error


def test_a_new_database_that_others_open_too_is_waited_for(tmp_path: Path) -> None:
    """A server and its consumers start together."""
    database = Database(str(tmp_path / "0"), owned=True)
    connection, contended = database.connection, _Contended()
    database.connection = contended  # type: ignore[assignment]  # a fake of what it needs
    database._use_write_ahead_log()
    assert contended.tries == 3
    database.connection = connection
    database.close()
