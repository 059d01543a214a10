"""The thread pool: its order, its bounds, its batches, and what a stuck job costs. Real threads on a real loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine

import pytest

from fastsmtp.server.threads import ThreadPool

LIMIT = 10.0  # seconds for anything


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110  # threads do not set events of a loop
            await asyncio.sleep(0.001)


class Job:
    """Notes when it runs and finishes; it may stand at a gate meanwhile."""

    def __init__(self, bench: Bench, name: str, gate: threading.Event | None = None) -> None:
        self._bench = bench
        self._gate = gate
        self.name = name
        self.running = False
        self.finished = False
        self.thread = ""

    def run(self) -> None:
        bench = self._bench
        with bench.lock:
            bench.started.append(self.name)
            bench.at_once += 1
            bench.most_at_once = max(bench.most_at_once, bench.at_once)
        self.running = True
        self.thread = threading.current_thread().name
        if self._gate:
            assert self._gate.wait(LIMIT)
        with bench.lock:
            bench.at_once -= 1

    def finish(self) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.finished = True
        self._bench.finished.append(self.name)


class _Loop:
    """The loop as the pool sees it; counts how often a thread wakes it, and may say that it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.wake_ups = 0
        self.closed = False
        self.call_soon, self.call_later = loop.call_soon, loop.call_later

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self.wake_ups += 1
        closed = self.closed  # looked at before the loop learns of it: it may close behind this very completion
        self._loop.call_soon_threadsafe(callback)
        if closed:
            raise RuntimeError


class Bench:
    """A pool under test."""

    def __init__(self, threads: int, max_pending: int = 1000) -> None:
        self.lock = threading.Lock()
        self.started: list[str] = []
        self.finished: list[str] = []
        self.at_once = self.most_at_once = 0
        self.gates: list[threading.Event] = []
        self.loop = _Loop(asyncio.get_running_loop())
        self.pool = ThreadPool(self.loop, threads, max_pending)  # type: ignore[arg-type]  # a fake of what it needs

    def submit(self, name: str, gate: threading.Event | None = None) -> Job:
        job = Job(self, name, gate)
        self.pool.submit(job)
        return job

    def gate(self) -> threading.Event:
        gate = threading.Event()
        self.gates.append(gate)
        return gate

    async def close(self) -> None:
        for gate in self.gates:
            gate.set()
        await _until(lambda: self.pool.pending == 0)
        self.pool.close()
        await _until(lambda: _hook_threads() == 0)  # none may outlive a test


def _hook_threads() -> int:
    return sum(thread.name.startswith("hook-") for thread in threading.enumerate())


def _run(test: Callable[[Bench], Awaitable[None]], threads: int, max_pending: int = 1000) -> None:
    async def main() -> None:
        bench = Bench(threads, max_pending)
        try:
            await test(bench)
        finally:
            await bench.close()

    work: Coroutine[object, object, None] = main()
    asyncio.run(work)


def test_jobs_start_in_the_order_in_which_they_came() -> None:
    async def test(bench: Bench) -> None:
        names = [f"job {number}" for number in range(200)]
        for name in names:
            bench.submit(name)
        await _until(lambda: bench.pool.pending == 0)
        assert bench.started == names
        assert bench.finished == names

    _run(test, threads=1)


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_jobs_run_than_there_are_threads(threads: int) -> None:
    async def test(bench: Bench) -> None:
        gate = bench.gate()
        jobs = [bench.submit(str(number), gate) for number in range(10)]
        await _until(lambda: bench.at_once == threads)
        for _ in range(20):  # the pool looks for jobs that wait every millisecond
            await asyncio.sleep(0.001)
        assert bench.at_once == threads
        assert sum(job.running for job in jobs) == threads
        gate.set()
        await _until(lambda: all(job.finished for job in jobs))
        assert bench.most_at_once == threads

    _run(test, threads)


def test_pending_and_full() -> None:
    async def test(bench: Bench) -> None:
        gate = bench.gate()
        assert (bench.pool.pending, bench.pool.is_full) == (0, False)
        bench.submit("one", gate)
        assert (bench.pool.pending, bench.pool.is_full) == (1, False)
        bench.submit("two", gate)
        assert (bench.pool.pending, bench.pool.is_full) == (2, True)
        gate.set()
        await _until(lambda: bench.pool.pending == 0)
        assert not bench.pool.is_full

    _run(test, threads=1, max_pending=2)


