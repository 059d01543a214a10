"""What is special about a queue in PostgreSQL: outages, several databases, many nodes, tables that do not grow."""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from fastsmtp.protocol.replies import TEMPORARY_FAILURE
from fastsmtp.queue import Queue, QueueError, check_url, describe, postgresql_link, postgresql_put
from loadtest.durability.postgresql import PostgreSQL, find_programs, running
from tests.queue.mails import counts, drain, mail, run, take


@pytest.fixture(scope="module")
def spare(postgresql: PostgreSQL) -> Iterator[PostgreSQL]:
    """A second server."""
    programs = find_programs()
    assert programs
    with running(programs) as server:
        yield server


@pytest.fixture
def own(spare: PostgreSQL) -> PostgreSQL:
    """A server that the test may stop; it runs, and is empty."""
    spare.stop()
    spare.start()
    spare.sql("DROP SCHEMA IF EXISTS fastsmtp CASCADE")
    return spare


def test_database_away_is_451_at_once_and_comes_back(own: PostgreSQL) -> None:
    async def main() -> None:
        async with Queue.open(own.url, slot=0) as queue:
            await queue.put([mail("before")])
            await asyncio.to_thread(own.kill)
            for number in range(5):
                began = time.monotonic()
                (error,) = await queue.put_each([mail(f"away{number}")])
                assert error is not None
                assert error.reply == TEMPORARY_FAILURE
                assert time.monotonic() - began < 1.0
            await asyncio.to_thread(own.start)
            while (await queue.put_each([mail("after")]))[0] is not None:  # noqa: ASYNC110  # the back-off ends
                await asyncio.sleep(0.05)
            assert sorted(item.message_id for item in await drain(queue)) == ["after", "before"]

    run(main())


def test_a_server_that_is_away_at_the_start(own: PostgreSQL, caplog: pytest.LogCaptureFixture) -> None:
    own.stop()

    async def main() -> None:
        async with Queue.open(own.url, slot=0) as queue:
            assert "Connect call failed" in caplog.text
            assert (await queue.put_each([mail("ID1")]))[0] is not None
            assert (await queue.stats()).unreachable
            waiting = asyncio.ensure_future(take(queue, 1))
            await asyncio.to_thread(own.start)
            while (await queue.put_each([mail("ID2")]))[0] is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            (item,) = await waiting
            await item.ack()

    run(main())


