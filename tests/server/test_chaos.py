"""Short versions of what `make chaos` does at length. Replacing and scaling are in test_scaling.py, hanging workers in
test_watchdog.py."""

from __future__ import annotations

from pathlib import Path

from loadtest.chaos.__main__ import main
from loadtest.chaos.killing import kill
from loadtest.chaos.stopping import stop


def test_killed_workers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """standards.md T25, E6, E16."""
    found = kill(tmp_path, seconds=4, sessions=16, pause=0.004)
    assert found.kills >= 3
    assert found.lost == 0
    assert found.twice == 0
    assert 0 < found.acknowledged <= found.stored <= found.sent
    assert found.elsewhere == 0
    assert found.failed > 0  # that workers die is seen


def test_a_stop_under_load_keeps_every_promise(tmp_path: Path) -> None:
    """standards.md E11, E12, E14, T08-T10."""
    found = stop(tmp_path, sessions=16)
    accepted = "250 2.0.0 | 421 4.3.2"
    assert {name: set(replies) for name, replies in found.replies.items()} == {
        "idle": {"421 4.3.2"},
        "in MAIL": {accepted},
        "in DATA": {accepted},
        "in a hook": {accepted},
    }
    assert found.broken == []
    assert (found.code, found.unstored) == (0, 0)
    assert "stopped: no session was cut" in found.log


def test_an_unknown_part_is_an_error() -> None:
    assert main(["no-such-part"]) == 2
