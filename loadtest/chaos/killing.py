"""Workers are killed at random under load on the Maildir store: nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loadtest.chaos.load import Load, stored
from tests.server.running import running
from tests.server.waiting import until

APP = "loadtest.chaos.apps:Pids"


@dataclass
class Killed:
    """How it went.

    Attributes:
        kills: workers that were killed.
        acknowledged: messages that got their 250.
        stored: messages in the Maildir, each one once.
        twice: messages that are there twice; 0, for nobody sends one again.
        sent: messages that were begun.
        failed: sessions that failed.
        elsewhere: of these the ones whose worker was not killed.
    """

    kills: int
    acknowledged: int
    stored: int
    twice: int
    lost: int
    sent: int
    failed: int
    elsewhere: int


def kill(directory: Path, seconds: float, sessions: int, workers: int = 3, pause: float = 0.0) -> Killed:
    """Kill a worker every second or so, for so long."""
    victims: set[str] = set()
    arguments = (APP, "--store=maildir:./mail", "--drain-timeout=10")
    with (
        running(directory, *arguments, workers=workers) as server,
        Load(server.host_and_port, sessions, pause) as load,
    ):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            before = load.delivered
            until(lambda before=before: load.delivered > before + 20, "messages", 60)  # type: ignore[misc]  # bound now
            if living := server.workers:
                victim = random.choice(living)
                victims.add(str(victim))
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            time.sleep(random.uniform(0.2, 1.0))
        outcome = load.stop()
        server.stop()
    found = stored(directory / "mail")
    return Killed(
        len(victims),
        len(outcome.acknowledged),
        len(found),
        sum(count - 1 for count in found.values()),
        len(set(outcome.acknowledged) - set(found)),
        outcome.begun,
        len(outcome.failed),
        # A session that was accepted without a word cannot be told apart.
        sum(worker not in victims | {""} for worker, _ in outcome.failed),
    )
