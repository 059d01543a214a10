"""Handlers of single scenarios; those that accept everything are in `loadtest.bench_app`.

fastsmtp serve loadtest.bench.handlers:BusyHook --listen 127.0.0.1:2525 --workers 2
"""

from __future__ import annotations

import time
from typing import Final

from fastsmtp import REJECT, Handler, Message, Recipient, Session
from fastsmtp.protocol.events import Verdict

BUSY_SECONDS: Final = 0.005  # CPU time of the thread


class RefusingHooks(Handler):
    """Every recipient is unknown."""

    async def rcpt(self, session: Session, recipient: Recipient) -> Verdict:
        return REJECT


class BusyHook(Handler):
    """A content filter in pure Python: burns 5 ms of CPU for each message, in the thread pool."""

    def data(self, session: Session, message: Message) -> None:
        until = time.thread_time() + BUSY_SECONDS
        while time.thread_time() < until:
            sum(range(500))
