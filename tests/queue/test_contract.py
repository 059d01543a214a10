"""What every queue promises, on both engines (fastsmtp/queue/contract.py)."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from datetime import UTC, datetime

import pytest

from fastsmtp.protocol.envelope import DeliverBy, Recipient, Sender
from fastsmtp.queue import Item, LeaseLostError, Mail, Queue, State
from tests.queue.mails import CONTENT, counts, drain, mail, run, take, two


def test_everything_survives_the_way(url: str) -> None:
    sender = Sender(
        "o'hara@\"x", "example.com", size=12, body="8BITMIME", smtputf8=True, ret="HDRS", envid="QQ314159",
        auth="", require_tls=True, deliver_by=DeliverBy(-5, "N", True), hold_for=0,
        hold_until=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), priority=-3,
    )  # fmt: skip
    recipients = (
        Recipient("jörg", "example.org", ("SUCCESS", "DELAY"), ("rfc822", "x@example.org")),
        Recipient("never", "example.org", ("NEVER",)),
    )
    content = bytes(range(256)) * 10

    async def main() -> Item:
        async with Queue.open(url) as queue:
            await queue.put([Mail(sender, recipients, memoryview(content), "ID1", b"Received: x\r\n", 1234.5)])
            (item,) = await take(queue, 1)
            await item.ack()
            return item

    item = run(main())
    assert (item.sender, item.recipients) == (sender, recipients)
    assert bytes(item.content) == b"Received: x\r\n" + content
    assert (item.message_id, item.destination, item.accepted_at) == ("ID1", "example.org", 1234.5)
    assert (item.attempts, item.reason, item.notes) == (0, None, {})


@pytest.mark.parametrize("size", [0, 1, 5000, 70_000, 3_000_000])
def test_sizes(url: str, size: int) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1", content=b"x" * size)])
            (item,) = await take(queue, 1)
            await item.ack()
            assert bytes(item.content) == b"x" * size  # also behind the ack
            assert await counts(queue) == {}

    run(main())


def test_an_item_for_each_destination(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1", "a@one.example", "b@two.example", "c@one.example", "postmaster@")])
            items = await take(queue, 3)
            found = {item.destination: [each.address for each in item.recipients] for item in items}
            assert found == {
                "one.example": ["a@one.example", "c@one.example"],
                "two.example": ["b@two.example"],
                "": ["postmaster"],
            }
            assert {item.message_id for item in items} == {"ID1"}
            assert len({item.id for item in items}) == 3
            for item in items:
                assert bytes(item.content) == CONTENT
                await item.ack()
            assert await counts(queue) == {}

    run(main())


def test_retry_comes_back_when_it_is_time(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1", "a@example.org", "b@example.org")])
            (item,) = await take(queue, 1)
            item.notes["seen"] = 1
            at = time.time() + 0.3
            await item.retry(at, "greylisted", [item.recipients[1]], {"last": [451, "4.7.1"]})
            assert await counts(queue) == {"DEFERRED": 1}
            (again,) = await take(queue, 1)
            assert time.time() >= at - 0.01
            assert (again.id, again.attempts, again.reason) == (item.id, 1, "greylisted")
            assert [each.address for each in again.recipients] == ["b@example.org"]
            assert again.notes == {"seen": 1, "last": [451, "4.7.1"]}
            await again.ack()

    run(main())


def test_rejected_items_are_dead_until_somebody_retries_them(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1")])
            (item,) = await take(queue, 1)
            await item.retry(time.time(), "first")
            (item,) = await take(queue, 1)
            item.notes["why"] = "x"
            await item.reject("no such user")
            assert await counts(queue) == {"DEAD": 1}
            (dead,) = await queue.ls(State.DEAD)
            assert (dead.reason, dead.attempts, dead.notes) == ("no such user", 2, {"why": "x"})
            assert await queue.retry([dead.id]) == [dead.id]
            (item,) = await drain(queue)
            assert item.attempts == 0

    run(main())


def test_people_hold_release_and_drop(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail(f"ID{number}", f"u{number}@example.org") for number in range(3)])
            first, second, third = await queue.ls()
            assert await queue.hold([first.id, second.id]) == [first.id, second.id]
            assert await counts(queue) == {"READY": 1, "HELD": 2}
            assert await queue.hold([first.id]) == []
            (item,) = await take(queue, 1)
            assert item.id == third.id
            assert await queue.hold([item.id]) == []  # it is in hand
            assert await queue.release([first.id]) == [first.id]
            assert await queue.drop([second.id, item.id]) == [second.id, item.id]
            with pytest.raises(LeaseLostError):
                await item.ack()
            assert [item.message_id for item in await drain(queue)] == ["ID0"]
            assert await queue.drop([first.id]) == []

    run(main())


def test_ls_and_show(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1", "a@one.example", "b@two.example", content=b"x" * 100_000)])
            await queue.put([mail("ID2", "c@two.example", accepted_at=1.0)])
            assert [item.message_id for item in await queue.ls(destination="two.example")] == ["ID2", "ID1"]
            assert len(await queue.ls(limit=2)) == 2
            (one,) = await queue.ls(destination="one.example")
            assert (one.sender, one.recipients, one.size) == ("alice@example.com", ("a@one.example",), 100_000)
            assert await queue.show(one.id) == (one, b"x" * 100_000)
            shard = one.id.partition("-")[0]
            for unknown in (f"{shard}-1", "nosuchshard-1", "nonsense"):
                with pytest.raises(KeyError):
                    await queue.show(unknown)

    run(main())


def test_stats_tell_the_oldest_that_waits(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            assert (await queue.stats()).oldest is None
            await queue.put([mail("ID1", accepted_at=1000.0)])
            await queue.put([mail("ID2", accepted_at=2000.0)])
            assert (await queue.stats()).oldest == 1000.0
            (oldest, _) = await queue.ls()
            await queue.hold([oldest.id])
            assert (await queue.stats()).oldest == 2000.0

    run(main())


def test_held_back_by_its_sender(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            until = time.time() + 0.4
            await queue.put([mail("later", not_before=until), mail("now")])
            assert await counts(queue) == {"READY": 1, "DEFERRED": 1}
            assert [item.message_id for item in await take(queue, 2)] == ["now", "later"]
            assert time.time() >= until - 0.01

    run(main())


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


def test_one_mail_that_cannot_be_stored_leaves_the_others_alone(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            bad = mail("ID\ud800")
            errors = await queue.put_each([mail("ID1"), bad, mail("ID3")])
            assert [error is None for error in errors] == [True, False, True]
            assert sorted(item.message_id for item in await drain(queue)) == ["ID1", "ID3"]

    run(main())


def test_many_destinations(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            recipients = [f"x@d{number}.example" for number in range(1500)]
            await queue.put([mail("ID1", *recipients), mail("ID2", *recipients[:3])])
            items = await drain(queue)
            assert len(items) == 1503
            assert len({item.id for item in items}) == 1503
            assert await counts(queue) == {}

    run(main())


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


def test_a_put_that_is_cancelled_leaves_nothing(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("warm")])
            for pause in (0.0, 0.0005, 0.002):
                putting = asyncio.ensure_future(queue.put([mail(f"ID{number}") for number in range(50)]))
                await asyncio.sleep(pause)
                if putting.done():
                    await drain(queue)
                    continue
                putting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await putting
        async with Queue.open(url) as queue:
            assert [item.message_id for item in await drain(queue)] in (["warm"], [])

    run(main())
