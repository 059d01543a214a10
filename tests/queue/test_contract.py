"""What every queue promises, on both engines (fastsmtp/queue/contract.py)."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from fastsmtp.protocol.envelope import DeliverBy, Recipient, Sender
from fastsmtp.queue import Item, LeaseLostError, Mail, Queue, State
from tests.queue.mails import CONTENT, counts, drain, mail, run, take


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


def test_a_mail_for_nobody_is_refused(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            errors = await queue.put_each([Mail(Sender("a", "b.example"), [], CONTENT, "ID1"), mail("ID2")])
            assert [error is None for error in errors] == [False, True]
            assert len(await drain(queue)) == 1

    run(main())


def test_a_retry_for_nobody_is_an_ack(url: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("ID1")])
            (item,) = await take(queue, 1)
            await item.retry(time.time(), "none is left", [])
            assert await counts(queue) == {}

    run(main())
