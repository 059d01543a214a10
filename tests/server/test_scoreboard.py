"""The scoreboard: counting, reading, rows of a slot, and that what was counted outlives who counted."""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from fastsmtp.protocol.replies import BAD_SENDER, REJECTED, HostReplies, Reply
from fastsmtp.server import columns
from fastsmtp.server.columns import (
    COLUMNS,
    CONNECTIONS,
    FAMILIES,
    HISTOGRAMS,
    LOOP_LAG_US,
    MESSAGE_SECONDS,
    MESSAGE_SIZE_BYTES,
    MESSAGES_ACCEPTED,
    MESSAGES_REFUSED,
    OPEN_CONNECTIONS,
    STAMP,
    STORE_SECONDS,
    WIDTH,
    Kind,
    State,
    refusal_index,
)
from fastsmtp.server.scoreboard import Row, Scoreboard
from fastsmtp.server.status import counted
from tests.server.admin_client import TOKEN, AdminClient
from tests.server.running import starting
from tests.server.waiting import until

# -- columns ---------------------------------------------------------------------------------------------------------


def test_every_column_has_its_place() -> None:
    assert [column.index for column in COLUMNS] == list(range(len(COLUMNS)))
    assert [column for family in FAMILIES for column in family.columns if COLUMNS[column.index] is not column] == []
    assert len(COLUMNS) <= WIDTH < len(COLUMNS) + 8
    constants = [value for name, value in vars(columns).items() if name.isupper() and type(value) is int]
    assert len(set(constants) - {WIDTH}) == len(constants) - 1


def test_names_are_unique() -> None:
    for names in ([family.name for family in FAMILIES], [family.metric for family in FAMILIES]):
        assert len(set(names)) == len(names)
    labels = [(column.family.name, column.labels) for column in COLUMNS]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        (REJECTED, "554 5.7.1"),
        (BAD_SENDER, "501 5.1.7"),
        (HostReplies("mx.example").timeout, "421 4.4.2"),
        (Reply(450, "4.2.1", "of the application"), "other_4xx"),
        (Reply(450, None, "of the application"), "other_4xx"),
        (Reply(550, None, "of the application"), "other_5xx"),
        (Reply(550, "5.7.1", "other words"), "550 5.7.1"),
    ],
)
def test_refusals_are_counted_by_their_codes(reply: Reply, label: str) -> None:
    column = COLUMNS[refusal_index(reply)]
    assert (column.family.name, column.labels) == ("refusals", (label,))


@pytest.mark.parametrize("histogram", HISTOGRAMS, ids=lambda each: each.family.name)
def test_a_value_is_in_the_first_bucket_that_holds_it(histogram: columns.Histogram) -> None:
    row = Scoreboard(1).take(0)
    for number, bound in enumerate(histogram.bounds):
        row.observe(histogram, bound)
        row.observe(histogram, bound * 1.001)
        assert row.cells[histogram.first + number + 1] == 1
        row.cells[histogram.first + number + 1] = 0
        assert row.cells[histogram.first + number] == 1
    row.observe(histogram, 0)
    assert row.cells[histogram.first] == 2


@pytest.mark.parametrize("histogram", HISTOGRAMS, ids=lambda each: each.family.name)
def test_many_values_at_once_are_counted_as_one_by_one(histogram: columns.Histogram) -> None:
    bounds = histogram.bounds
    values = [0, *bounds, *(bound * 1.001 for bound in bounds), *bounds[:3], 2 * bounds[-1], 2 * bounds[-1]]
    one, other = Scoreboard(1).take(0), Scoreboard(1).take(0)
    for value in values:
        one.observe(histogram, value)
    histogram.observe_all(other.cells, values[::2])
    histogram.observe_all(other.cells, values[1::2])
    histogram.observe_all(other.cells, [])
    buckets = slice(histogram.first, histogram.sum)
    assert other.cells[buckets].tolist() == one.cells[buckets].tolist()
    assert other.cells[histogram.sum] == pytest.approx(one.cells[histogram.sum], abs=len(values))  # 1 for each value


def test_sums_of_histograms_are_in_base_units() -> None:
    row = Scoreboard(1).take(0)
    row.observe(MESSAGE_SECONDS, 0.25)
    row.observe(MESSAGE_SECONDS, 1000)
    row.observe(MESSAGE_SIZE_BYTES, 5000)
    found = counted(row.cells.tolist())
    assert (found["message_seconds"]["count"], found["message_seconds"]["sum"]) == (2, 1000.25)
    assert (found["message_size_bytes"]["count"], found["message_size_bytes"]["sum"]) == (1, 5000)


def test_buckets_of_histograms_lie_between_their_bounds() -> None:
    row = Scoreboard(1).take(0)
    row.observe(MESSAGE_SIZE_BYTES, 1000)
    row.observe(MESSAGE_SIZE_BYTES, 2**30)
    found = counted(row.cells.tolist())["message_size_bytes"]
    assert (found["bounds"][0], found["bounds"][-1]) == (2**10, 2**26)
    assert found["buckets"] == [1, *[0] * (len(found["bounds"]) - 1), 1]


# -- rows ------------------------------------------------------------------------------------------------------------


def test_a_slot_is_the_sum_of_its_rows() -> None:
    board = Scoreboard(2)
    old, new, other = board.take(0), board.take(0), board.take(1)
    for row, count in ((old, 1), (new, 10), (other, 100)):
        row.cells[CONNECTIONS] += count
        row.cells[OPEN_CONNECTIONS] = count
        row.cells[LOOP_LAG_US] = count
    first, second = board.slots()
    assert (first.cells[CONNECTIONS], first.cells[OPEN_CONNECTIONS], first.cells[LOOP_LAG_US]) == (11, 11, 10)
    assert second.cells[CONNECTIONS] == 100
    assert board.totals()[CONNECTIONS] == 111


