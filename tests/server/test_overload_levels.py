"""Overload in steps: when a level is reached and left, and what clients meet at each (standards.md E7-E10)."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fastsmtp.config import Config
from fastsmtp.protocol.replies import INSUFFICIENT_STORAGE, OVERLOADED, Reply
from fastsmtp.server import descriptors
from fastsmtp.server.columns import OVERLOAD, PAUSED, WIDTH
from fastsmtp.server.doors import Doors
from fastsmtp.server.memory_use import MemoryUse
from fastsmtp.server.overload import Cause, Level, Overload, causes
from fastsmtp.server.reception import Reception
from tests.server.admin_client import ADMIN, AdminClient
from tests.server.processes import cpu_seconds
from tests.server.running import running
from tests.server.waiting import until

MAIL = "MAIL FROM:<a@a.example>"

# -- one cause ---------------------------------------------------------------------------------------------------------


def _levels(*values: float) -> list[int]:
    level = Level(Cause("", "{}", (10, 20, 40)))
    return [level.look(value) for value in values]


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ((9, 9, 9), (0, 0, 0)),
        ((99, 0, 99, 0), (0, 0, 0, 0)),  # one long turn is no overload
        ((10, 10), (0, 1)),
        ((50, 15, 25, 25), (0, 1, 1, 2)),  # what two looks agree on
        ((40, 40), (0, 3)),
        ((10, 10, 8, 8, 8, 8, 8), (0, 1, 1, 1, 1, 1, 1)),  # not well below
        ((10, 10, 7, 7, 7, 7), (0, 1, 1, 1, 1, 0)),  # well below for a second
        ((40, 40, 17, 17, 17, 17, 7, 7, 7, 7), (0, 3, 3, 3, 3, 2, 2, 2, 2, 0)),  # no further than it is below
    ],
)
def test_levels(values: tuple[float, ...], levels: tuple[int, ...]) -> None:
    assert tuple(_levels(*values)) == levels


def test_thresholds() -> None:
    lag, hooks, memory = causes(Config.of(max_loop_lag=1, max_pending_hooks=100, memory_high=0.8))
    assert lag.thresholds == pytest.approx((1, 2, 4))
    assert hooks.thresholds == pytest.approx((100, 125, 200))
    assert memory.thresholds == pytest.approx((0.8, 0.9, 0.95))


# -- what it does, by fakes of what it looks at ------------------------------------------------------------------------


class _Pool:
    pending = 0


class _Dispatcher:
    pool = _Pool()


class _Entrance:
    refusal: Reply | None = None

    def be_overloaded(self, refusal: Reply | None) -> None:
        self.refusal = refusal


class _Reception:
    """As much of a reception as overload touches."""

    def __init__(self) -> None:
        self.dispatcher = _Dispatcher()
        self.entrances = [_Entrance()]
        self.connections: set[object] = set()
        self.turns_away = False
        self.scarce_at = 0
        self.when_scarce: Callable[[], None] = lambda: None


class _Doors:
    are_open = True

    async def open(self) -> None:
        self.are_open = True

    def shut(self) -> None:
        self.are_open = False


class _Bench:
    """An Overload with everything it looks at in our hands; a look is a call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reception, self.doors, self.cells = _Reception(), _Doors(), memoryview(bytearray(8 * WIDTH)).cast("Q")
        self.memory, self.left = 0.0, 1000
        self.overload = Overload(
            loop,
            Config.of(max_pending_hooks=100),
            cast(Reception, self.reception),
            cast(Doors, self.doors),
            self.cells,
            lambda: self.memory,
            lambda: self.left,
        )
        self.overload.stop()

    async def look(self, times: int = 8) -> tuple[int, Reply | None, bool, bool]:
        """The level, what MAIL gets, whether connections are turned away, whether they are accepted."""
        for _ in range(times):
            self.overload._due = time.monotonic()
            self.overload._look()
            self.overload._timer.cancel()
            await asyncio.sleep(0)
        reception = self.reception
        return self.cells[OVERLOAD], reception.entrances[0].refusal, reception.turns_away, self.doors.are_open


