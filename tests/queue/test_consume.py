"""`fastsmtp consume`: real processes that call a function with the items of a queue."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastsmtp.queue import Queue, State
from tests.queue.mails import counts, mail, run
from tests.server.processes import children_of
from tests.server.running import Server, starting
from tests.server.waiting import until

APP = """
import asyncio, os, signal, time
from pathlib import Path
from fastsmtp.queue import Item, Reject, Retry

def note(item, text=""):
    with open("seen", "a") as file:
        file.write(f"{item.message_id} {item.attempts} {os.getpid()} {text}\\n")

def plain(item):
    note(item, str(len(item.content)))

async def later(item):
    await asyncio.sleep(0.01)
    note(item)

def handed_on(item):
    return later(item)

def verdicts(item):
    note(item)
    if item.attempts == 0 and item.message_id == "retry":
        raise Retry("not now", delay=0.2)
    if item.message_id == "patient" and item.attempts < 4:
        raise Retry("not yet", delay=0.1)
    if item.message_id == "patient" and item.attempts < 6:
        raise RuntimeError("one of two")
    if item.message_id == "reject":
        raise Reject("never")
    if item.message_id == "bug" and item.attempts < 2:
        raise RuntimeError("a bug")
    if item.message_id == "hopeless":
        raise RuntimeError("always")

def deadly(item):
    note(item)
    if item.message_id == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)

