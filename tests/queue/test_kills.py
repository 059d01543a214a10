"""Kills at random moments under load lose nothing; ``make durability`` does the same for longer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from loadtest.durability.kills import Counts, prove
from loadtest.durability.postgresql import PostgreSQL, find_programs, running


def test_kills_with_a_queue_on_this_machine(tmp_path: Path) -> None:
    counts = asyncio.run(prove(tmp_path, f"queue:{tmp_path}/queue", 6, None))
    assert counts.holds, counts
    assert sum(counts.kills.values()) >= 2


def test_kills_with_postgresql(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """With a server of its own: it is among what is killed."""
    programs = find_programs()
    assert programs
    with running(programs) as server:
        counts = asyncio.run(prove(tmp_path, server.url, 6, server))
    assert counts.holds, counts
    assert sum(counts.kills.values()) >= 2


@pytest.mark.parametrize(
    ("lost", "invented", "repeated", "holds"),
    [(0, 0, 0, True), (0, 0, 9, True), (1, 0, 0, False), (0, 1, 0, False), (0, 0, 10**6, False)],
)
def test_the_count_can_fail(lost: int, invented: int, repeated: int, holds: bool) -> None:
    assert Counts(10, 9, 9, lost, invented, repeated, {"worker": 1}).holds is holds