def test_slow_is_451_too(new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_database()
    monkeypatch.setattr(postgresql_link, "_STATEMENT_TIMEOUT", 3.0)

    async def main() -> None:
        async with Queue.open(url) as queue, Queue.open(url) as other:
            await queue.put([mail("warm")])
            (shard,) = await other._backend.shards()
            locked, done = asyncio.Event(), asyncio.Event()

            async def lock(connection: postgresql_link.Connection) -> None:
                async with connection.transaction():
                    await connection.execute("LOCK TABLE fastsmtp.items")
                    locked.set()
                    await done.wait()

            locking = asyncio.ensure_future(shard.outward.do(lock))  # type: ignore[attr-defined]
            await locked.wait()
            (error,) = await queue.put_each([mail("slow")])
            assert error is not None
            assert error.reply == TEMPORARY_FAILURE
            done.set()
            await locking
            await queue.put([mail("after")])
            assert sorted(item.message_id for item in await drain(queue)) == ["after", "warm"]

    run(main())


def test_a_server_that_falls_silent_behind_the_login_is_given_up(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_link, "_STATEMENT_TIMEOUT", 1.0)
    monkeypatch.setattr(postgresql_link, "_MIGRATION_TIMEOUT", 1.0)
    connections: list[postgresql_link.Connection] = []

    async def say_nothing(connection: postgresql_link.Connection) -> None:
        connections.append(connection)
        await asyncio.sleep(1000)

    async def main() -> None:
        url = new_database()
        silent = postgresql_link.Link(url, "silent", say_nothing)
        with pytest.raises(QueueError, match="silent: TimeoutError"):
            await silent.do(say_nothing)
        monkeypatch.setattr(postgresql_link, "migrate", say_nothing)
        old = postgresql_link.Link(url, "old")
        with pytest.raises(QueueError, match="old: TimeoutError"):
            await old.do(say_nothing)
        assert [connection.is_closed() for connection in connections] == [True, True]
        await asyncio.wait_for(silent.close(), 1)

    run(main())


def test_a_server_that_says_farewell_and_does_not_close_yet(new_database: Callable[[], str]) -> None:
    """Between both, the driver refuses what is asked of it with an error of its own."""
    farewell = _error_response("FATAL", "57P01", "terminating connection due to administrator command")
    clients: list[asyncio.StreamWriter] = []
    relays: list[asyncio.Task[None] | None] = []

    async def main() -> None:
        url = urlsplit(new_database())

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            relays.append(asyncio.current_task())
            from_server, to_server = await asyncio.open_connection(url.hostname, url.port)
            clients.append(writer)
            await asyncio.gather(_pour(reader, to_server), _pour(from_server, writer))

        async with await asyncio.start_server(relay, "127.0.0.1") as proxy:
            port = proxy.sockets[0].getsockname()[1]
            async with Queue.open(url._replace(netloc=f"{url.username}@127.0.0.1:{port}").geturl()) as queue:
                await queue.put([mail("one"), mail("two")])
                items = await take(queue, 2)
                for client in clients:
                    client.write(farewell)
                with pytest.raises(QueueError):
                    await queue.put([mail("three")])
                await asyncio.gather(*(item.ack() for item in items))  # told again, over a connection that is new
                await queue.put([mail("four")])  # likewise
                assert "LEASED" not in await counts(queue)
            await asyncio.gather(*filter(None, relays))

    run(main())


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def _error_response(severity: str, code: str, text: str) -> bytes:
    """PostgreSQL's frontend/backend protocol, 55.7, ErrorResponse."""
    texts = {"S": severity, "V": severity, "C": code, "M": text}
    fields = "".join(f"{kind}{value}\0" for kind, value in texts.items()).encode()
    return b"E" + struct.pack("!I", 4 + len(fields) + 1) + fields + b"\0"


def test_the_next_database_takes_over(own: PostgreSQL, new_database: Callable[[], str]) -> None:
    url = f"{own.url},{new_database()}"

    async def main() -> None:
        async with Queue.open(url, slot=0) as queue, Queue.open(url) as consumer:
            await queue.put([mail("first")])
            await asyncio.to_thread(own.stop)
            await queue.put([mail("second")])
            (item,) = await take(consumer, 1)
            assert item.message_id == "second"
            await item.ack()
            await asyncio.to_thread(own.start)
            (item,) = await take(consumer, 1)
            assert item.message_id == "first"
            await item.ack()
            assert await counts(queue) == {}

    run(main())


def test_many_nodes_make_the_tables_at_once(new_database: Callable[[], str]) -> None:
    url = new_database()

    async def node(number: int) -> str:
        async with Queue.open(url) as queue:
            await queue.put([mail(f"ID{number}")])
            (shard,) = await queue._backend.shards()
            return shard.name

    async def main() -> None:
        names = await asyncio.gather(*map(node, range(10)))
        assert len(set(names)) == 1
        async with Queue.open(url) as queue:
            assert len(await drain(queue)) == 10

    run(main())


def test_tables_of_a_newer_version_are_left_alone(new_database: Callable[[], str], postgresql: PostgreSQL) -> None:
    url = new_database()
    database = url.rpartition("/")[2]

    async def put() -> str:
        async with Queue.open(url) as queue:
            (error,) = await queue.put_each([mail("ID1")])
            return str(error)

    assert run(put()) == "None"
    postgresql.sql("UPDATE fastsmtp.shard SET version = 99", database)
    assert "newer fastsmtp" in run(put())


def test_a_commit_that_is_not_durable_is_made_so(new_database: Callable[[], str], postgresql: PostgreSQL) -> None:
    url = new_database()
    postgresql.sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")

    async def main() -> str:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1")])
            (shard,) = await queue._backend.shards()
            setting: str = await shard.inward.do(  # type: ignore[attr-defined]
                lambda connection: connection.fetchval("SHOW synchronous_commit")
            )
            return setting

    assert run(main()) == "on"


def test_a_server_without_fsync_is_refused(own: PostgreSQL) -> None:
    own.stop()
    own.start("fsync=off")

    async def main() -> str:
        async with Queue.open(own.url) as queue:
            (error,) = await queue.put_each([mail("ID1")])
            return str(error)

    assert "fsync is off" in run(main())


def test_large_batches_are_several_statements(new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastsmtp.queue.postgresql_shard.MAX_STATEMENT", 100_000)
    assert postgresql_put.MAX_STATEMENT > 100_000

    async def main() -> None:
        async with Queue.open(new_database()) as queue:
            await queue.put([mail(f"ID{number}", content=b"x" * 40_000) for number in range(10)])
            assert len(await drain(queue)) == 10

    run(main())


def test_a_text_that_postgresql_cannot_hold_is_refused_alone(new_database: Callable[[], str]) -> None:
    async def main() -> None:
        async with Queue.open(new_database()) as queue:
            errors = await queue.put_each([mail("ID1"), mail("ID\0"), mail("ID3", "a@b.example", "c@d.example")])
            assert [error is None for error in errors] == [True, False, True]
            assert sorted(item.message_id for item in await drain(queue)) == ["ID1", "ID3", "ID3"]

    run(main())


def test_tables_do_not_grow_with_what_has_passed(new_database: Callable[[], str], postgresql: PostgreSQL) -> None:
    """What passes leaves room for what comes: plain VACUUM, as autovacuum does it, is all that it takes."""
    url = new_database()
    database = url.rpartition("/")[2]
    sizes: list[int] = []
    query = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relname IN ('items', 'messages')"

    async def main() -> None:
        async with Queue.open(url) as queue:
            for _ in range(8):
                await queue.put([mail("ID", f"x@d{each % 10}.example", content=b"x" * 3000) for each in range(300)])
                await drain(queue)
                await asyncio.to_thread(postgresql.sql, "VACUUM fastsmtp.items", database)
                await asyncio.to_thread(postgresql.sql, "VACUUM fastsmtp.messages", database)
                sizes.append(int(await asyncio.to_thread(postgresql.sql, query, database)))

    run(main())
    assert max(sizes[2:]) < 2 * sizes[0], sizes


def test_autovacuum_looks_at_the_tables_soon(new_database: Callable[[], str], postgresql: PostgreSQL) -> None:
    url = new_database()

    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1")])

    run(main())
    query = "SELECT array_to_string(reloptions, ' ') FROM pg_class WHERE relname = 'items'"
    options = postgresql.sql(query, url.rpartition("/")[2])
    assert "autovacuum_vacuum_scale_factor=0.01" in options
    assert "fillfactor=70" in options


def test_urls(caplog: pytest.LogCaptureFixture) -> None:
    check_url("postgresql://user:secret@db.example/mail,postgres://db2.example:5433/mail")
    for bad in ("postgresql:", "postgresql:mail", "postgresql://host", "postgresql://a/b,postgresql://c"):
        with pytest.raises(ValueError, match="postgresql://USER@HOST/DATABASE"):
            check_url(bad)
    text = describe("postgresql://user:secret@db.example/mail,postgresql://db2.example/mail")
    assert text == "queue in PostgreSQL db.example/mail, PostgreSQL db2.example/mail"

    async def main() -> None:
        async with Queue.open("postgresql://user:secret@127.0.0.1:1/mail") as queue:
            assert (await queue.put_each([mail("ID1")]))[0] is not None

    with caplog.at_level(logging.DEBUG):
        run(main())
    assert "secret" not in caplog.text
