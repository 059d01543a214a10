"""What a lease does when its queue cannot be reached for a moment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from fastsmtp.protocol.replies import TEMPORARY_FAILURE
from fastsmtp.queue import Queue, QueueError
from fastsmtp.queue.leases import Lease
from fastsmtp.queue.shard import Outcome, Shard
from tests.queue.mails import mail, run, take


class Restarting:
    """A shard that cannot be reached at first."""

    name = "0"

    def __init__(self, failures: int) -> None:
        self.told = 0
        self._failures = failures

    async def finish(self, outcome: Outcome) -> bool:
        self.told += 1
        if self.told <= self._failures:
            raise QueueError(TEMPORARY_FAILURE, "the database restarts")
        return True


def _lease(shard: Restarting, seconds: float, ended: list[Any]) -> Lease:
    return Lease(cast(Shard, shard), 1, 1, seconds, ended.append)


def test_what_was_done_is_said_until_the_queue_hears_it() -> None:
    shard, ended = Restarting(3), list[Any]()
    run(_lease(shard, 30, ended).ack())
    assert shard.told == 4
    assert len(ended) == 1


def test_when_the_lease_is_over_nobody_waits_any_more() -> None:
    shard, ended = Restarting(1000), list[Any]()
    with pytest.raises(QueueError, match="restarts"):
        run(_lease(shard, 0.5, ended).ack())
    assert 2 <= shard.told < 10
    assert len(ended) == 1


def test_what_is_said_behind_the_end_of_the_queue_is_an_error_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with Queue.open(f"queue:{tmp_path}/queue", slot=0) as queue:
            await queue.put([mail("late")])
            (item,) = await take(queue, 1)
        async with asyncio.timeout(5):
            with pytest.raises(QueueError):
                await item.ack()

    run(main())