def test_pending_hooks_step_by_step() -> None:
    async def play() -> None:
        bench = _Bench(asyncio.get_running_loop())
        pool = bench.reception.dispatcher.pool
        assert await bench.look() == (0, None, False, True)
        for pending, expected in (
            (100, (1, OVERLOADED, False, True)),
            (125, (2, OVERLOADED, True, True)),
            (200, (3, OVERLOADED, True, False)),
            (90, (1, OVERLOADED, False, True)),
            (10, (0, None, False, True)),
        ):
            pool.pending = pending
            assert await bench.look() == expected, pending
        assert bench.cells[PAUSED] == 0

    try:
        asyncio.run(play())
    finally:
        _Pool.pending = 0


def test_memory_says_452() -> None:
    async def play() -> None:
        bench = _Bench(asyncio.get_running_loop())
        for memory, expected in (
            (0.74, (0, None, False, True)),
            (0.76, (1, INSUFFICIENT_STORAGE, False, True)),
            (0.88, (2, INSUFFICIENT_STORAGE, True, True)),
            (0.95, (3, INSUFFICIENT_STORAGE, True, False)),
            (0.5, (0, None, False, True)),
        ):
            bench.memory = memory
            assert await bench.look(16) == expected, memory

    asyncio.run(play())


def test_descriptors_shut_the_doors_alone() -> None:
    async def play() -> None:
        bench = _Bench(asyncio.get_running_loop())
        bench.left = 31
        assert await bench.look(1) == (0, None, False, False)
        assert bench.cells[PAUSED] == 1
        bench.left = 50  # not enough to begin again
        assert await bench.look(1) == (0, None, False, False)
        bench.left = 64
        assert await bench.look(1) == (0, None, False, True)
        assert bench.reception.scarce_at == 32
        bench.left = 10
        bench.reception.when_scarce()  # a burst, between two looks
        assert not bench.doors.are_open

    asyncio.run(play())


# -- real servers ------------------------------------------------------------------------------------------------------


def test_a_loop_that_lags_is_451_to_mail(tmp_path: Path) -> None:
    """An inline hook that takes 150 ms blocks the loop again and again."""
    flags = ("--max-loop-lag=0.05", "--max-errors=1000", "--max-junk-commands=1000")
    with running(tmp_path, "tests.server.apps:Blocking", *flags) as server, ExitStack() as stack:
        busy, asking = (stack.enter_context(server.greeted()) for _ in range(2))
        enough = threading.Event()

        def keep_busy() -> None:
            while not enough.is_set():
                busy.ask("NOOP block", "250")

        def is_refused() -> bool:
            asking.send(f"{MAIL}\r\nRSET\r\n".encode())
            reply = asking.reply()
            asking.expect("250")
            return reply == "451 4.3.2 too busy, try again later"

        blocking = threading.Thread(target=keep_busy)
        blocking.start()
        try:
            until(is_refused, "MAIL is refused", 20)
        finally:
            enough.set()
            blocking.join()
        server.wait_for_log(r"WARNING fastsmtp\.worker: overload, loop lag [0-9.]+ s: ")
        server.wait_for_log("overload is over: all is well again", 30)
        with server.greeted() as later:
            later.deliver()


def test_descriptors_that_run_out_pause_accepting(tmp_path: Path) -> None:
    """standards.md T07, E8: connections wait in the kernel, nobody spins, and it goes on by itself."""
    with running(tmp_path, "tests.server.apps:Hoarding", *ADMIN) as server:
        admin = AdminClient.of(server)
        (worker,) = admin.pids()
        with server.greeted() as hoarder:
            hoarder.ask("NOOP take", "250")
            server.wait_for_log(r"descriptors left: connections are not accepted")
            until(lambda: admin.processes()[0]["paused"] == 1, "it is seen")
            with server.connect() as waiting:
                waiting.socket.settimeout(1.0)
                before = cpu_seconds(worker)
                with pytest.raises(TimeoutError):
                    waiting.line()
                assert cpu_seconds(worker) - before < 0.5
                hoarder.ask("NOOP give", "250")  # sessions that are there go on
                waiting.socket.settimeout(8.0)
                waiting.greet().deliver()
        server.wait_for_log(r"descriptors left: all is well again")
        assert admin.pids() == [worker]
        assert server.stop() == 0


