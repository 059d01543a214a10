"""docs/logs.md has the fields that the lines of a real server have: names, order, types."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.server.logins import PASSWORD
from tests.server.running import running
from tests.server.saslclient import plain
from tests.server.secured import issue, start_tls

PAGE = (Path(__file__).parents[1] / "docs" / "logs.md").read_text()
SECTIONS = dict(re.findall(r"(?ms)^## [\w ]+: `([\w-]+)`$(.*?)(?=^## |\Z)", PAGE))
EVENTS = {event: dict(re.findall(r"(?m)^\| `(\w+)` \| (\w+) \|", section)) for event, section in SECTIONS.items()}
OPTIONAL = {"tls", "user", "exception"}
TYPES: dict[str, type | tuple[type, ...]] = {"string": str, "number": (int, float)}


def make_every_event(tmp_path: Path, *arguments: str) -> tuple[list[str], str]:
    """The lines of a server to which everything has happened: the access log, and its own."""
    certificate = issue(tmp_path, trustme.CA(), "localhost")
    application = tmp_path / "example.py"
    application.write_text(
        "from tests.server.logins import InlineLogins\n"
        "class Example(InlineLogins):\n"
        "    async def vrfy(self, session, name):\n"
        "        raise LookupError(name)\n"
    )
    flags = ("--store=discard:", f"--tls-certfile={certificate}", *arguments)
    environ = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"}
    with running(tmp_path, "example:Example", *flags, environ=environ) as server:
        with server.greeted() as client:
            client.socket = start_tls(client)
            client.ask("EHLO inside", "250")
            client.ask(plain("alice", PASSWORD), "235")
            client.ask("RCPT TO:<a@b.example>", "503")
            client.ask("VRFY somebody", "451")
            client.deliver()
            client.quit()
        with server.greeted() as client:
            client.socket = start_tls(client)
            client.ask("EHLO inside", "250")
            client.ask(plain("alice", PASSWORD), "235")
            client.quit()
        with server.greeted() as client:
            client.ask("STARTTLS", "220")
            client.send(b"this is no handshake\r\n")
            client.rest()
        with server.greeted() as client:
            client.begin_data()
            server.send_signal(signal.SIGTERM)
            server.wait_for_log("stopping")
            client.send(b".\r\n")
            client.expect("250")
            client.expect("421")
        server.wait()
        return server.access_log, server.log


def check(event: str, fields: Iterable[str]) -> None:
    """These fields are described, in this order; only some may be missing."""
    fields = list(fields)
    described = EVENTS[event]
    assert [name for name in described if name in fields] == fields
    missing = set(described) - set(fields)
    assert missing <= OPTIONAL | ({"reply"} if event == "session" else set())


def test_json(tmp_path: Path) -> None:
    access, own = make_every_event(tmp_path, "--log-format=json")
    seen: dict[str, set[str]] = {event: set() for event in EVENTS}
    for line in [*access, *own.splitlines()]:
        record: dict[str, Any] = json.loads(line)
        event = record["event"]
        check(event, record)
        for name, value in record.items():
            assert isinstance(value, TYPES[EVENTS[event][name]]), (event, name, value)
        seen[event] |= set(record)
    assert seen == {event: set(described) for event, described in EVENTS.items()}  # nothing else is described


def test_text(tmp_path: Path) -> None:
    access, own = make_every_event(tmp_path)
    for line in access:
        names = re.findall(r' ([a-z]+)=(?:"(?:[^"\\]|\\.)*"|\S*)', line)
        (event,) = re.findall(r" event=(\S+)", line)
        check(event, ["time", *names])
    assert re.search(r"(?m)^\S+Z (INFO|WARNING|ERROR) fastsmtp\.master: ", own)


@pytest.mark.parametrize("end", ["quit", "closed by client", "closed by server"])
def test_ends_of_sessions_are_described(end: str) -> None:
    assert f"`{end}`" in SECTIONS["session"]
