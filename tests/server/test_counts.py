"""Commands by verb, replies by class, and the time of hooks: what gathers on the hot path is counted, all of it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.server.admin_client import ADMIN, AdminClient
from tests.server.client import Client
from tests.server.running import running
from tests.server.waiting import until

BENCH = "loadtest.bench_app:"


def counted(counts: Mapping[str, int]) -> dict[str, int]:
    """Those that are not zero."""
    return {name: count for name, count in counts.items() if count}


def wait_for(admin: AdminClient, name: str, expected: Any) -> None:
    """Counts come to the scoreboard within a second."""

    def look() -> bool:
        return bool(counted(admin.status()["totals"][name]) == expected)

    until(look, f"{name} = {expected}; there is {counted(admin.status()['totals'][name])}")


def talk(client: Client) -> None:
    """A message, and commands of many kinds: 14 commands, 15 replies with the banner and the one to the content."""
    client.greet()
    client.deliver()
    client.ask("noop", "250")
    client.ask("NOOP\tx", "250")
    client.ask("RSET", "250")
    client.ask("VRFY x", "252")
    client.ask("ETRN x", "502")
    client.ask("NONSENSE", "500")
    client.ask("AUTH PLAIN", "502")
    client.ask("DATA", "503")
    client.ask("HELO x", "250")
    client.quit()


COMMANDS = {
    **{"EHLO": 1, "HELO": 1, "MAIL": 1, "RCPT": 1, "DATA": 2, "NOOP": 2, "RSET": 1, "VRFY": 1, "AUTH": 1, "QUIT": 1},
    "other": 1,  # ETRN; what is no command at all is a refusal only
}


def test_commands_by_verb_and_replies_by_class(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", *ADMIN) as server:
        admin = AdminClient.of(server)
        with server.connect() as client:
            talk(client)
        wait_for(admin, "commands", COMMANDS)
        wait_for(admin, "replies", {"2xx": 11, "3xx": 1, "5xx": 4})


def test_a_worker_that_leaves_counts_what_it_has(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", *ADMIN) as server:
        admin = AdminClient.of(server)
        with server.connect() as client:
            talk(client)
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("has left")
        wait_for(admin, "commands", COMMANDS)


def test_a_flight_of_many_commands(tmp_path: Path) -> None:
    """More than gather before they are counted."""
    with (
        running(tmp_path, "--store=discard:", "--max-junk-commands=100000", *ADMIN) as server,
        server.greeted() as client,
    ):
        client.send(b"NOOP\r\n" * 5000 + b"QUIT\r\n")
        assert client.rest().count(b"250 2.0.0 ok\r\n") == 5000
        wait_for(AdminClient.of(server), "commands", {"EHLO": 1, "NOOP": 5000, "QUIT": 1})


@pytest.mark.parametrize(("handler", "count"), [("ThreadHooks", 3), ("AsyncHooks", 0)])
def test_the_time_of_hooks(tmp_path: Path, handler: str, count: int) -> None:
    """Hooks in threads and hooks that wait; one that answers at once on the loop is no wait for anybody else."""
    with running(tmp_path, f"{BENCH}{handler}", "--store=discard:", *ADMIN) as server:
        admin = AdminClient.of(server)
        with server.greeted() as client:
            client.deliver()
        wait_for(admin, "messages", {"accepted": 1})
        wait_for(admin, "commands", {"EHLO": 1, "MAIL": 1, "RCPT": 1, "DATA": 1})
        found = admin.status()["totals"]["hook_seconds"]
        assert found["count"] == count
        assert (found["sum"] > 0) == bool(count)
