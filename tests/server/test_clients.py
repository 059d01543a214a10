"""Counts per client: what they say after any history, over windows, and over processes that share them."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsmtp.server import clients
from fastsmtp.server.clients import ClientCounts, Clients, client_key
from tests.server.waiting import until

ANN, BOB, EVE = b"\xc0\0\2\1", b"\xc0\0\2\2", b"\x20\1\x0d\xb8\0\0\0\1"
START = 7200.0  # the start of a window of a minute, and of one of ten


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.1", b"\xc0\0\2\1"),
        ("::ffff:192.0.2.1", b"\xc0\0\2\1"),
        ("::ffff:c000:201", b"\xc0\0\2\1"),
        ("2001:db8:1:2::1", b"\x20\1\x0d\xb8\0\1\0\2"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", b"\x20\1\x0d\xb8\0\1\0\2"),
        ("2001:db8:1:3::1", b"\x20\1\x0d\xb8\0\1\0\3"),
        ("fe80::1%eth0", b"\xfe\x80\0\0\0\0\0\0"),
        ("::1", bytes(8)),
        ("0.0.0.0", bytes(4)),
        ("unix", None),
        ("", None),
        ("mail.example.com", None),
        ("192.0.2.1\0", None),
    ],
)
def test_who_counts_as_one_client(host: str, key: bytes | None) -> None:
    assert client_key(host) == key


# -- connections ------------------------------------------------------------------------------------------------------


def test_connections_are_counted_over_all_workers(clock: Clock) -> None:
    counts = ClientCounts(3, clock=clock)
    first, second = counts.open(0), counts.open(2)
    assert first.connect(ANN) == (1, 1)
    assert second.connect(ANN) == (2, 2)
    assert second.connect(EVE) == (1, 1)
    first.disconnect(ANN)
    assert second.connect(ANN) == (2, 3)
    assert first.connect(ANN) == (3, 4)


def test_a_count_is_never_below_zero(clock: Clock) -> None:
    ours = ClientCounts(1, clock=clock).open(0)
    ours.disconnect(ANN)
    assert ours.connect(ANN) == (1, 1)


def test_a_count_that_is_full_stays_so(clock: Clock) -> None:
    ours = ClientCounts(1, clock=clock).open(0)
    seen = [ours.connect(ANN) for _ in range(65537)]
    assert seen[65533:] == [(65534, 65534), (65535, 65535), (65535, 65535), (65535, 65535)]


def test_counts_of_several_workers_add_up_beyond_what_one_counter_holds(clock: Clock) -> None:
    counts = ClientCounts(2, clock=clock)
    both = counts.open(0), counts.open(1)
    for ours in both:
        for _ in range(40000):
            ours.auth_failed(ANN)
    assert both[0].auth_failures(ANN) == 80000


def test_connections_and_failures_are_counted_apart(clock: Clock) -> None:
    ours = ClientCounts(1, clock=clock).open(0)
    for _ in range(3):
        ours.auth_failed(ANN)
    assert ours.connect(ANN) == (1, 1)
    assert ours.auth_failures(ANN) == 3
    clock.now += 120
    assert ours.connect(ANN) == (2, 1)


def test_each_server_has_a_key_of_its_own() -> None:
    one, other = ClientCounts(1), ClientCounts(1)
    assert len(one._memory.key) == 16
    assert one._memory.key != other._memory.key


# -- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passed", "failures"),
    [(0, 20), (599.9, 20), (600, 20), (601, 20), (660, 18), (900, 10), (1170, 1), (1199.9, 1), (1200, 0), (1e6, 0)],
)
@pytest.mark.parametrize("reader", [0, 1])
def test_failures_are_forgotten_bit_by_bit(clock: Clock, passed: float, failures: int, reader: int) -> None:
    counts = ClientCounts(2, clock=clock)
    workers = counts.open(0), counts.open(1)
    assert [workers[0].auth_failed(ANN) for _ in range(20)] == list(range(1, 21))
    clock.now += passed
    assert workers[reader].auth_failures(ANN) == failures
    assert workers[reader].auth_failures(BOB) == 0


def test_the_window_of_failures_can_be_set(clock: Clock) -> None:
    ours = ClientCounts(1, failure_window=60.0, clock=clock).open(0)
    ours.auth_failed(ANN)
    clock.now += 59
    assert ours.auth_failures(ANN) == 1
    clock.now += 61
    assert ours.auth_failures(ANN) == 0


def test_connections_within_the_last_minute(clock: Clock) -> None:
    counts = ClientCounts(2, clock=clock)
    first, second = counts.open(0), counts.open(1)
    seen = []
    for step in range(13):  # one every ten seconds, now here, now there
        ours = (first, second)[step % 2]
        seen.append(ours.connect(ANN)[1])
        ours.disconnect(ANN)
        clock.now += 10
    assert seen == [1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 7]


def test_a_table_is_used_again_when_its_window_has_long_passed(clock: Clock) -> None:
    counts = ClientCounts(2, clock=clock)
    busy, idle = counts.open(0), counts.open(1)
    for _ in range(5):
        busy.connect(ANN)
        idle.connect(ANN)
    for _ in range(6):
        clock.now += 120  # the same table, as windows alternate
        for _ in range(5):
            busy.disconnect(ANN)
        assert [busy.connect(ANN) for _ in range(5)] == [(open_now, open_now - 5) for open_now in range(6, 11)]


def test_who_looks_in_a_later_window_does_not_see_an_idle_workers_old_table(clock: Clock) -> None:
    counts = ClientCounts(2, clock=clock)
    reader, idle = counts.open(0), counts.open(1)
    idle.auth_failed(ANN)
    for windows, failures in ((1, 1), (2, 0), (3, 0), (4, 0)):
        clock.now = START + windows * 600
        assert reader.auth_failures(ANN) == failures


def test_a_clock_that_has_just_begun(clock: Clock) -> None:
    clock.now = 0.0
    ours = ClientCounts(1, clock=clock).open(0)
    assert ours.auth_failures(ANN) == 0
    assert ours.auth_failed(ANN) == 1
    clock.now = 600.0
    assert ours.auth_failed(ANN) == 2


# -- regions change hands ---------------------------------------------------------------------------------------------


def test_connections_of_the_dead_count_no_more(clock: Clock) -> None:
    counts = ClientCounts(2, clock=clock)
    alive, dead = counts.open(0), counts.open(1)
    dead.connect(ANN)
    assert alive.connect(ANN) == (2, 2)
    counts.release(1)
    assert alive.connect(ANN) == (2, 3)  # the dead worker's began within the minute, all the same


def test_a_successor_begins_without_connections_and_remembers_failures(clock: Clock) -> None:
    counts = ClientCounts(1, clock=clock)
    dead = counts.open(0)
    for _ in range(3):
        dead.connect(ANN)
        dead.auth_failed(ANN)
    successor = counts.open(0)  # nobody has released it
    assert successor.auth_failures(ANN) == 3
    assert successor.auth_failed(ANN) == 4
    assert successor.connect(ANN) == (1, 4)


def test_failures_are_remembered_while_nobody_has_the_region(clock: Clock) -> None:
    counts = ClientCounts(2, clock=clock)
    alive, dead = counts.open(0), counts.open(1)
    dead.auth_failed(ANN)
    counts.release(1)
    assert alive.auth_failures(ANN) == 1
    clock.now += 1200
    assert alive.auth_failures(ANN) == 0


def test_a_successor_that_comes_late_begins_its_window_anew(clock: Clock) -> None:
    counts = ClientCounts(1, clock=clock)
    counts.open(0).auth_failed(ANN)
    clock.now += 1200
    assert counts.open(0).auth_failed(ANN) == 1


def test_a_region_that_is_opened_later_is_seen(clock: Clock) -> None:
    counts = ClientCounts(2, clock=clock)
    first = counts.open(0)
    first.connect(ANN)
    counts.open(1).connect(ANN)
    assert first.connect(ANN) == (3, 3)


# -- any history ------------------------------------------------------------------------------------------------------

WORKERS = 3
MOVES = st.lists(
    st.tuples(
        st.sampled_from(("connect", "connect", "disconnect", "fail", "fail", "wait", "die")),
        st.integers(0, WORKERS - 1),
        st.integers(0, 7),  # the client; or how long to wait, in steps of 25 s
    ),
    max_size=60,
)


class History:
    """What has happened, beside the counts of it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.counts = ClientCounts(WORKERS, clock=self.clock)
        self.workers = [self.counts.open(region) for region in range(WORKERS)]
        self.open: list[Counter[int]] = [Counter() for _ in range(WORKERS)]
        self.begun: list[tuple[float, int]] = []
        self.failed: list[tuple[float, int]] = []

    def connect(self, worker: int, client: int) -> tuple[int, int]:
        self.open[worker][client] += 1
        self.begun.append((self.clock.now, client))
        return self.workers[worker].connect(bytes([client] * 4))

    def disconnect(self, worker: int, client: int) -> None:
        if self.open[worker][client]:
            self.open[worker][client] -= 1
            self.workers[worker].disconnect(bytes([client] * 4))

    def fail(self, worker: int, client: int) -> int:
        self.failed.append((self.clock.now, client))
        return self.workers[worker].auth_failed(bytes([client] * 4))

    def wait(self, worker: int, steps: int) -> None:
        self.clock.now += 25.0 * steps

    def die(self, worker: int, client: int) -> None:
        self.counts.release(worker)
        self.open[worker].clear()
        self.workers[worker] = self.counts.open(worker)

    def true_open(self, client: int) -> int:
        return sum(each[client] for each in self.open)

    def bounds(self, events: list[tuple[float, int]], client: int, window: float) -> tuple[int, int]:
        """Events in the running window, and in that or the one before."""
        number = self.clock.now // window
        ages = [number - when // window for when, who in events if who == client]
        return ages.count(0), ages.count(0) + ages.count(1)


@contextmanager
def colliding_cells() -> Iterator[None]:
    """Eight clients share two counters in each row; no two share both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "_cells", lambda key, client: (client[0] % 2, 2**14 + client[0] // 2 % 2))
        yield


def test_who_shares_one_counter_only_is_counted_right(clock: Clock) -> None:
    with colliding_cells():
        ours = ClientCounts(1, clock=clock).open(0)
        for _ in range(9):
            ours.connect(b"\0")
            ours.auth_failed(b"\0")
        assert ours.connect(b"\1") == (1, 1)  # shares the counter of the second row
        assert ours.connect(b"\2") == (1, 1)  # shares that of the first
        assert ours.auth_failed(b"\1") == 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(MOVES)
def test_counts_are_never_too_low_however_clients_collide(moves: list[tuple[str, int, int]]) -> None:
    with colliding_cells():
        history = History()
        for move, worker, client in moves:
            found = getattr(history, move)(worker, client)
            if move == "connect":
                assert found[0] >= history.true_open(client)
                assert found[1] >= history.bounds(history.begun, client, 60.0)[0]
            elif move == "fail":
                assert found >= history.bounds(history.failed, client, 600.0)[0]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(MOVES)
def test_counts_are_right_where_clients_do_not_collide(moves: list[tuple[str, int, int]]) -> None:
    history = History()
    for move, worker, client in moves:
        found = getattr(history, move)(worker, client)
        if move == "connect":
            assert found[0] == history.true_open(client)
            low, high = history.bounds(history.begun, client, 60.0)
            assert low <= found[1] <= high
    for client in range(8):
        low, high = history.bounds(history.failed, client, 600.0)
        for ours in history.workers:
            assert low <= ours.auth_failures(client.to_bytes() * 4) <= high


# -- threads and processes --------------------------------------------------------------------------------------------


def test_failures_are_counted_on_a_thread_while_the_loop_counts_connections(clock: Clock) -> None:
    ours = ClientCounts(1, clock=clock).open(0)

    def fail() -> None:
        for _ in range(5000):
            ours.auth_failed(ANN)

    thread = threading.Thread(target=fail)
    thread.start()
    for number in range(5000):
        assert ours.connect(ANN) == (number + 1, number + 1)
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert ours.auth_failures(ANN) == 5000


class Family:
    """Processes that share counts. They begin together; none outlives its test."""

    def __init__(self) -> None:
        self._gate, self._opener = os.pipe()
        self._pids: list[int] = []

    def fork(self, work: Callable[[int], int], region: int) -> int:
        """Start a process that works when the gate opens; `work` gets its region and returns its exit code."""
        pid = os.fork()
        if pid == 0:
            code = 255
            try:
                os.close(self._opener)
                os.read(self._gate, 1)  # ends when the parent, last of all, closes its end
                code = work(region)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self._pids.append(pid)
        return pid

    def open_gate(self) -> None:
        os.close(self._opener)
        self._opener = -1

    def exit_code(self, pid: int) -> int:
        _, status = until(lambda: _ended(pid), f"the end of process {pid}", seconds=60)
        self._pids.remove(pid)
        return os.waitstatus_to_exitcode(status)

    def exit_codes(self) -> list[int]:
        """Of all that still run, in the order of their start."""
        return [self.exit_code(pid) for pid in list(self._pids)]

    def close(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for end in (self._gate, self._opener):
            if end >= 0:
                os.close(end)


def _ended(pid: int) -> tuple[int, ...]:
    found, status = os.waitpid(pid, os.WNOHANG)
    return (found, status) if found else ()


@pytest.fixture
def family() -> Iterator[Family]:
    family = Family()
    yield family
    family.close()


def test_processes_that_count_at_the_same_time_lose_nothing(clock: Clock, family: Family) -> None:
    counts = ClientCounts(5, clock=clock)

    def work(region: int) -> int:
        ours = counts.open(region)
        for _ in range(3000):
            ours.connect(ANN)
            ours.connect(BOB)
            ours.disconnect(BOB)
            ours.auth_failed(EVE)
        return 0

    for region in range(4):
        family.fork(work, region)
    family.open_gate()
    assert family.exit_codes() == [0, 0, 0, 0]
    ours = counts.open(4)
    assert ours.connect(ANN) == (12001, 12001)
    assert ours.connect(BOB) == (1, 12001)
    assert ours.auth_failures(EVE) == 12000


def test_processes_that_race_never_admit_more_than_the_limit(clock: Clock, family: Family) -> None:
    counts = ClientCounts(5, clock=clock)
    limit = 60

    def work(region: int) -> int:
        ours, admitted = counts.open(region), 0
        for _ in range(200):
            if ours.connect(ANN)[0] <= limit:
                admitted += 1
            else:
                ours.disconnect(ANN)
        return admitted

    for region in range(4):
        family.fork(work, region)
    family.open_gate()
    admitted = sum(family.exit_codes())
    assert 0 < admitted <= limit
    assert counts.open(4).connect(ANN)[0] == admitted + 1


def test_a_killed_workers_connections_go_when_its_region_is_released(clock: Clock, family: Family) -> None:
    counts = ClientCounts(3, clock=clock)
    alive = counts.open(0)

    def work(region: int) -> int:
        ours = counts.open(region)
        for _ in range(7):
            ours.connect(ANN)
            ours.auth_failed(ANN)
        while True:
            signal.pause()

    victim = family.fork(work, 1)
    family.open_gate()
    until(lambda: alive.auth_failures(ANN) == 7, "seven connections in the other process")
    os.kill(victim, signal.SIGKILL)
    assert family.exit_code(victim) == -signal.SIGKILL
    assert alive.connect(ANN) == (8, 8)
    counts.release(1)
    assert alive.connect(ANN) == (2, 9)
    assert alive.auth_failures(ANN) == 7


def test_a_worker_and_its_successor_count_side_by_side(clock: Clock, family: Family) -> None:
    counts = ClientCounts(3, clock=clock)
    leaving: Clients = counts.open(0)
    leaving.connect(ANN)

    def work(region: int) -> int:
        return counts.open(region).connect(ANN)[0]

    successor = family.fork(work, 1)
    family.open_gate()
    assert family.exit_code(successor) == 2
    assert leaving.connect(ANN)[0] == 3
