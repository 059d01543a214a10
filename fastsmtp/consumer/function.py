"""The user's function and one item: how it is called, and what follows from what it says."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from fastsmtp.queue import Item, LeaseLostError, QueueError, Reject, Retry

_log = logging.getLogger("fastsmtp.consume")
_MAX_REASON: Final = 500  # characters of an error that are kept with the item
_PUT_OFF: Final = "fastsmtp.put_off"  # in an item's notes: how often the function has raised Retry

Function = Callable[[Item], Awaitable[None] | None]
"""Handles an item: returning is success; it may raise `Retry` or `Reject`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of items that fail.

    Attributes:
        max_attempts: attempts that may fail with an error before an item is given up.
        retry_delay: seconds before the second attempt; it doubles with each.
        max_retry_delay: seconds, the longest delay.
    """

    max_attempts: int = 10
    retry_delay: float = 10.0
    max_retry_delay: float = 3600.0

    def delay(self, attempts: int) -> float:
        """Seconds until the next attempt, behind so many before this one: never the same for all that failed."""
        return min(self.retry_delay * 2.0 ** min(attempts, 30), self.max_retry_delay) * random.uniform(0.5, 1.0)


class Caller:
    """Calls the function and ends the item.

    Args:
        function: the user's.
        threads: run it, if it is no coroutine function.
        policy: for items that fail.
    """

    def __init__(self, function: Function, threads: Executor, policy: Policy) -> None:
        self._function = function
        self._threads = threads
        self._policy = policy
        call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
        self._is_async = inspect.iscoroutinefunction(call)

    async def handle(self, item: Item) -> None:
        """Calls the function for an item; returns when the queue knows what became of it, or cannot be told."""
        try:
            await self._decide(item)
        except LeaseLostError as error:
            _log.warning("%s", error)
        except QueueError as error:
            _log.error("item %s will be handled again: %s", item.id, error)

    async def _decide(self, item: Item) -> None:
        failed = _failed_attempts(item)
        if failed >= self._policy.max_attempts:  # its consumers died, so nobody could say so
            await self._give_up(item, f"{failed} attempts failed: {item.reason}")
            return
        try:
            await self._call(item)
        except Retry as verdict:
            put_off = {_PUT_OFF: item.notes.get(_PUT_OFF, 0) + 1}
            await item.retry(self._when(item, verdict), verdict.reason, notes=put_off)
        except Reject as verdict:
            await self._give_up(item, verdict.reason)
        except Exception as error:
            await self._failed(item, error)
        else:
            await item.ack()

    async def _call(self, item: Item) -> None:
        if self._is_async:
            result = self._function(item)
        else:
            result = await asyncio.get_running_loop().run_in_executor(self._threads, self._function, item)
        if inspect.isawaitable(result):  # also of a `def` that hands on what an `async def` returns
            await result

    def _when(self, item: Item, verdict: Retry) -> float:
        if verdict.at is not None:
            return verdict.at
        return time.time() + (self._policy.delay(item.attempts) if verdict.delay is None else verdict.delay)

    async def _failed(self, item: Item, error: Exception) -> None:
        _log.error("item %s (message %s) failed", item.id, item.message_id, exc_info=error)
        reason = f"{type(error).__name__}: {error}"[:_MAX_REASON]
        failed = _failed_attempts(item) + 1
        if failed >= self._policy.max_attempts:
            await self._give_up(item, f"{failed} attempts failed: {reason}")
        else:
            await item.retry(time.time() + self._policy.delay(failed - 1), reason)

    async def _give_up(self, item: Item, reason: str) -> None:
        _log.error("item %s (message %s) goes to the dead letters: %s", item.id, item.message_id, reason)
        item.notes.pop(_PUT_OFF, None)  # who has it tried again from the dead letters begins anew
        await item.reject(reason)


def _failed_attempts(item: Item) -> int:
    """Those before this one that ended in an error, or with their process; a Retry is none."""
    put_off: int = item.notes.get(_PUT_OFF, 0)
    return item.attempts - put_off