def test_a_dead_process_leaves_its_counts_and_nothing_else() -> None:
    board = Scoreboard(1)
    row = board.take(0)
    row.begin()
    row.become(State.READY)
    row.cells[STAMP] = 5
    row.cells[OPEN_CONNECTIONS] = 7
    row.cells[MESSAGES_ACCEPTED] = 9
    (process,) = board.slots()[0].processes
    assert (process.pid, process.state, board.slots()[0].is_ready) == (os.getpid(), State.READY, True)
    board.release(row.number)
    (slot,) = board.slots()
    assert (list(slot.processes), slot.is_ready) == ([], False)
    assert (slot.cells[OPEN_CONNECTIONS], slot.cells[MESSAGES_ACCEPTED]) == (0, 9)
    assert sum(slot.cells) == 9


def test_the_rows_of_a_slot_are_used_in_turn() -> None:
    board = Scoreboard(3)
    numbers = []
    for _ in range(4):
        row = board.take(1)
        numbers.append(row.number)
        board.release(row.number)
    assert numbers == [3, 4, 5, 3]


def test_a_slot_has_room_for_three() -> None:
    board = Scoreboard(2)
    rows = [board.take(0) for _ in range(3)]
    assert (board.has_room(0), board.has_room(1)) == (False, True)
    board.release(rows[1].number)
    assert board.take(0).number == rows[1].number


def test_no_row_writes_to_another() -> None:
    board = Scoreboard(2)
    rows = [*(board.take(slot) for slot in (0, 0, 0, 1, 1, 1)), board.master]
    for row in rows:
        row.cells[:] = memoryview(bytes(8 * WIDTH)).cast("Q")
    rows[2].cells[:] = memoryview(b"\xff" * 8 * WIDTH).cast("Q")
    assert [sum(row.cells) > 0 for row in rows] == [False, False, True, False, False, False, False]


# -- processes and threads -------------------------------------------------------------------------------------------


def test_counts_of_a_killed_process_stay() -> None:
    board = Scoreboard(1)
    row = board.take(0)
    pid = os.fork()
    if pid == 0:
        while True:
            row.cells[MESSAGES_ACCEPTED] += 1
    until(lambda: row.cells[MESSAGES_ACCEPTED] > 1000, "the child counts")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    counted_before = board.totals()[MESSAGES_ACCEPTED]
    board.release(row.number)
    for _ in range(3):
        row = board.take(0)
        row.cells[MESSAGES_ACCEPTED] += 1
        board.release(row.number)
    assert board.totals()[MESSAGES_ACCEPTED] == counted_before + 3


def test_threads_lose_no_count() -> None:
    """`cells[X] += 1` has no place where the interpreter changes threads between reading and writing."""
    row, each, before = Scoreboard(1).take(0), 100_000, sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=_count, args=(row, each)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert row.cells[MESSAGES_ACCEPTED] == 4 * each
    assert row.cells[STORE_SECONDS.first] + row.cells[MESSAGES_REFUSED] == 4 * each // 10 + 4


def _count(row: Row, times: int) -> None:
    for number in range(times):
        row.cells[MESSAGES_ACCEPTED] += 1
        if number % 10 == 0:
            row.observe(STORE_SECONDS, 0)
    row.cells[MESSAGES_REFUSED] += 1


COUNTING = f"""
import fastsmtp
from fastsmtp.server import worker
from fastsmtp.server.columns import CONNECTIONS, MESSAGE_SECONDS

serve = worker.run

def counting(config, slot, sockets, clients, row, *rest):
    row.cells[CONNECTIONS] += 1
    row.observe(MESSAGE_SECONDS, 0.5)
    return serve(config, slot, sockets, clients, row, *rest)

worker.run = counting

if __name__ == "__main__":
    settings = dict(listen="127.0.0.1:0", workers=2, store="discard:", admin="127.0.0.1:0", admin_token="{TOKEN}")
    raise SystemExit(fastsmtp.run(fastsmtp.Handler, **settings))
"""


def _has_reloaded(admin: AdminClient, times: int) -> bool:
    return bool(admin.status()["totals"]["reloads"]["done"] == times)


def test_counts_survive_killed_and_replaced_workers(tmp_path: Path) -> None:
    """Each worker counts one connection when it begins."""
    script = tmp_path / "counting.py"
    script.write_text(COUNTING)
    with starting(tmp_path, [sys.executable, str(script)]) as server:
        server.wait_until_ready()
        admin = AdminClient.of(server)
        assert admin.status()["totals"]["connections"] == 2
        for count in range(1, 6):  # more often than a slot has rows
            assert admin.post("/reload").status == 202
            until(partial(_has_reloaded, admin, count), "the reload")
        (victim,) = (each["pid"] for each in admin.processes(1) if each["state"] == "ready")
        os.kill(victim, signal.SIGKILL)
        server.wait_for_log(rf"worker 1 \(pid {victim}\) died")
        until(lambda: admin.get("/readyz").status == 200, "the successor serves")
        totals = admin.status()["totals"]
        assert totals["connections"] == 2 + 5 * 2 + 1
        assert (totals["message_seconds"]["count"], totals["message_seconds"]["sum"]) == (13, 6.5)
        assert totals["worker_deaths"] == 1
        assert [worker["totals"]["connections"] for worker in admin.status()["workers"]] == [6, 7]


def test_gauges_and_facts_have_one_column_each() -> None:
    assert [each.name for each in FAMILIES if each.kind in (Kind.FACT, Kind.GAUGE) and len(each.columns) != 1] == []