def test_what_waits_while_nothing_is_accepted_is_told_on_a_stop(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:Hoarding") as server, server.greeted() as hoarder:
        hoarder.ask("NOOP take 30", "250")
        server.wait_for_log(r"descriptors left: connections are not accepted")
        with server.connect() as waiting:
            server.send_signal(signal.SIGTERM)
            assert waiting.reply()[:3] in ("220", "421")
            hoarder.expect("421 4.3.2")
        hoarder.socket.close()
        assert server.wait() == 0


# -- what is looked at -------------------------------------------------------------------------------------------------


@contextmanager
def _open_files(count: int) -> Iterator[None]:
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    try:
        yield
    finally:
        for file in files:
            os.close(file)


@pytest.mark.parametrize("counted", [True, False])
def test_descriptors_left(monkeypatch: pytest.MonkeyPatch, counted: bool) -> None:
    """With a kernel that counts, and with one that does not."""
    if not counted:
        real = os.stat

        def stat(path: Any) -> Any:
            return os.stat_result((0,) * 10) if path == "/proc/self/fd" else real(path)

        monkeypatch.setattr(os, "stat", stat)
    before = descriptors.left()
    with _open_files(10):
        assert descriptors.left() == before - 10
    assert descriptors.left() == before


def _tree(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


MACHINE = "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 200 kB\n"


@pytest.mark.parametrize(
    ("membership", "files", "share"),
    [
        ("0::/\n", {}, 0.2),
        ("0::/a\n", {"a/memory.max": "max\n", "a/memory.current": "500000\n"}, 0.2),
        # the page cache that can go at once does not count
        (
            "0::/a\n",
            {
                "a/memory.max": "102400\n",
                "a/memory.current": "92160\n",
                "a/memory.stat": "anon 1\ninactive_file 10240\n",
            },
            0.8,
        ),
        # the tightest of all above counts
        (
            "0::/a/b\n",
            {
                "a/memory.max": "102400\n",
                "a/memory.current": "51200\n",
                "a/b/memory.max": "204800\n",
                "a/b/memory.current": "61440\n",
            },
            0.5,
        ),
        # version 1
        (
            "4:memory:/a\n",
            {
                "memory/a/memory.limit_in_bytes": "102400\n",
                "memory/a/memory.usage_in_bytes": "92160\n",
                "memory/a/memory.stat": "cache 5\ntotal_inactive_file 20480\n",
            },
            0.7,
        ),
        # no limit: more than the machine has
        (
            "4:memory:/a\n",
            {
                "memory/a/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/a/memory.usage_in_bytes": "92160\n",
            },
            0.2,
        ),
    ],
)
def test_memory_in_use(tmp_path: Path, membership: str, files: dict[str, str], share: float) -> None:
    _tree(tmp_path / "cgroup", files)
    _tree(tmp_path, {"membership": membership, "meminfo": MACHINE})
    use = MemoryUse(tmp_path / "cgroup", tmp_path / "membership", tmp_path / "meminfo")
    assert use.share() == pytest.approx(share)


@pytest.mark.parametrize(("available", "share"), [(1000, 0.0), (250, 0.0), (125, 0.5), (50, 0.8), (0, 1.0)])
def test_of_a_machine_the_last_quarter_counts(tmp_path: Path, available: int, share: float) -> None:
    _tree(tmp_path, {"membership": "", "meminfo": f"MemTotal: 1000 kB\nMemAvailable: {available} kB\n"})
    use = MemoryUse(tmp_path / "cgroup", tmp_path / "membership", tmp_path / "meminfo")
    assert use.share() == pytest.approx(share)


def test_a_group_that_has_gone_is_no_error(tmp_path: Path) -> None:
    files = {"cgroup/a/memory.max": "102400\n", "cgroup/a/memory.current": "92160\n"}
    _tree(tmp_path, {**files, "membership": "0::/a\n", "meminfo": MACHINE})
    use = MemoryUse(tmp_path / "cgroup", tmp_path / "membership", tmp_path / "meminfo")
    assert use.share() == pytest.approx(0.9)
    (tmp_path / "cgroup/a/memory.current").unlink()
    assert use.share() == pytest.approx(0.2)


def test_this_machine() -> None:
    assert 0 <= MemoryUse().share() < 1
