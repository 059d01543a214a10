"""How long a thread may keep the interpreter from the event loop: little, while hooks compute; else as Python has it.

A thread that wants the interpreter asks for it after the switch interval, 5 ms by itself. With eight threads that
compute, the loop waits for its turn eight times that, several times for each command: tens to hundreds of milliseconds.
So while hooks compute fewer threads are awake (see `crowd`), and the interval is such that all of them together take
1.25 ms. Less costs throughput, for each change takes time from the hooks: with one thread the loop got the interpreter
670 times a second at 2.5 ms, and took 8 % of a CPU, 1560 times at 1 ms for 12 %, and 2190 times at 0.5 ms for 21 %.
Where hooks only wait, a short interval has threads interrupt the loop in the middle of its turn, which makes a message
with thread hooks 10 to 20 % dearer. So it is for the time in which it is needed: when the loop is late while other
threads use the CPU. Whether it still is cannot be seen while it works, for then the loop is not late; so it ends when
the threads are quiet, and is tried without from time to time.

Runs on the loop.
"""

from __future__ import annotations

import asyncio
import sys
from time import monotonic, process_time, thread_time
from typing import TYPE_CHECKING, Final

from .crowd import Crowd

if TYPE_CHECKING:
    from .threads import ThreadPool

TURN: Final = 0.00125  # seconds that all threads together keep the loop waiting
SHORTEST: Final = 0.0003  # seconds; shorter ones take more time for changing than for work
_CALM: Final = 0.005  # seconds; Python's own
_INTERVAL: Final = 0.25  # seconds between two looks; one takes 3 us
_LATE: Final = 0.008  # seconds of lag
_BUSY, _QUIET = 0.5, 0.3  # parts of a CPU that threads other than the loop's use
_LOOKS: Final = 2  # in a row that have to agree
_CALM_LOOKS: Final = 4
_TRY_AGAIN: Final = 60.0  # seconds


class Switching:
    """Chooses the switch interval of a worker, and how many of its threads may be awake.

    Args:
        loop: the worker's.
        interval: seconds, for good; None chooses.
        pool: the worker's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float | None, pool: ThreadPool) -> None:
        self._loop = loop
        self._pool = pool
        self._crowd = Crowd(pool.threads)
        self._timer: asyncio.TimerHandle | None = None
        self._is_quick = False
        self._agreed = 0  # looks in a row that speak for a change
        self._since = self._due = monotonic()
        self._used = process_time()
        self._others = self._used - thread_time()  # CPU seconds of other threads
        sys.setswitchinterval(_CALM if interval is None else interval)
        if interval is None:
            self._look()

    def stop(self) -> None:
        """The worker ends."""
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
        now, used = monotonic(), process_time()
        others = used - thread_time()
        lag = now - self._due
        passed = lag + _INTERVAL
        self.judge(lag, (others - self._others) / passed, now)
        if self._is_quick:
            self._limit(self._crowd.judge((used - self._used) / passed, self._pool.waiting > 0))
        self._used, self._others, self._due = used, others, now + _INTERVAL
        self._timer = self._loop.call_later(_INTERVAL, self._look)

    def judge(self, lag: float, busy: float, now: float) -> None:
        """Change if enough looks agree.

        Args:
            lag: seconds that the loop is late.
            busy: the part of a CPU that other threads have used since the last look.
            now: by the monotonic clock.
        """
        speaks_for_it = busy < _QUIET if self._is_quick else lag >= _LATE and busy >= _BUSY
        self._agreed = self._agreed + 1 if speaks_for_it else 0
        if self._is_quick:
            if self._agreed >= _CALM_LOOKS or now >= self._since + _TRY_AGAIN:
                self._change(False, now)
        elif self._agreed >= _LOOKS:
            self._change(True, now)

    def _change(self, quick: bool, now: float) -> None:
        self._is_quick, self._since, self._agreed = quick, now, 0
        self._crowd = Crowd(self._pool.threads)
        if quick:
            self._limit(self._pool.threads)
        else:
            self._pool.allow(self._pool.threads)
            sys.setswitchinterval(_CALM)

    def _limit(self, threads: int) -> None:
        self._pool.allow(threads)
        sys.setswitchinterval(max(TURN / threads, SHORTEST))