def test_completions_come_in_batches() -> None:
    async def test(bench: Bench) -> None:
        gate = bench.gate()
        jobs = [bench.submit(str(number), gate) for number in range(100)]
        await _until(lambda: jobs[0].running)
        gate.set()
        end = time.monotonic() + LIMIT
        while not all(job.running for job in jobs):  # the loop is busy meanwhile, that is: here
            assert time.monotonic() < end
        await _until(lambda: bench.pool.pending == 0)
        assert bench.loop.wake_ups <= 2  # the last job may still have been on its way

    _run(test, threads=1)


def test_a_job_that_waits_wakes_another_thread() -> None:
    async def test(bench: Bench) -> None:
        slow = bench.submit("slow", bench.gate())
        quick = bench.submit("quick")
        await _until(lambda: quick.finished)
        assert not slow.finished

    _run(test, threads=2)


def test_a_stuck_job_gets_another_thread() -> None:
    async def test(bench: Bench) -> None:
        stuck = bench.submit("stuck", bench.gate())
        await _until(lambda: stuck.running)
        waiting = bench.submit("waiting")
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not waiting.running
        bench.pool.give_up()
        await _until(lambda: waiting.finished)
        assert not stuck.finished

    _run(test, threads=1)


def test_stuck_jobs_are_replaced_up_to_the_number_of_threads() -> None:
    async def test(bench: Bench) -> None:
        for number in range(6):
            job = bench.submit(f"stuck {number}", bench.gate())
            for _ in range(20):
                await asyncio.sleep(0.001)
            if job.running:
                bench.pool.give_up()
        assert bench.most_at_once == 4

    _run(test, threads=2)


def test_stuck_jobs_beyond_that_number_are_not_forgotten() -> None:
    """One of them returns: the others still hold as many threads as may be replaced."""

    async def test(bench: Bench) -> None:
        stuck = []
        for number in range(4):
            stuck.append(bench.submit(f"stuck {number}", bench.gate()))
            await _until(lambda: stuck[-1].running)
            bench.pool.give_up()
        bench.gates[0].set()
        await _until(lambda: stuck[0].finished)
        bench.pool.recover()
        other = bench.submit("other")
        await _until(lambda: other.finished)

    _run(test, threads=2)


def test_a_stuck_job_that_returns_leaves_the_pool_as_large_as_it_was() -> None:
    """threads.py: never more than `threads` hooks run at a time; a stuck one may be one more."""

    async def test(bench: Bench) -> None:
        stuck = bench.submit("stuck", bench.gate())
        await _until(lambda: stuck.running)
        bench.pool.give_up()
        other = bench.submit("other")
        await _until(lambda: other.finished)
        bench.gates[0].set()
        await _until(lambda: stuck.finished)
        bench.pool.recover()
        bench.most_at_once = 0
        gate = bench.gate()
        for number in range(4):
            bench.submit(f"later {number}", gate)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert bench.most_at_once == 1

    _run(test, threads=1)


def test_a_burst_of_jobs_from_an_idle_pool_is_done() -> None:
    """Threads that fall asleep just when a job comes must not leave it lying."""

    async def test(bench: Bench) -> None:
        for turn in range(300):
            jobs = [bench.submit(f"{turn} {number}") for number in range(1 + turn % 3)]
            await _until(lambda jobs=jobs: all(job.finished for job in jobs))  # type: ignore[misc]  # as above
        assert bench.most_at_once <= 3

    _run(test, threads=3)


def test_a_finished_job_is_not_kept() -> None:
    """An idle thread must not keep the last session alive."""
    import weakref

    async def test(bench: Bench) -> None:
        job = bench.submit("only")
        reference = weakref.ref(job)
        await _until(lambda: bench.pool.pending == 0)
        del job
        await _until(lambda: reference() is None)

    _run(test, threads=1)


def test_fewer_may_be_awake_and_more_again() -> None:
    """All jobs are done all the same, and threads that were sent to sleep are there when they are needed."""

    async def test(bench: Bench) -> None:
        gates = [bench.gate() for _ in range(12)]
        jobs = [bench.submit(str(number), gate) for number, gate in enumerate(gates)]
        await _until(lambda: sum(job.running for job in jobs) == 8)
        bench.pool.allow(2)
        for gate in gates[:8]:
            gate.set()
        await _until(lambda: sum(job.running for job in jobs[8:]) == 2)
        assert bench.pool.busy == bench.pool.waiting == 2
        bench.pool.allow(8)
        await _until(lambda: all(job.running for job in jobs))
        for gate in gates[8:]:
            gate.set()
        await _until(lambda: all(job.finished for job in jobs))

    _run(test, threads=8)


def test_jobs_go_on_when_all_threads_were_sent_to_sleep() -> None:
    async def test(bench: Bench) -> None:
        bench.pool.allow(1)
        jobs = [bench.submit(str(number)) for number in range(2000)]
        await _until(lambda: all(job.finished for job in jobs))

    _run(test, threads=8)
