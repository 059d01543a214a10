"""One delivering process: one event loop, one queue. TERM lets the attempts at hand finish, QUIT does not."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import uvloop

from fastsmtp.client import Hop, Patience
from fastsmtp.queue import Queue, QueueError

from .attempt import Attempts
from .deliverer import Deliverer, Limits
from .dkim import Signer
from .log import DeliveryLog
from .pace import Pace
from .pools import Pools
from .resolver import Resolver
from .routes import Exchangers, Relay, Routes
from .schedule import Schedule

EXIT_OK: Final = 0
EXIT_CUT: Final = 1  # items had to be given back unfinished
EXIT_CANNOT_START: Final = 3
_COUNTS_INTERVAL: Final = 60.0  # seconds between two lines with counts
_log = logging.getLogger("fastsmtp.delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a process delivers, where to and how.

    Attributes:
        url: of the queue.
        by_mx: each domain's mail goes to its own hosts.
        hop: the relay, or the pattern for those hosts.
        server: name server; None: the system's.
        name: of this machine.
        limits: how much at a time.
        schedule: when to try again.
        per_minute: messages a minute and destination; 0: no limit.
        max_received: Received fields from which on a message is in a loop.
        signers: DKIM keys.
        patience: how long to wait for hosts.
        drain_timeout: seconds that attempts have to end after a stop.
        log_format: of the lines on standard output.
    """

    url: str
    by_mx: bool
    hop: Hop
    server: tuple[str, int] | None
    name: str
    limits: Limits
    schedule: Schedule
    per_minute: float
    max_received: int
    signers: Sequence[Signer]
    patience: Patience
    drain_timeout: float
    log_format: Literal["text", "json"]

    def routes(self) -> Routes:
        """How to find the hosts; made on the loop that uses it."""
        if self.by_mx:
            return Exchangers(Resolver(self.server), self.hop, self.name)
        return Relay(self.hop)


def run(orders: Orders, ready: Callable[[], None]) -> int:
    """Deliver until told to stop; returns the exit code. In the child process.

    Args:
        orders: what to do.
        ready: called when the queue is open.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_main(orders, ready))


async def _main(orders: Orders, ready: Callable[[], None]) -> int:
    told_to_stop, told_to_cut = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told_to_stop.set)
    loop.add_signal_handler(signal.SIGQUIT, told_to_cut.set)
    log = DeliveryLog(orders.log_format)
    pools = Pools(orders.name, orders.patience)
    counting = asyncio.ensure_future(_tell_counts(log))
    try:
        async with Queue.open(orders.url) as queue:
            ready()
            attempts = Attempts(orders.routes(), pools, orders.signers, orders.max_received)
            deliverer = Deliverer(queue, attempts, orders.schedule, orders.name, log, Pace(orders.per_minute))
            return await _deliver(orders, deliverer, told_to_stop, told_to_cut)
    except QueueError as error:
        _log.critical("%s", error)
        return EXIT_CANNOT_START
    finally:
        counting.cancel()
        await pools.close()
        log.tell_counts()


async def _deliver(
    orders: Orders, deliverer: Deliverer, told_to_stop: asyncio.Event, told_to_cut: asyncio.Event
) -> int:
    taking = asyncio.ensure_future(deliverer.run(orders.limits))
    stop, cut = asyncio.ensure_future(told_to_stop.wait()), asyncio.ensure_future(told_to_cut.wait())
    await asyncio.wait((taking, stop, cut), return_when=asyncio.FIRST_COMPLETED)
    if taking.done():
        taking.result()  # it ends by an error only
    taking.cancel()
    await asyncio.wait((taking,))
    finishing = asyncio.ensure_future(deliverer.finish(orders.drain_timeout))
    await asyncio.wait((finishing, cut), return_when=asyncio.FIRST_COMPLETED)
    left = finishing.result() if finishing.done() else await deliverer.finish(0)
    if left:
        _log.warning("%d items were not finished, and go back to the queue", left)
    return EXIT_CUT if left else EXIT_OK


async def _tell_counts(log: DeliveryLog) -> None:
    while True:
        await asyncio.sleep(_COUNTS_INTERVAL)
        log.tell_counts()
