"""Two acceptors, two consumers, one database, in network namespaces: one of each dies, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest.durability.machines import machines, prove
from loadtest.durability.postgresql import find_programs


def test_one_acceptor_and_one_consumer_die(
    tmp_path: Path, require_program: Callable[[str], str], postgresql: object
) -> None:
    require_program("ip")
    try:
        with machines(1):
            pass
    except OSError as error:
        reason = f"network namespaces cannot be made here: {error}"
        if os.environ.get("FASTSMTP_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    programs = find_programs()
    assert programs
    counts = asyncio.run(prove(tmp_path, 4, programs))
    assert counts.holds, counts
