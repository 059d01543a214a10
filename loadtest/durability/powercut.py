"""Cuts the power at many moments, after the fact: what was acknowledged until then is still there.

    python -m loadtest.durability.powercut --cuts 200 queue
    python -m loadtest.durability.powercut --cuts 200 maildir

A server runs with recorder.c in it, which writes down each change to its store. Clients note how far that log is when
they get a 250. Then the log is played to a model of a disk (disk.py) up to some point, what was not synced until there
is dropped, or kept in part as chance decides, and the store is opened: all messages whose 250 lies in front of the
point must be in it, whole.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastsmtp.queue import Queue
from loadtest.durability.disk import Disk, records
from loadtest.durability.programs import Program, free_port
from loadtest.durability.sending import Ledger, send_until

_NUMBER = re.compile(rb"^Number: (\d+)\r\n", re.MULTILINE)
_END = b"x" * 70 + b"\r\n"


@dataclass(frozen=True, slots=True)
class Recording:
    """What was recorded.

    Attributes:
        log: of the recorder.
        root: the inode of the directory that the store is in.
        acknowledged: of each message that got its 250, where the log ended then at the latest.
    """

    log: Path
    root: int
    acknowledged: dict[int, int]


@dataclass
class Result:
    """How many cuts there were, and what went wrong."""

    cuts: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)


class _Positions(set[int]):
    """Notes where the log ends whenever a number is added."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = log
        self.at: dict[int, int] = {}

    def add(self, number: int) -> None:
        self.at[number] = os.stat(self._log).st_size
        super().add(number)


def compile_recorder(directory: Path, compiler: str = "cc") -> Path:
    """Builds the recorder; returns its path."""
    target = directory / "recorder.so"
    source = Path(__file__).with_name("recorder.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"], check=True)
    return target


async def record(directory: Path, kind: str, recorder: Path, messages: int, size: int) -> Recording:
    """Runs a server until so many messages of so many octets were acknowledged."""
    disk, log = directory / "disk", directory / "log"
    disk.mkdir()
    log.touch()
    port = free_port()
    arguments = ["serve", "--store", f"{kind}:{disk}/store", "--listen", f"127.0.0.1:{port}", "--workers", "1"]
    environment = [f"LD_PRELOAD={recorder}", f"RECORDER_ROOT={disk}", f"RECORDER_LOG={log}"]
    server = Program(directory, "serve", arguments, ("env", *environment))
    noted = _Positions(log)
    ledger, stop = Ledger(acknowledged=noted), asyncio.Event()
    try:
        server.start()
        sending = asyncio.ensure_future(send_until(stop, [("127.0.0.1", port)], ledger, 8, size))
        async with asyncio.timeout(100):
            while len(noted) < messages:  # noqa: ASYNC110  # the set is no event
                await asyncio.sleep(0.02)
        stop.set()
        await sending
        server.stop()
    finally:
        server.end()
    return Recording(log, disk.stat().st_ino, noted.at)


def cut(recording: Recording, kind: str, directory: Path, cuts: int, seed: int) -> Result:
    """Cuts the power so many times, at moments that chance decides."""
    chance = random.Random(seed)
    end = recording.log.stat().st_size
    moments = sorted(
        [
            *(chance.randrange(end) for _ in range(cuts // 2)),
            *chance.choices([*recording.acknowledged.values()], k=cuts // 2),
        ]
    )
    result = Result(acknowledged=len(recording.acknowledged))
    disk = Disk(recording.root)
    for each in records(recording.log):
        while moments and moments[0] < each.end:
            _look(disk, recording, kind, directory / "cut", moments.pop(0), chance, result)
        disk.apply(each)
    return result


def _look(
    disk: Disk, recording: Recording, kind: str, directory: Path, moment: int, chance: random.Random, result: Result
) -> None:
    for some in (None, chance):
        disk.cut(directory, some)
        found = _queued(directory / "store") if kind == "queue" else _delivered(directory / "store")
        missing = {number for number, at in recording.acknowledged.items() if at <= moment} - found
        shutil.rmtree(directory)
        result.cuts += 1
        if missing:
            result.lost.append(f"at {moment}, {'some' if some else 'nothing'} unsynced kept: {sorted(missing)}")


def _queued(path: Path) -> set[int]:
    """The messages that a queue has, whole."""
    if not path.exists():
        return set()

    async def read() -> set[int]:
        async with Queue.open(f"queue:{path}", slot=0) as queue:
            contents = [(await queue.show(item.id))[1] for item in await queue.ls(limit=100_000)]
            return _numbers(contents)

    return asyncio.run(read())


def _delivered(path: Path) -> set[int]:
    return _numbers([file.read_bytes() for file in path.glob("new/*")])


def _numbers(contents: Sequence[bytes]) -> set[int]:
    found = [_NUMBER.search(content[:2000]) for content in contents if content.endswith(_END)]
    return {int(each[1]) for each in found if each}


def main() -> int:
    """Returns 0 if nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", choices=["queue", "maildir"])
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--messages", type=int, default=1500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        recorder = compile_recorder(directory)
        recording = asyncio.run(record(directory, given.store, recorder, given.messages, 20_000))
        result = cut(recording, given.store, directory, given.cuts, seed=random.randrange(2**32))
    found = f"{result.acknowledged} messages acknowledged, {result.cuts} power cuts, {len(result.lost)} lost some"
    print(f"{given.store}: {found}")
    print("\n".join(result.lost[:10]))
    return 1 if result.lost else 0


if __name__ == "__main__":
    sys.exit(main())
