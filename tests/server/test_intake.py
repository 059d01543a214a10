"""What becomes of a store's answers on their way back to the session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from fastsmtp.protocol.envelope import Message, Recipient, Sender
from fastsmtp.protocol.replies import Reply
from fastsmtp.server.columns import WIDTH
from fastsmtp.server.intake import Intake
from fastsmtp.store import StoreError
from tests.store.fakes import make_message

FULL = Reply(452, "4.3.1", "full")


def _note(told: list[str], name: str, outcome: object) -> None:
    told.append(name)


def test_a_slow_message_does_not_hold_up_those_that_came_with_it() -> None:
    told: list[str] = []

    class Remote:
        parallel_batches = 4

        async def store(self, batch: Sequence[Message]) -> Sequence[StoreError | None]:
            for message in batch:
                if message.sender.local == "slow":
                    while len(told) < 3:  # noqa: ASYNC110  # they tell by calls
                        await asyncio.sleep(0)
            return [None] * len(batch)

        def free_bytes(self) -> None:
            pass

    async def main() -> None:
        intake = Intake(Remote(), memoryview(bytearray(8 * WIDTH)).cast("Q"))
        for name in ("slow", "one", "two", "three"):
            intake.put(make_message(sender=Sender(name, "example.org")), partial(_note, told, name))
        async with asyncio.timeout(5):
            while len(told) < 4:  # noqa: ASYNC110  # likewise
                await asyncio.sleep(0)

    asyncio.run(main())
    assert told[-1] == "slow"


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        ((), FULL),
        ((None, FULL), (None, FULL)),
        ((FULL,), FULL),  # there are two recipients
        ((None, None), FULL),  # then it would be stored, and no error
    ],
)
def test_what_an_error_of_a_store_says_for_each_recipient(
    replies: tuple[Reply | None, ...], told: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A reply that is of no use is the store's bug, not the client's trouble."""
    found: list[object] = []

    class Refusing:
        async def store(self, batch: Sequence[Message]) -> Sequence[StoreError | None]:
            return [StoreError(FULL, "full", replies)]

        def free_bytes(self) -> None:
            pass

    async def main() -> None:
        message = make_message(recipients=(Recipient("bob", "example.org"), Recipient("cat", "example.org")))
        Intake(Refusing(), memoryview(bytearray(8 * WIDTH)).cast("Q")).put(message, found.append)
        async with asyncio.timeout(5):
            while not found:  # noqa: ASYNC110  # it tells by a call
                await asyncio.sleep(0)

    asyncio.run(main())
    assert found == [told]
    assert ("must be one for each" in caplog.text) is (bool(replies) and told is FULL)
