"""The thread pool of a worker, where `def` hooks run and may block.

Guarantees: never more than `threads` hooks run and never more than `max_pending` are accepted at a time; jobs start in
the order in which they came; completions reach the loop in batches, one wake-up for many. A job that raises is the
job's bug: `run` must not.

Many threads taking turns cost more than few hot ones (cold caches, fights for the GIL), so a job goes to a thread that
is awake, if there is one; another thread is woken only for a job that has waited for a millisecond. Idle threads form
a stack: the one that worked last is the warmest.

When the replies of a turn have left and the threads have their jobs, the loop waits for them, a third of a millisecond
at the most: quick hooks come back in the turn that sent them, without a way through the loop's poll, 10-20 % less CPU a
message. Where it has waited in vain it goes on at once for more and more turns.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

_PATIENCE: Final = 0.001  # seconds that a job waits for a thread that is awake
_CROWDED_PATIENCE: Final = 0.02  # seconds until the next look, where no other thread may be awake
_MOMENT: Final = 0.0003  # seconds that the loop waits for hooks that it has just sent
_MOST_IN_VAIN: Final = 63  # turns that it goes on at once when they do not come back


class Job(Protocol):
    """Something to be done in a thread."""

    def run(self) -> None:
        """The work; in a pool thread. Must not raise."""

    def finish(self) -> None:
        """What follows; on the loop."""


class ThreadPool:
    """A bounded pool with a bounded queue. Its methods are for the loop's thread.

    Args:
        loop: where completions go.
        threads: how many jobs may run at the same time.
        max_pending: how many jobs may be queued or running.
        at_end_of_turn: has a call made when this turn of the loop has nothing else to do. A thread that is woken
            earlier fights the loop for the GIL at every callback: 20 % more CPU for a session with one message.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: int,
        max_pending: int,
        at_end_of_turn: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._loop = loop
        self._at_end_of_turn = at_end_of_turn or loop.call_soon
        self._ringing = False
        self._threads = threads
        self._allowed = threads  # may be awake
        self._max_pending = max_pending
        self._pending = 0  # submitted and not finished
        self._started = 0
        self._stuck = 0  # threads that hold a job nobody waits for any more
        self._checking = False
        # shared with the threads; deque operations are atomic
        self._jobs: deque[Job] = deque()
        self._done: deque[Job] = deque()
        self._idle: deque[threading.Lock] = deque()
        self._dismissed: deque[None] = deque()  # one for each thread that is to end
        self._signalled = False
        # The loop waits for a moment; who takes the token ends that.
        self._waits: deque[None] = deque()
        self._back = threading.Lock()
        self._back.acquire()
        self._rushes = 0  # turns in which the loop does not wait, for it has waited in vain
        self._in_vain = 0

    @property
    def pending(self) -> int:
        """Jobs that are queued or running."""
        return self._pending

    @property
    def busy(self) -> int:
        """Threads that are not idle, about."""
        return max(0, self._started - len(self._idle))

    @property
    def _awake(self) -> int:
        """Threads that are at work, or look for some; not counted those whose job nobody waits for."""
        return self._started - len(self._idle) - self._stuck

    @property
    def waiting(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._jobs)

    @property
    def threads(self) -> int:
        """How many jobs may run at the same time."""
        return self._threads

    @property
    def is_full(self) -> bool:
        """Whether there are as many jobs as there may be."""
        return self._pending >= self._max_pending

    def submit(self, job: Job) -> None:
        """Queue a job. The caller has seen that the pool is not full, or takes it upon itself."""
        self._pending += 1
        self._jobs.append(job)
        if not self._ringing:
            self._ringing = True
            self._at_end_of_turn(self._ring)

    def _ring(self) -> None:
        """See that somebody takes the jobs of this turn."""
        self._ringing = False
        if len(self._idle) == self._started:  # nobody is awake
            self._wake()
        if self._rushes:
            self._rushes -= 1
        elif self._wait():
            return
        if self._jobs and not self._checking:
            self._checking = True
            self._loop.call_later(_PATIENCE, self._check)

    def _wait(self) -> bool:
        """Wait for a moment, for quick hooks to come back in the turn that sent them; returns whether all have."""
        self._waits.append(None)
        came = self._back.acquire(timeout=_MOMENT)
        if not came:
            try:
                self._waits.pop()
            except IndexError:  # a thread has the token, and is about to ring
                came = self._back.acquire()
        self._in_vain = 0 if came else min(2 * self._in_vain + 1, _MOST_IN_VAIN)
        self._rushes = self._in_vain
        self._finish()  # behind the token's end: a thread that still saw it has left its job there
        return came and not self._jobs

    def allow(self, threads: int) -> None:
        """So many threads may be awake from now on; others go to sleep when they have done their job."""
        self._allowed = threads

    @property
    def _most(self) -> int:
        """How many threads there may be: stuck ones are replaced, but not without end."""
        return self._threads + min(self._stuck, self._threads)

    def give_up(self) -> None:
        """A running job is not waited for any more: another thread may take the place of its own."""
        self._stuck += 1

    def recover(self) -> None:
        """A job that was given up has returned: if another thread took its place, one is too many now."""
        self._stuck = max(self._stuck - 1, 0)
        if self._started > self._most:
            self._started -= 1
            self._dismissed.append(None)
            if self._idle:
                self._idle.pop().release()

    def close(self) -> None:
        """The worker ends: so does each thread, when it has nothing to do."""
        self._threads = self._stuck = 0
        while self._started:
            self._started -= 1
            self._dismissed.append(None)
            if self._idle:
                self._idle.pop().release()

    def _check(self) -> None:
        """Wake a thread for each job that nobody has taken."""
        waiting = len(self._jobs)
        crowded = False
        for _ in range(waiting):
            crowded = self._awake >= self._allowed
            if crowded or not self._wake():
                break
        self._checking = waiting > 0
        if self._checking:
            self._loop.call_later(_CROWDED_PATIENCE if crowded else _PATIENCE, self._check)

    def _wake(self) -> bool:
        try:
            self._idle.pop().release()
        except IndexError:
            if self._started >= self._most:
                return False
            self._started += 1
            threading.Thread(target=self._work, name=f"hook-{self._started}", daemon=True).start()
        return True

    def _work(self) -> None:
        """The life of a thread."""
        jobs, idle, done = self._jobs, self._idle, self._done
        bell = threading.Lock()
        bell.acquire()
        while True:
            if self._dismissed:
                with suppress(IndexError):
                    self._dismissed.pop()
                    return
            try:
                job = jobs.popleft()
            except IndexError:
                idle.append(bell)
                # A job that came before the bell was hung up rang nobody: look again.
                if jobs:
                    try:
                        idle.remove(bell)
                        continue
                    except ValueError:  # rung in the meantime
                        pass
                bell.acquire()
                continue
            job.run()
            done.append(job)
            del job  # an idle thread must not keep the last session alive
            crowded = self._awake > self._allowed
            if not self._tell(bool(jobs) and not crowded):
                return
            if crowded:  # jobs that are left over are seen to: `_check` looks for them while there are any
                idle.append(bell)
                bell.acquire()

    def _tell(self, more: bool) -> bool:
        """In a thread: see that the loop hears of what is done, later if there is `more`; returns whether it can."""
        if more and self._waits:
            return True
        try:
            self._waits.pop()
        except IndexError:
            pass
        else:
            self._back.release()
            return True
        if not self._signalled:
            self._signalled = True
            try:
                self._loop.call_soon_threadsafe(self._finish)
            except RuntimeError:  # the loop is closed: the worker is on its way out
                return False
        return True

    def _finish(self) -> None:
        self._signalled = False
        while self._done:
            job = self._done.popleft()
            self._pending -= 1
            job.finish()
