"""A stop under load, with sessions idle, in a transaction, in DATA and in a hook: each gets what it was promised."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.chaos.load import Load, message, stored
from tests.server.client import Client
from tests.server.running import running

APP = "loadtest.chaos.apps:Slow"
_FIRST = 10**6  # numbers of these messages, so that they are none of the load's


@dataclass
class Stopped:
    """What each session heard, in order; and how the server ended."""

    code: int = -1
    replies: dict[str, list[str]] = field(default_factory=dict)
    unstored: int = -1
    broken: list[tuple[str, str]] = field(default_factory=list)
    log: str = ""


def stop(directory: Path, sessions: int, each: int = 4) -> Stopped:
    """TERM, with so many sessions of each kind."""
    found = Stopped()
    arguments = (APP, "--store=maildir:./mail", "--drain-timeout=10")
    with running(directory, *arguments, workers=2) as server, Load(server.host_and_port, sessions) as load:
        kinds = {name: [server.greeted() for _ in range(each)] for name in ("idle", "in MAIL", "in DATA", "in a hook")}
        for client in kinds["in MAIL"]:
            client.ask("MAIL FROM:<a@chaos.example>", "250")
        for number, client in enumerate(kinds["in DATA"]):
            client.begin_data()
            client.send(message(_FIRST + number)[:100])
        for number, client in enumerate(kinds["in a hook"]):
            client.begin_data(recipient="slow@chaos.example")
            client.send(message(_FIRST + each + number) + b".\r\n")
        server.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        for number, client in enumerate(kinds["in DATA"]):
            client.send(message(_FIRST + number)[100:] + b".\r\n")
        for client in kinds["in MAIL"]:
            client.send(b"RSET\r\n")
        for name, clients in kinds.items():
            for client in clients:
                found.replies.setdefault(name, []).append(_heard(client))
                client.socket.close()
        outcome = load.stop()
        found.code, found.log = server.wait(), server.log
    acknowledged = {*outcome.acknowledged, *(_FIRST + number for number in range(2 * each))}
    found.unstored = len(acknowledged - set(stored(directory / "mail")))
    # New connections are refused, and those without a transaction hear 421: that is the promise. Nothing else may fail.
    found.broken = [(worker, what) for worker, what in outcome.failed if not _is_promised(what)]
    return found


def _heard(client: Client) -> str:
    return " | ".join(line.decode()[:9] for line in client.rest().splitlines())


def _is_promised(what: str) -> bool:
    return "ConnectionRefusedError" in what or "421 4.3.2" in what or "IncompleteReadError(b'')" in what
