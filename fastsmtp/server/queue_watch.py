"""What waits in the queue, for the admin process: counted every few seconds, so that asking costs nothing."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Final

from ..queue import Queue, QueueError, Statistics

_INTERVAL: Final = 5.0  # seconds between two counts
_RETRY_INTERVAL: Final = 1.0  # seconds
_PATIENCE: Final = 10  # attempts to open it before the log is told
_SHARE: Final = 20  # a count that takes long is made less often: a twentieth of the time at most
_log = logging.getLogger("fastsmtp.admin")


class QueueWatch:
    """Counts while its context is open. Belongs to the event loop.

    Args:
        url: of the queue; None: the store is none, and nothing is counted.

    Attributes:
        latest: what was found last; None if nothing was found yet.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._task: asyncio.Task[None] | None = None
        self.latest: Statistics | None = None

    async def __aenter__(self) -> QueueWatch:
        if self._url is not None:
            self._task = asyncio.get_running_loop().create_task(self._watch(self._url))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _watch(self, url: str) -> None:
        failures = 0
        while True:
            try:
                await self._count(url)
            except (QueueError, OSError) as error:  # the workers have not made it yet, or it is gone
                self.latest = None
                failures += 1
                if failures == _PATIENCE:
                    _log.warning("the queue cannot be counted: %s", error)
            await asyncio.sleep(_RETRY_INTERVAL)

    async def _count(self, url: str) -> None:
        # Not made here: the files shall belong to the workers, who may be another user.
        async with Queue.open(url, create=False) as queue:
            while True:
                began = monotonic()
                self.latest = await queue.stats()
                await asyncio.sleep(max(_INTERVAL, _SHARE * (monotonic() - began)))
