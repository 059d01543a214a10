"""A power cut loses no acknowledged message: recorded writes, played to a disk that forgets what was not synced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.durability.disk import Disk, Record
from loadtest.durability.powercut import compile_recorder, cut, record

_ROOT, _FILE = 1, 2


@pytest.mark.parametrize("kind", ["queue", "maildir"])
def test_no_acknowledged_message_is_lost(tmp_path: Path, require_program: Callable[[str], str], kind: str) -> None:
    recorder = compile_recorder(tmp_path, require_program("cc"))
    recording = asyncio.run(record(tmp_path, kind, recorder, messages=60, size=4000))
    result = cut(recording, kind, tmp_path, cuts=12, seed=1)
    assert result.cuts == 24
    assert result.lost == []
    # The proof can fail: a server that says 250 a little too early would be found out.
    early = {number: max(0, at - 100_000) for number, at in recording.acknowledged.items()}
    assert cut(replace(recording, acknowledged=early), kind, tmp_path, cuts=12, seed=1).lost


def change(kind: str, inode: int, other: int = 0, offset: int = 0, name: str = "", data: bytes = b"") -> Record:
    return Record(kind, inode, other, offset, name, data, 0)


MADE = change("c", _ROOT, _FILE, name="a")
WRITTEN = change("w", _FILE, data=b"hello")
NAME_SYNCED, FILE_SYNCED = change("s", _ROOT), change("s", _FILE)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ([MADE, WRITTEN, FILE_SYNCED], {}),
        ([MADE, WRITTEN, NAME_SYNCED], {"a": b""}),
        ([MADE, WRITTEN, FILE_SYNCED, NAME_SYNCED], {"a": b"hello"}),
        ([MADE, WRITTEN, FILE_SYNCED, NAME_SYNCED, change("t", _FILE, offset=2)], {"a": b"hello"}),
        ([MADE, WRITTEN, FILE_SYNCED, NAME_SYNCED, change("t", _FILE, offset=2), FILE_SYNCED], {"a": b"he"}),
        ([MADE, WRITTEN, FILE_SYNCED, NAME_SYNCED, change("u", _ROOT, name="a")], {"a": b"hello"}),
        ([MADE, WRITTEN, FILE_SYNCED, change("r", _ROOT, _ROOT, name="a", data=b"b"), NAME_SYNCED], {"b": b"hello"}),
    ],
)
def test_the_disk_keeps_what_was_synced(tmp_path: Path, changes: list[Record], left: dict[str, bytes]) -> None:
    disk = Disk(_ROOT)
    for each in changes:
        disk.apply(each)
    disk.cut(tmp_path / "left")
    assert {file.name: file.read_bytes() for file in (tmp_path / "left").iterdir()} == left
