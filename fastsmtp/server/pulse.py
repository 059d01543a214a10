"""What a worker's event loop tells of itself once a second: that it turns, how late it is, and what is in use."""

from __future__ import annotations

import asyncio
import os
import resource
from time import monotonic, process_time
from typing import Final

from .columns import (
    CPU_US,
    HOOKS_PENDING,
    LOOP_DELAY_SECONDS,
    LOOP_LAG_US,
    MAIL_REFUSED,
    OPEN_CONNECTIONS,
    RSS_BYTES,
    STAMP,
    STRESSED,
    THREADS,
    THREADS_BUSY,
)
from .reception import Reception
from .scoreboard import Row

_INTERVAL: Final = 1.0  # seconds


class Pulse:
    """Writes the gauges of a worker's row. A beat takes 20 us."""

    def __init__(self, loop: asyncio.AbstractEventLoop, row: Row, reception: Reception) -> None:
        self._loop = loop
        self._cells = row.cells
        self._reception = reception
        self._pool = reception.dispatcher.pool
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._due = monotonic()
        self._cpu_us = 0  # that are in the books
        self._timer: asyncio.Handle = loop.call_soon(self._beat)

    def stop(self) -> None:
        """The worker ends: gauges stay as they are. The stamp goes on until the loop is closed.

        The store's end and that of the application may take longer than a hanging loop is given.
        """
        self._timer.cancel()
        os.close(self._statm)
        self._stamp()

    def _stamp(self) -> None:
        self._cells[STAMP] = int(monotonic() * 1000)
        self._timer = self._loop.call_later(_INTERVAL, self._stamp)

    def _beat(self) -> None:
        now, cells, entrances = monotonic(), self._cells, self._reception.entrances
        cells[STAMP] = int(now * 1000)
        self._reception.books.count()
        lag, cpu_us = max(0.0, now - self._due), int(process_time() * 1e6)
        cells[LOOP_LAG_US] = int(lag * 1e6)
        LOOP_DELAY_SECONDS.observe(cells, lag)
        cells[CPU_US] += cpu_us - self._cpu_us
        self._cpu_us = cpu_us
        cells[OPEN_CONNECTIONS] = len(self._reception.connections)
        cells[HOOKS_PENDING] = self._pool.pending
        cells[THREADS_BUSY] = self._pool.busy
        cells[THREADS] = self._reception.config.threads
        cells[RSS_BYTES] = int(os.pread(self._statm, 128, 0).split()[1]) * resource.getpagesize()
        cells[STRESSED] = any(entrance.stressed for entrance in entrances)
        cells[MAIL_REFUSED] = any(entrance.service.mail_refusal is not None for entrance in entrances)
        self._due = now + _INTERVAL
        self._timer = self._loop.call_later(_INTERVAL, self._beat)
