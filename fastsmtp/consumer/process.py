"""One consuming process: one event loop, one queue, the user's function. TERM lets what runs finish, QUIT does not."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import uvloop

from fastsmtp.queue import Item, Queue, QueueError, describe

EXIT_OK: Final = 0
EXIT_CUT: Final = 1  # items had to be given back unfinished
EXIT_CANNOT_START: Final = 3
_log = logging.getLogger("fastsmtp.consume")


@dataclass(frozen=True, slots=True)
class Work:
    """What a process takes from where.

    Attributes:
        url: of the queue.
        concurrency: items in hand at a time.
        per_destination: of these, for one destination.
        lease: seconds.
        drain_timeout: seconds that items in hand have to end after a stop.
    """

    url: str
    concurrency: int
    per_destination: int
    lease: float
    drain_timeout: float


def run(
    work: Work, handle: Callable[[ThreadPoolExecutor], Callable[[Item], Awaitable[None]]], ready: Callable[[], None]
) -> int:
    """Consume until told to stop; returns the exit code. In the child process.

    Args:
        work: what to take.
        handle: makes what handles an item, and may use these threads.
        ready: called when the queue is open.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_main(work, handle, ready))


async def _main(
    work: Work, handle: Callable[[ThreadPoolExecutor], Callable[[Item], Awaitable[None]]], ready: Callable[[], None]
) -> int:
    told_to_stop, told_to_cut = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told_to_stop.set)
    loop.add_signal_handler(signal.SIGQUIT, told_to_cut.set)
    threads = ThreadPoolExecutor(work.concurrency, "consume")
    try:
        async with Queue.open(work.url) as queue:
            ready()
            _log.info("consuming from %s, %d items at a time", describe(work.url), work.concurrency)
            return await _consume(work, queue, handle(threads), told_to_stop, told_to_cut)
    except QueueError as error:
        _log.critical("%s", error)
        return EXIT_CANNOT_START
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


async def _consume(
    work: Work,
    queue: Queue,
    handle: Callable[[Item], Awaitable[None]],
    told_to_stop: asyncio.Event,
    told_to_cut: asyncio.Event,
) -> int:
    running: set[asyncio.Future[None]] = set()

    async def take() -> None:
        limits = {"concurrency": work.concurrency, "per_destination": work.per_destination}
        async with aclosing(queue.consume(**limits, lease=work.lease)) as items:
            async for item in items:
                task = asyncio.ensure_future(handle(item))
                running.add(task)
                task.add_done_callback(running.discard)
                del item, task  # what is handled holds the item, and nobody else

    cut = asyncio.ensure_future(told_to_cut.wait())
    stop = asyncio.ensure_future(told_to_stop.wait())
    taking = asyncio.ensure_future(take())
    await asyncio.wait((taking, stop, cut), return_when=asyncio.FIRST_COMPLETED)
    if taking.done():
        taking.result()  # it ends by an error only
    taking.cancel()
    await asyncio.wait((taking,))
    if running and not cut.done():
        finishing = asyncio.ensure_future(asyncio.wait(set(running)))
        await asyncio.wait((finishing, cut), timeout=work.drain_timeout, return_when=asyncio.FIRST_COMPLETED)
    if running:
        _log.warning("%d items were not finished, and go back to the queue", len(running))
    return EXIT_CUT if running else EXIT_OK
