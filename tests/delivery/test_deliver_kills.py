"""Kills at random moments: what is acknowledged reaches the next hop. `make durability` does the same for longer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from loadtest.durability.kills import prove


def test_kills_of_everything_between_the_client_and_the_next_hop(tmp_path: Path) -> None:
    counts = asyncio.run(prove(tmp_path, f"queue:{tmp_path}/queue", 6, None, deliver=True))
    assert counts.holds, counts
    assert sum(counts.kills.values()) >= 2
