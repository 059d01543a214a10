"""``make loadtest``: a server and Locust on this machine, their figures compared, pages written, an exit code."""

from __future__ import annotations

import re
from pathlib import Path

from tests.loadtest.locusts import run_program


def local_run(pages: Path, *arguments: str) -> tuple[int, str]:
    short = ("--seconds", "4", "--users", "4", "--rate", "0", "--shape", "closed", "--pages", str(pages))
    return run_program("loadtest.local.run", *short, *arguments)


def test_it_leaves_pages_and_both_count_the_same_messages(tmp_path: Path) -> None:
    code, output = local_run(tmp_path, "--max-p95-ms", "5000", "--max-p99-ms", "5000")
    assert code == 0, output
    found = re.search(r"messages: (\d+) by Locust, (\d+) by the server", output)
    assert found is not None, output
    by_locust, by_server = map(int, found.groups())
    assert by_locust > 0
    assert abs(by_locust - by_server) <= 0.01 * by_server
    assert "message" in (tmp_path / "report.html").read_text()
    plots = (tmp_path / "plots.html").read_text()
    assert plots.count("<svg") == 1
    assert plots.rstrip().endswith("</svg>")


def test_a_slow_server_fails_the_run(tmp_path: Path) -> None:
    """Its handler takes 900 ms for each message; the limit is that of `make loadtest`, 500 ms."""
    code, output = local_run(tmp_path, "--app", "tests.loadtest.apps:Slow")
    assert code == 1, output
    assert re.search(r"threshold missed: p95 of messages: \d+ ms, at most 500", output)
