"""When a worker has threads change more often."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

import pytest

from fastsmtp.server.switching import SHORTEST, TURN, Switching
from fastsmtp.server.threads import ThreadPool

CALM = 0.005
THREADS = 8
QUICK = max(TURN / THREADS, SHORTEST)


@pytest.fixture(autouse=True)
def interval() -> Iterator[None]:
    """Of the test's own process."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def _made(interval: float | None = None) -> Switching:
    async def make() -> Switching:
        loop = asyncio.get_running_loop()
        made = Switching(loop, interval, ThreadPool(loop, THREADS, 100))
        made.stop()
        return made

    return asyncio.run(make())


def _after(switching: Switching, *looks: tuple[float, float], start: float = 0.0) -> float:
    for number, (lag, busy) in enumerate(looks):
        switching.judge(lag, busy, start + 0.1 * number)
    return sys.getswitchinterval()


BURNING, LATE, BUSY, QUIET = (0.05, 0.9), (0.05, 0.0), (0.001, 0.9), (0.001, 0.1)


@pytest.mark.parametrize(
    ("looks", "interval"),
    [
        ([], CALM),
        ([BURNING], CALM),  # once is chance
        ([BURNING, QUIET, BURNING], CALM),
        ([LATE] * 5, CALM),  # a hook on the loop itself: nothing is won
        ([BUSY] * 5, CALM),  # threads at work, and the loop is in time
        ([BURNING] * 2, QUICK),
        ([BURNING] * 2 + [BUSY] * 50, QUICK),  # it works, and they still burn
        ([BURNING] * 2 + [QUIET] * 3, QUICK),
        ([BURNING] * 2 + [QUIET] * 4, CALM),
        ([BURNING] * 2 + [QUIET] * 3 + [BUSY] + [QUIET] * 3, QUICK),
    ],
)
def test_when_it_changes(looks: list[tuple[float, float]], interval: float) -> None:
    assert _after(_made(), *looks) == pytest.approx(interval, abs=1e-6)


def test_it_is_tried_without_from_time_to_time() -> None:
    switching = _made()
    assert _after(switching, BURNING, BURNING, start=100.0) == pytest.approx(QUICK, abs=1e-6)
    assert _after(switching, BUSY, start=160.0) == pytest.approx(QUICK, abs=1e-6)
    assert _after(switching, BUSY, start=160.2) == pytest.approx(CALM, abs=1e-6)
    assert _after(switching, BURNING, BURNING, start=160.3) == pytest.approx(QUICK, abs=1e-6)


def test_a_setting_is_for_good() -> None:
    _made(0.002)
    assert sys.getswitchinterval() == pytest.approx(0.002, abs=1e-6)


def test_it_sees_threads_that_burn() -> None:
    """With real threads and a real loop."""

    def burn() -> None:
        number = 1
        while not enough.is_set():
            number = number * 31 & 0xFFFFFF

    async def play() -> None:
        loop = asyncio.get_running_loop()
        switching = Switching(loop, None, ThreadPool(loop, THREADS, 100))
        try:
            async with asyncio.timeout(20):
                while sys.getswitchinterval() > CALM / 2:  # noqa: ASYNC110  # the timer of the loop changes it
                    await asyncio.sleep(0.01)
                enough.set()
                while sys.getswitchinterval() < CALM / 2:  # noqa: ASYNC110  # likewise
                    await asyncio.sleep(0.01)
        finally:
            switching.stop()

    enough = threading.Event()
    threads = [threading.Thread(target=burn) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        asyncio.run(play())
    finally:
        enough.set()
        for thread in threads:
            thread.join()
