"""A disk that forgets: what is left of recorded writes when the power goes.

The model is stricter than any file system. What was written to a file, or to a directory, is durable when that file or
directory was synced behind it, and not before. What was not synced when the power goes is lost, or, as a disk may do
what it likes until then, some of it is there: any blocks of any file, and of each directory any number of its changes
from the first one on.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEAD = struct.Struct("=6Q")
_BLOCK = 512  # octets that a disk writes as a whole


@dataclass(frozen=True, slots=True)
class Record:
    """One change, as recorder.c writes it.

    Attributes:
        kind: c: a file was made, d: a directory, w: written, t: cut to a length, s: synced, u: unlinked, r: renamed.
        inode: of the file, or of the directory that has the entry.
        other: the inode of what was made; the target's directory.
        offset: of what was written; the length.
        name: of the entry.
        data: what was written; the new name.
        end: where the record ends in the log.
    """

    kind: str
    inode: int
    other: int
    offset: int
    name: str
    data: bytes
    end: int


def records(log: Path) -> Iterator[Record]:
    """The records of a log."""
    octets = log.read_bytes()
    place = 0
    while place < len(octets):
        kind, inode, other, offset, name_length, data_length = _HEAD.unpack_from(octets, place)
        place += _HEAD.size
        name = octets[place : place + name_length].decode()
        place += name_length
        data = octets[place : place + data_length]
        place += data_length
        yield Record(chr(kind), inode, other, offset, name, data, place)


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)


@dataclass
class _Directory:
    durable: dict[str, _File | _Directory] = field(default_factory=dict)
    pending: list[tuple[str, _File | _Directory | None]] = field(default_factory=list)
    now: dict[str, _File | _Directory] = field(default_factory=dict)


class Disk:
    """The state of the files below a directory, as the records that were applied have left it.

    Args:
        root: the inode of the directory, which is there and durable.
    """

    def __init__(self, root: int) -> None:
        self._root = _Directory()
        self._inodes: dict[int, _File | _Directory] = {root: self._root}

    def apply(self, record: Record) -> None:
        """The next record."""
        match record.kind:
            case "c":
                self._enter(record, _File())
            case "d":
                self._enter(record, _Directory())
            case "u":
                self._set(record.inode, record.name, None)
            case "r":
                self._rename(record)
            case "s":
                _sync(self._inodes[record.inode])
            case _:
                file = self._inodes[record.inode]
                assert isinstance(file, _File)
                file.pending.append(record)

    def _enter(self, record: Record, made: _File | _Directory) -> None:
        self._inodes[record.other] = made
        self._set(record.inode, record.name, made)

    def _set(self, inode: int, name: str, entry: _File | _Directory | None) -> None:
        directory = self._inodes[inode]
        assert isinstance(directory, _Directory)
        directory.pending.append((name, entry))
        _change(directory.now, name, entry)

    def _rename(self, record: Record) -> None:
        source = self._inodes[record.inode]
        assert isinstance(source, _Directory)
        moved = source.now[record.name]
        self._set(record.inode, record.name, None)
        self._set(record.other, record.data.decode(), moved)

    def cut(self, directory: Path, chance: random.Random | None = None) -> None:
        """Writes what is left when the power goes now.

        Args:
            directory: where to; it is made.
            chance: decides what of the unsynced is there; None: nothing.
        """
        _write(self._root, directory, chance)


def _sync(what: _File | _Directory) -> None:
    if isinstance(what, _File):
        for record in what.pending:
            _apply(what.durable, record)
    else:
        for name, entry in what.pending:
            _change(what.durable, name, entry)
    what.pending.clear()


def _change(entries: dict[str, _File | _Directory], name: str, entry: _File | _Directory | None) -> None:
    if entry is None:
        entries.pop(name, None)
    else:
        entries[name] = entry


def _apply(octets: bytearray, record: Record, blocks: random.Random | None = None) -> None:
    """Applies a record; with `blocks`, only those of its blocks that chance has chosen."""
    if record.kind == "t":
        del octets[record.offset :]
        octets.extend(bytes(record.offset - len(octets)))
        return
    end = record.offset + len(record.data)
    octets.extend(bytes(max(0, end - len(octets))))
    if blocks is None:
        octets[record.offset : end] = record.data
        return
    place = record.offset
    while place < end:
        until = min(end, place - place % _BLOCK + _BLOCK)
        if blocks.random() < 0.5:
            octets[place:until] = record.data[place - record.offset : until - record.offset]
        place = until


def _write(directory: _Directory, path: Path, chance: random.Random | None) -> None:
    path.mkdir()
    entries = dict(directory.durable)
    if chance:
        for name, entry in directory.pending[: chance.randint(0, len(directory.pending))]:
            _change(entries, name, entry)
    for name, entry in entries.items():
        if isinstance(entry, _Directory):
            _write(entry, path / name, chance)
            continue
        octets = bytearray(entry.durable)
        if chance:
            for record in entry.pending:
                if chance.random() < 0.7:
                    _apply(octets, record, chance)
        (path / name).write_bytes(octets)
