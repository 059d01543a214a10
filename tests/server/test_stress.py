"""Scarce connections (standards.md D, `stress_at`): less patience with each, until there are enough again."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from fastsmtp.config import Config
from fastsmtp.protocol.memory import BufferPool
from fastsmtp.protocol.service import NoMemory
from fastsmtp.server.entrance import Entrance
from fastsmtp.server.reception import Reception
from fastsmtp.server.services import make_service
from tests.server.running import Server, running

FLAGS = ("--store=discard:", "--hostname=mx.example", "--error-delay=0", "--max-connections=10", "--stress-at=0.5")
TOO_MANY_ERRORS = "421 4.7.0 mx.example too many errors"
TOO_MUCH_JUNK = "421 4.7.0 mx.example too many commands without mail"


def _crowd(server: Server, stack: ExitStack, count: int) -> None:
    for _ in range(count):
        stack.enter_context(server.greeted())


def test_few_errors_and_little_noise_under_stress(tmp_path: Path) -> None:
    with running(tmp_path, *FLAGS) as server, server.greeted() as patient, ExitStack() as after:
        for _ in range(6):
            patient.ask("BOGUS", "500")
        with ExitStack() as crowd:
            _crowd(server, crowd, 3)
            erring, noisy = (after.enter_context(server.greeted()) for _ in range(2))
            server.wait_for_log("6 connections: under stress")
            for _ in range(4):
                erring.ask("BOGUS", "500")
            erring.ask("BOGUS", "500")
            erring.expect(TOO_MANY_ERRORS)
            for _ in range(5):
                noisy.ask("NOOP", "250")
            noisy.ask("NOOP", TOO_MUCH_JUNK)
            patient.ask("BOGUS", "500")  # the errors of before count, too
            patient.expect(TOO_MANY_ERRORS)
            _crowd(server, crowd, 2)
            with server.greeted() as honest:
                for _ in range(3):
                    honest.deliver()
                honest.quit()
        server.wait_for_log("stress is over")
        with server.greeted() as calm:
            for _ in range(6):
                calm.ask("BOGUS", "500")
                calm.ask("NOOP", "250")
            calm.quit()
        assert server.log.count(" WARNING ") == 2
        assert len(server.wait_for_access(3, 'reply="421 4.7.0"')) == 3


def test_at_the_limit_it_does_not_waver(tmp_path: Path) -> None:
    """It begins with 5 of 10 connections, and is over with 4."""
    with running(tmp_path, *FLAGS) as server, ExitStack() as crowd:
        _crowd(server, crowd, 4)
        with server.greeted():
            server.wait_for_log("5 connections: under stress")
        server.wait_for_log("4 connections: stress is over")


class _Reception:
    """As much of a reception as an entrance looks at."""

    now = 1000.0
    retiring = False


@pytest.mark.parametrize(
    ("settings", "calm", "hurried"),
    [
        ({}, (300, 30), (10, 10)),
        ({"command_timeout": 5, "tls_handshake_timeout": 6}, (5, 6), (5, 6)),
        ({"command_timeout": 60}, (60, 30), (10, 10)),
    ],
)
def test_little_time_under_stress(
    settings: dict[str, object], calm: tuple[float, float], hurried: tuple[float, float]
) -> None:
    """10 s are too long for a test; so the entrance alone is asked, from which connections take their deadlines."""
    config = Config.of(hostname="mx.example", **settings)
    reception = _Reception()
    service = make_service(config, BufferPool(), [], NoMemory())
    entrance = Entrance(cast(Reception, reception), config, service, None, None, "")

    def times() -> tuple[float, float]:
        entrance.look_at_the_clock(2000.0)
        return entrance.command_deadline - 2000.0, entrance.handshake_timeout

    assert times() == calm
    for _ in range(2):
        entrance.be_stressed(True)
        assert times() == hurried
        assert (service.limits.max_errors, service.limits.max_junk_commands) == (5, 5)
        entrance.be_stressed(False)
        assert times() == calm
        assert (service.limits.max_errors, service.limits.max_junk_commands) == (20, 100)
