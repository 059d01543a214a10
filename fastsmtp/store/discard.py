"""The store that keeps nothing: for load tests, and for handlers that store by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastsmtp.protocol.envelope import Message

    from .contract import StoreError


class Discard:
    """Accepts every message and forgets it. The only store whose 250 promises nothing.

    Args:
        location: empty; see `check`.
        slot: the worker's slot, of no use here.
    """

    def __init__(self, location: str, slot: int) -> None:
        self.check(location)

    @staticmethod
    def check(location: str) -> None:
        """Raises ValueError unless the location is empty."""
        if location:
            raise ValueError(f"store discard:{location}: discard: takes no location")

    @staticmethod
    def describe(location: str) -> str:
        return "nowhere (accepted mail is discarded)"

    async def __aenter__(self) -> Discard:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def store(self, batch: Sequence[Message]) -> Sequence[StoreError | None]:
        """Answers None for every message, at once."""
        return [None] * len(batch)

    def free_bytes(self) -> None:
        """Nothing takes no room."""
