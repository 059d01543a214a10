"""Rolling replacements, and scaling, under load: nobody is refused, reset or failed."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

from loadtest.chaos.load import Load, Outcome
from tests.server.running import Server, running
from tests.server.waiting import until

APP = "loadtest.chaos.apps:Pids"
_AT_LEAST = 32  # messages between two replacements


def replace(directory: Path, times: int, sessions: int, workers: int = 2) -> Outcome:
    """HUP so many times, each when the last one is done."""
    with (
        running(directory, APP, workers=workers) as server,
        Load(server.host_and_port, sessions) as load,
    ):
        for number in range(1, times + 1):
            _let_come(load)
            server.send_signal(signal.SIGHUP)
            server.wait_for_log("reload: done", 60, count=number)
        _let_come(load)
        return _ended(load, server)


def scale(directory: Path, rounds: int, sessions: int) -> Outcome:
    """From 4 workers to 1 and back, so many times."""
    with (
        running(directory, APP, workers=4) as server,
        Load(server.host_and_port, sessions) as load,
    ):
        for _ in range(rounds):
            for number, wanted in ((signal.SIGTTOU, (3, 2, 1)), (signal.SIGTTIN, (2, 3, 4))):
                for count in wanted:
                    _let_come(load)
                    server.send_signal(number)
                    until(partial(_has, server, count), f"{count} workers", 60)
        _let_come(load)
        return _ended(load, server)


def _has(server: Server, workers: int) -> bool:
    return len(server.workers) == workers


def _let_come(load: Load) -> None:
    before = load.delivered
    until(lambda: load.delivered >= before + _AT_LEAST, "messages", 60)


def _ended(load: Load, server: Server) -> Outcome:
    outcome = load.stop()
    assert server.stop() == 0, server.log
    return outcome
