"""The queue: mail that was accepted and is to be delivered, or handled, by somebody else (see docs/queue.md)."""

from __future__ import annotations

from .contract import Item, LeaseLostError, Mail, QueueError, State, Statistics, Summary
from .queue import Queue
from .schemes import check_url, describe, is_queue
from .verdicts import Reject, Retry

__all__ = [
    "Item",
    "LeaseLostError",
    "Mail",
    "Queue",
    "QueueError",
    "Reject",
    "Retry",
    "State",
    "Statistics",
    "Summary",
    "check_url",
    "describe",
    "is_queue",
]
