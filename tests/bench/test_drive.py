"""The driver without sockets plays every scenario to its end."""

from __future__ import annotations

import re
import subprocess
import sys

from loadtest.bench.drive import SCENARIOS
from tests.server.running import ROOT, environment


def test_every_scenario_is_played() -> None:
    command = [sys.executable, "-m", "loadtest.bench.drive", "--messages", "40"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = re.findall(r"^(\S+) +([\d.]+) us of CPU per message \(40 messages\)$", done.stdout, re.MULTILINE)
    assert [name for name, _ in lines] == list(SCENARIOS)
    assert all(float(figure) > 0 for _, figure in lines)
