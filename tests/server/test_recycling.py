"""Workers are replaced after so many connections, so much time, so much memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fastsmtp.config import Config
from fastsmtp.server.columns import CONNECTIONS, RSS_BYTES, WIDTH
from fastsmtp.server.recycling import Allowance
from tests.server.admin_client import ADMIN, AdminClient
from tests.server.running import running
from tests.server.waiting import until

PIDS = "tests.server.apps:Pids"


def _cells(**values: int) -> list[int]:
    cells = [0] * WIDTH
    cells[CONNECTIONS], cells[RSS_BYTES] = values.get("connections", 0), values.get("rss", 0)
    return cells


def test_nothing_is_used_up_by_default() -> None:
    allowance = Allowance.of(Config(), _cells(), 0.0)
    assert allowance.used_up(_cells(connections=10**9, rss=10**12), 10**9) is None


@pytest.mark.parametrize(
    ("settings", "before", "after", "reason"),
    [
        ({"max_requests": 10}, (100 + 9, 0, 0.0), (100 + 10, 0, 0.0), "max_requests"),
        ({"max_lifetime": 60}, (0, 0, 1059.9), (0, 0, 1060.0), "max_lifetime"),
        ({"max_rss": "1G"}, (0, 2**30 - 1, 2000.0), (0, 2**30, 2000.0), "max_rss, with 1024 MiB"),
        ({"max_rss": "1G"}, (0, 2**31, 1001.0), (0, 2**31, 1010.0), "max_rss, with 2048 MiB"),  # not in a storm
    ],
)
def test_when_it_is_used_up(
    settings: dict[str, object], before: tuple[int, int, float], after: tuple[int, int, float], reason: str
) -> None:
    """What the row has counted before is not the new worker's."""
    allowance = Allowance.of(Config.of(**settings), _cells(connections=100), 1000.0)
    for (connections, rss, now), expected in ((before, None), (after, reason)):
        assert allowance.used_up(_cells(connections=connections, rss=rss), now) == expected


def test_jitter_spreads() -> None:
    config = Config.of(max_requests=100, max_requests_jitter=50, max_lifetime=100, max_lifetime_jitter=50)
    made = [Allowance.of(config, _cells(), 0.0) for _ in range(200)]
    assert {each.connections for each in made} <= set(range(100, 151))
    assert all(100 <= each.until <= 150 for each in made)
    assert len({each.connections for each in made}) > 10
    assert len({each.until for each in made}) > 100


def test_a_worker_is_replaced_after_so_many_connections(tmp_path: Path) -> None:
    with running(tmp_path, PIDS, *ADMIN, "--max-requests=5", "--drain-idle=0.1") as server:
        admin = AdminClient.of(server)
        first = admin.pids()
        for _ in range(6):
            server.connect().expect("220 pid ")
        server.wait_for_log(rf"worker 0 \(pid {first[0]}\) is replaced: max_requests")
        until(lambda: not set(first) & set(admin.pids()), "the old one has left")
        assert admin.status()["totals"]["worker_recycles"] == 1
        assert admin.status()["totals"]["worker_deaths"] == 0
        assert admin.status()["last_reload"] is None
        server.connect().expect("220 pid ")


def test_a_worker_is_replaced_after_its_time(tmp_path: Path) -> None:
    with running(tmp_path, PIDS, "--max-lifetime=1", "--drain-idle=0.1") as server:
        server.wait_for_log("is replaced: max_lifetime", count=2)
        server.connect().expect("220 pid ")


def test_a_successor_that_does_not_start_is_tried_again_later(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("from tests.server.apps import Pids as App\n")
    with running(tmp_path, "app:App", "--max-requests=1") as server:
        worker = server.worker
        app.write_text("raise RuntimeError('half a deployment')\n")
        server.connect().expect(f"220 pid {worker}")
        server.wait_for_log(r"worker 0: its successor did not start \(exit code 3\); the old one stays$")
        server.connect().expect(f"220 pid {worker}")
        assert server.log.count("is replaced: max_requests") == 1  # not in a storm
        os.kill(worker, signal.SIGKILL)
        app.write_text("from tests.server.apps import Pids as App\n")
        server.connect().expect("220 pid ")