def slow(item):
    note(item, "begun")
    deadline = time.monotonic() + 20
    while not Path("go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    note(item, "ended")

nothing = 3
"""


@contextmanager
def consuming(directory: Path, function: str, url: str, *options: str) -> Iterator[Server]:
    (directory / "app.py").write_text(APP)
    command = [sys.executable, "-m", "fastsmtp", "consume", f"app:{function}", "--from", url, *options]
    with starting(directory, command, name="consumer") as consumer:
        yield consumer


def seen(directory: Path) -> list[str]:
    path = directory / "seen"
    return path.read_text().splitlines() if path.exists() else []


def put(url: str, *ids: str) -> None:
    async def main() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail(each, f"{each}@{each}.example") for each in ids])

    run(main())


def states(url: str) -> dict[str, int]:
    async def main() -> dict[str, int]:
        async with Queue.open(url) as queue:
            return await counts(queue)

    return run(main())


def wait_for_states(url: str, wanted: dict[str, int]) -> None:
    until(lambda: states(url) == wanted, f"{wanted} in the queue", 20)


@pytest.mark.parametrize("function", ["plain", "later", "handed_on"])
def test_each_item_is_handled_once(tmp_path: Path, url: str, function: str) -> None:
    ids = [f"ID{number}" for number in range(40)]
    put(url, *ids)
    with consuming(tmp_path, function, url, "--workers", "2") as consumer:
        wait_for_states(url, {})
        put(url, "late")
        until(lambda: len(seen(tmp_path)) >= 41, "the one that came later")
        os.kill(consumer.pid, signal.SIGTERM)
        assert consumer.wait(20) == 0
    assert sorted(line.split()[0] for line in seen(tmp_path) if line.startswith(("ID", "late"))) == sorted(
        [*ids, "late"]
    )


def test_verdicts(tmp_path: Path) -> None:
    url = f"queue:{tmp_path}/queue"
    put(url, "fine", "retry", "reject", "bug", "hopeless")
    with consuming(tmp_path, "verdicts", url, "--max-attempts", "3", "--retry-delay", "0.1") as consumer:
        wait_for_states(url, {"DEAD": 2})
        assert consumer.log.count("RuntimeError: a bug") == 2
        assert "Traceback" in consumer.log

    async def reasons() -> dict[str, str | None]:
        async with Queue.open(url) as queue:
            return {item.message_id: item.reason for item in await queue.ls(State.DEAD)}

    assert run(reasons()) == {"reject": "never", "hopeless": "3 attempts failed: RuntimeError: always"}
    attempts = [line.split()[:2] for line in seen(tmp_path)]
    assert sorted(attempts) == sorted(
        [["fine", "0"], ["retry", "0"], ["retry", "1"], ["reject", "0"], ["bug", "0"], ["bug", "1"], ["bug", "2"]]
        + [["hopeless", str(number)] for number in range(3)]
    )


def test_a_retry_is_no_failed_attempt(tmp_path: Path) -> None:
    url = f"queue:{tmp_path}/queue"
    put(url, "patient")
    with consuming(tmp_path, "verdicts", url, "--max-attempts", "3", "--retry-delay", "0.1"):
        wait_for_states(url, {})
    assert [line.split()[1] for line in seen(tmp_path)] == [str(number) for number in range(7)]


def test_a_process_that_dies_is_replaced_and_its_items_come_back(tmp_path: Path) -> None:
    url = f"queue:{tmp_path}/queue"
    put(url, "deadly", "one")
    options = ("--lease", "1", "--max-attempts", "2", "--concurrency", "1")
    with consuming(tmp_path, "deadly", url, *options) as consumer:
        wait_for_states(url, {"DEAD": 1})
        consumer.wait_for_log("signal SIGKILL")
        put(url, "after")
        wait_for_states(url, {"DEAD": 1})
    assert {"one", "after"} <= {line.split()[0] for line in seen(tmp_path)}
    assert [line.split()[1] for line in seen(tmp_path) if line.startswith("deadly")] == ["0", "1"]


def test_term_lets_what_runs_finish_and_takes_nothing_more(tmp_path: Path) -> None:
    url = f"queue:{tmp_path}/queue"
    put(url, *[f"ID{number}" for number in range(6)])
    with consuming(tmp_path, "slow", url, "--concurrency", "2") as consumer:
        until(lambda: len(seen(tmp_path)) == 2, "two items in hand")
        os.kill(consumer.pid, signal.SIGTERM)
        wait_for_states(url, {"READY": 4, "LEASED": 2})
        (tmp_path / "go").touch()
        assert consumer.wait(20) == 0
    assert states(url) == {"READY": 4}
    assert sorted(line.split()[3] for line in seen(tmp_path)) == ["begun", "begun", "ended", "ended"]


def test_what_does_not_finish_in_time_goes_back(tmp_path: Path) -> None:
    url = f"queue:{tmp_path}/queue"
    put(url, "ID1")
    with consuming(tmp_path, "slow", url, "--drain-timeout", "0.2") as consumer:
        until(lambda: len(seen(tmp_path)) == 1, "an item in hand")
        os.kill(consumer.pid, signal.SIGTERM)
        until(lambda: states(url) == {"READY": 1}, "the item is back", 10)
        assert "1 items were not finished" in consumer.log
        (tmp_path / "go").touch()
        assert consumer.wait(20) == 1


def test_consumers_die_with_their_parent(tmp_path: Path) -> None:
    url = f"queue:{tmp_path}/queue"
    with consuming(tmp_path, "plain", url, "--workers", "2") as consumer:
        workers = until(lambda: found if len(found := children_of(consumer.pid)) == 2 else [], "two processes")
        put(url, "ID1")
        wait_for_states(url, {})
        os.kill(consumer.pid, signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers), "the processes end")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["app:missing", "--from", "queue:./queue"], 3, "has no attribute 'missing'"),
        (["app:nothing", "--from", "queue:./queue"], 3, "is no function"),
        (["app:plain", "--from", "maildir:./mail"], 2, "must begin with one of queue:"),
        (["app:plain"], 2, "name a queue"),
        (["app:plain", "--from", "queue:/nowhere/queue"], 3, "No such file or directory"),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, arguments: Sequence[str], code: int, message: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    command = [sys.executable, "-m", "fastsmtp", "consume", *arguments]
    with starting(tmp_path, command, name="consumer") as consumer:
        assert consumer.wait(20) == code
        assert message in consumer.log
