"""How child processes end, as the master says it, and that they do not outlive it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fastsmtp.server.children import how_it_ended
from tests.server.running import running


@pytest.mark.parametrize(
    ("code", "says"), [(0, "exit code 0"), (3, "exit code 3"), (-signal.SIGKILL, "signal SIGKILL"), (-40, "signal 40")]
)
def test_how_it_ended(code: int, says: str) -> None:
    assert how_it_ended(code) == says


def test_a_worker_that_a_real_time_signal_ends_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:") as server:
        os.kill(server.worker, 40)
        server.wait_for_log(r"died \(signal 40\); its successor starts")
        server.greeted().deliver()
