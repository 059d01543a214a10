"""What becomes of a store's answers on their way back to the session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fastsmtp.protocol.envelope import Message, Recipient
from fastsmtp.protocol.replies import Reply
from fastsmtp.server.columns import WIDTH
from fastsmtp.server.intake import Intake
from fastsmtp.store import StoreError
from tests.store.fakes import make_message

FULL = Reply(452, "4.3.1", "full")


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
