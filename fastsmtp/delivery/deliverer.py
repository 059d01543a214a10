"""Takes items from a queue, makes an attempt at each, and settles it: done, again later, or back to its sender.

What it guarantees: an item leaves the queue when each of its recipients has been taken by a next hop, or its sender has
been told, or nobody is to be told. The report is in the queue before the item leaves it, so a crash in between brings a
second report, and one between the hop's 250 and that brings a second copy; neither loses anything.

What it assumes: one event loop. Any number of processes, on any number of machines, may work on one queue.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fastsmtp.client.responses import local_response
from fastsmtp.protocol.envelope import Recipient, Sender
from fastsmtp.queue import LeaseLostError, Mail, QueueError

from .attempt import Attempts
from .fate import Action, Fate
from .log import DeliveryLog
from .pace import Pace
from .reports import Report
from .schedule import Schedule

if TYPE_CHECKING:
    from fastsmtp.queue import Item, Queue

_log = logging.getLogger("fastsmtp.delivery")
_OUR_FAULT: Final = local_response(451, "4.3.0", "an error of ours")
_TOLD: Final = "delay_told"  # in an item's notes: the sender has heard of the delay


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at a time.

    Attributes:
        concurrency: items in hand.
        per_destination: of these, for one domain.
        lease: seconds after which another process may have the items of one that died.
    """

    concurrency: int = 100
    per_destination: int = 5
    lease: float = 300.0


class Deliverer:
    """Delivers the mail of one queue.

    Args:
        queue: where the mail is, and where reports go.
        attempts: makes attempts.
        schedule: when to try again, and how often.
        name: of this machine, for reports.
        log: notes what happens.
        pace: how fast, for one destination.
    """

    def __init__(
        self, queue: Queue, attempts: Attempts, schedule: Schedule, name: str, log: DeliveryLog, pace: Pace
    ) -> None:
        self._queue = queue
        self._attempts = attempts
        self._schedule = schedule
        self._name = name
        self._log = log
        self._pace = pace
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, limits: Limits) -> None:
        """Works until it is cancelled. Items in hand go on; see `finish`."""
        items = self._queue.consume(
            concurrency=limits.concurrency, per_destination=limits.per_destination, lease=limits.lease
        )
        async with aclosing(items):
            async for item in items:
                task = asyncio.get_running_loop().create_task(self.deliver(item))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                del item, task  # the lease goes on as long as somebody has the item: that is the task alone

    async def finish(self, patience: float) -> int:
        """Waits for the items in hand; returns how many were given up, which their leases bring back.

        Args:
            patience: seconds.
        """
        if not self._tasks:
            return 0
        _, left = await asyncio.wait(self._tasks, timeout=patience)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    async def deliver(self, item: Item) -> None:
        """One attempt at one item, and what follows from it. Never raises."""
        fates: Sequence[Fate] = ()
        try:
            await self._pace.wait(item.destination)
            began = time.monotonic()
            fates = await self._attempt(item)
            fates = self._aged(item, fates)
            self._log.attempt(item, fates, time.monotonic() - began)
            await self._settle(item, fates)
        except LeaseLostError as error:
            _log.warning("message %s: %s", item.message_id, error)
        except QueueError as error:
            _log.error("message %s, item %s will be delivered again: %s", item.message_id, item.id, error)
            await self._put_off(item, fates)
        except Exception:
            _log.exception("message %s, item %s: could not be settled", item.message_id, item.id)
            await self._put_off(item, fates)

    async def _put_off(self, item: Item, fates: Sequence[Fate]) -> None:
        """Lets go of an item: as long as we seem to have it, nobody else gets it.

        Who has the message does not get it again; better that a report of success is lost than a copy every time.
        """
        left: list[Recipient] | None = [fate.recipient for fate in fates if not fate.is_done] if fates else None
        with suppress(QueueError):
            await item.retry(time.time() + self._schedule.first, _OUR_FAULT.text, left)

    async def _attempt(self, item: Item) -> list[Fate]:
        try:
            return await self._attempts.make(item)
        except Exception:
            _log.exception("message %s, item %s: the attempt failed", item.message_id, item.id)
            return [Fate(recipient, _OUR_FAULT) for recipient in item.recipients]

    def _aged(self, item: Item, fates: list[Fate]) -> list[Fate]:
        """The fates of an item, which is given up if it is too old."""
        if time.time() < self._schedule.expires(item.accepted_at, item.sender):
            return fates
        return [_expired(fate) if fate.is_deferred else fate for fate in fates]

    # -- what follows -------------------------------------------------------------------------------------------------

    async def _settle(self, item: Item, fates: Sequence[Fate]) -> None:
        now = time.time()
        expires = self._schedule.expires(item.accepted_at, item.sender)
        left = [fate for fate in fates if fate.is_deferred]
        told = bool(item.notes.get(_TOLD))
        late = bool(left) and not told and now >= self._schedule.notice_due(item.accepted_at, item.sender)
        await self._report(item, _grouped(fates, late), now, expires)
        if not left:
            await item.ack()
            return
        at = self._schedule.next(item.attempts + 1, now, expires, random.random())
        recipients: list[Recipient] = [fate.recipient for fate in left]
        await item.retry(at, left[0].explanation, recipients, {_TOLD: told or late})

    async def _report(self, item: Item, groups: dict[Action, list[Fate]], now: float, expires: float) -> None:
        """Puts reports into the queue. The null sender is never told anything (RFC 5321 4.5.5)."""
        if item.sender.is_null:
            for fate in groups.get("failed", ()):
                _log.warning("message %s for %s: dropped, it has no sender", item.message_id, fate.recipient)
            return
        mails = [self._mail(item, action, fates, now, expires) for action, fates in groups.items()]
        if mails:
            await self._queue.put(mails)
            self._log.counts["reports"] += len(mails)

    def _mail(self, item: Item, action: Action, fates: list[Fate], now: float, expires: float) -> Mail:
        report = Report(
            action,
            fates,
            item.sender,
            item.message_id,
            item.content,
            item.accepted_at,
            expires if action == "delayed" else None,
        )
        report_id = f"{item.message_id}.{action}.{item.id}.{item.attempts}"
        content = report.encode(self._name, report_id, now)
        body = None if content.isascii() else "8BITMIME"
        sender = Sender("", "", body=body, smtputf8=item.sender.smtputf8, require_tls=item.sender.require_tls)
        # Nobody waits for a report on a report.
        recipient = Recipient(item.sender.local, item.sender.domain, notify=("NEVER",))
        return Mail(sender, [recipient], content, report_id)


def _grouped(fates: Sequence[Fate], late: bool) -> dict[Action, list[Fate]]:
    """Who is to be told of what; what the next hop tells is not told twice."""
    groups: dict[Action, list[Fate]] = defaultdict(list)
    for fate in fates:
        if fate.is_failed and fate.wants("FAILURE"):
            groups["failed"].append(fate)
        elif fate.is_deferred and late and fate.wants("DELAY"):
            groups["delayed"].append(fate)
        elif fate.is_done and fate.wants("SUCCESS") and not fate.told_on:
            groups["delivered" if fate.hop and fate.hop.lmtp else "relayed"].append(fate)
    return groups


def _expired(fate: Fate) -> Fate:
    """Too late: what was temporary is final (RFC 3463 3.5, X.4.7), and the sender hears the last answer."""
    last = fate.response
    response = local_response(554, "5.4.7", f"delivery time expired; last answer: {last}")
    return replace(fate, response=response, reason=f"delivery time expired; last answer: {fate.explanation}")
