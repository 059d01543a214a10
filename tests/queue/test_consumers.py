"""Several consumers of one queue: whose turn it is, who has what, and what becomes of it, on both engines."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from pathlib import Path

import pytest

from fastsmtp.protocol.envelope import Sender
from fastsmtp.queue import Item, LeaseLostError, Queue
from fastsmtp.queue.shard import Found, Wanted
from tests.queue.mails import counts, drain, mail, run, take, two


def test_priority_comes_first(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            priorities = [0, -9, 9, None, 3]
            await queue.put([mail(str(each), sender=Sender("a", "b.example", priority=each)) for each in priorities])
            items: list[Item] = []
            async for item in queue.consume(concurrency=1):
                items.append(item)
                await item.ack()
                if len(items) == 5:
                    break
            assert [item.message_id for item in items][:2] == ["9", "3"]
            assert items[-1].message_id == "-9"

    run(main())


def test_a_large_destination_does_not_make_others_wait(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail(f"B{number}", "x@big.example") for number in range(200)])
            await queue.put([mail(f"S{number}", f"x@s{number}.example") for number in range(5)])
            order: list[str] = []
            async for item in queue.consume(concurrency=4, per_destination=2):
                order.append(item.destination)
                await item.ack()
                if len(order) == 20:
                    break
            assert {f"s{number}.example" for number in range(5)} <= set(order)

    run(main())


def test_no_more_in_hand_than_agreed(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail(f"B{number}", "x@big.example") for number in range(9)])
            await queue.put([mail("S", "x@small.example")])
            consumption = queue.consume(concurrency=4, per_destination=3)
            items = [await anext(consumption) for _ in range(4)]
            assert sorted(item.destination for item in items) == ["big.example"] * 3 + ["small.example"]
            nothing = asyncio.ensure_future(anext(consumption))
            await asyncio.wait({nothing}, timeout=0.3)
            assert not nothing.done()
            await items[0].ack()
            fifth = await nothing
            assert fifth.id not in {item.id for item in items}
            await consumption.aclose()

    run(main())


def test_no_item_goes_to_two_consumers(url: str) -> None:
    async def consume(queue: Queue, seen: list[str]) -> None:
        async for item in queue.consume(concurrency=7, per_destination=7):
            seen.append(item.message_id)
            await item.ack()

    async def main() -> list[str]:
        seen: list[str] = []
        async with two(url) as (one, other):
            await one.put([mail(f"ID{number}", f"x@d{number % 5}.example") for number in range(150)])
            tasks = [asyncio.ensure_future(consume(queue, seen)) for queue in (one, other)]
            while await counts(one):  # noqa: ASYNC110  # only the tables tell
                await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return seen

    assert sorted(run(main())) == sorted(f"ID{number}" for number in range(150))


def test_mail_that_comes_while_a_consumer_waits(url: str) -> None:
    async def main() -> float:
        async with two(url) as (acceptor, consumer):
            waiting = asyncio.ensure_future(take(consumer, 1))
            await asyncio.wait({waiting}, timeout=0.5)
            began = time.monotonic()
            await acceptor.put([mail("ID1")])
            await waiting
            return time.monotonic() - began

    assert run(main()) < 2.0  # without the bell: up to 5 s


def test_what_was_not_handed_out_goes_back_at_once(url: str) -> None:
    async def main() -> None:
        async with two(url) as (one, other):
            await one.put([mail(f"ID{number}", f"x@d{number}.example") for number in range(6)])
            (mine,) = await take(one, 1)
            assert await counts(one) == {"READY": 5, "LEASED": 1}
            assert len(await take(other, 5)) == 5
            await mine.ack()

    run(main())


def test_a_consumer_that_is_cancelled_while_it_takes_gives_back_what_it_took(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with two(url) as (one, other):
            await one.put([mail(f"ID{number}", f"x@d{number}.example") for number in range(3)])
            (shard,) = await one._backend.shards()
            claim, claimed, answered = shard.claim, asyncio.Event(), asyncio.Event()

            async def claim_late(wanted: Wanted) -> Found:
                found = await claim(wanted)
                claimed.set()
                await answered.wait()
                return found

            monkeypatch.setattr(shard, "claim", claim_late)
            taking = asyncio.ensure_future(take(one, 1))
            await claimed.wait()
            assert await counts(other) == {"LEASED": 3}
            taking.cancel()
            await asyncio.sleep(0)
            answered.set()
            with pytest.raises(asyncio.CancelledError):
                await taking
            assert await counts(other) == {"READY": 3}

    run(main())


def test_a_queue_that_is_closed_gives_back_what_is_in_hand(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1")])
            items = await take(queue, 1)
            assert await counts(queue) == {"LEASED": 1}
        async with Queue.open(url) as queue:
            assert await counts(queue) == {"READY": 1}
            (item,) = await drain(queue)
            assert item.attempts == 0
            assert items[0].id == item.id

    run(main())


def test_the_lease_of_a_consumer_that_died_runs_out(url: str) -> None:
    """Died: its queue was never closed, and nobody extends the lease."""

    async def main() -> None:
        async with two(url) as (one, other):
            await one.put([mail("ID1")])
            (lost,) = await take(one, 1, lease=1)
            assert one._leases._task is not None
            one._leases._task.cancel()
            (item,) = await take(other, 1)
            assert (item.message_id, item.attempts) == ("ID1", 1)
            assert "died" in str(item.reason)
            with pytest.raises(LeaseLostError):
                await lost.ack()
            with pytest.raises(LeaseLostError):
                await lost.retry(time.time(), "x")
            await item.ack()
            assert await counts(other) == {}

    run(main())


def test_an_item_in_hand_keeps_its_lease(url: str) -> None:
    async def main() -> None:
        async with two(url) as (one, other):
            await one.put([mail("ID1")])
            (item,) = await take(one, 1, lease=0.6)
            stolen = asyncio.ensure_future(take(other, 1))
            await asyncio.wait({stolen}, timeout=2.0)
            assert not stolen.done()
            stolen.cancel()
            await item.extend()
            await item.ack()

    run(main())


def test_an_item_that_is_dropped_by_mistake_is_given_back(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1")])
            consumption = queue.consume(lease=0.6, concurrency=1)
            item: Item | None = await anext(consumption)
            assert item
            item = None
            gc.collect()
            again = await anext(consumption)
            assert again.attempts == 0
            await again.ack()
            await consumption.aclose()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "without ack, retry or reject" in caplog.text


def test_two_consumers_that_finish_a_message_together_leave_nothing(url: str) -> None:
    async def main() -> None:
        async with two(url) as (one, other):
            for number in range(20):
                await one.put([mail(f"ID{number}", "a@one.example", "b@two.example", content=b"x" * 70_000)])
                (first,) = await take(one, 1)
                (second,) = await take(other, 1)
                await asyncio.gather(first.ack(), second.ack())
            assert await counts(one) == {}
            assert await contents_left(one, url) == 0

    run(main())


async def contents_left(queue: Queue, url: str) -> int:
    """Messages in the tables, whatever has become of their items."""
    (shard,) = await queue._backend.shards()
    if url.startswith("queue:"):
        count: int = await shard._writer.do(  # type: ignore[attr-defined]  # the tests know which engine it is
            lambda database: database.connection.execute("SELECT count(*) FROM messages").fetchone()[0]
        )
    else:
        count = await shard.inward.do(  # type: ignore[attr-defined]
            lambda connection: connection.fetchval("SELECT count(*) FROM fastsmtp.messages")
        )
    return count


def test_a_short_lease_beside_a_long_one_is_extended_in_time(tmp_path: Path) -> None:
    url = f"queue:{tmp_path}/queue"

    async def main() -> None:
        async with two(url) as (one, other):
            await one.put([mail("long"), mail("short")])
            (long,) = await take(one, 1, lease=300)
            (short,) = await take(one, 1, lease=0.6)
            stolen = asyncio.ensure_future(take(other, 1))
            await asyncio.wait({stolen}, timeout=1.5)
            assert not stolen.done()
            stolen.cancel()
            await asyncio.gather(long.ack(), short.ack())

    run(main())
