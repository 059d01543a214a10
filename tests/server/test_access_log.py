"""One line for each message, one for each session that brought none, and nothing a client says can forge a field."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastsmtp.protocol.envelope import Endpoint
from fastsmtp.server.access_log import AccessLog
from tests.server.client import Client
from tests.server.running import Server, running

MESSAGE_FIELDS = ["event", "id", "peer", "helo", "proto", "from", "to", "rcpts", "refused", "size", "reply", "ms"]
SESSION_FIELDS = ["event", "id", "peer", "helo", "errors", "end", "ms"]
FIELDS = {
    "message": [MESSAGE_FIELDS],
    "session": [SESSION_FIELDS, [*SESSION_FIELDS[:-1], "reply", "ms"]],
    "refused": [["event", "id", "peer", "helo", "command", "reply"]],
}
MESSAGE, SESSION, REFUSED = (
    {"text": f" event={event} ", "json": f'"event":"{event}"'} for event in ("message", "session", "refused")
)
_STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
_FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?= |$)')


def _text(line: str) -> dict[str, Any]:
    """A line of text, read as its format says: key=value, where a value with anything odd is a JSON string."""
    stamp, rest = re.fullmatch(rf"({_STAMP})(.*)", line, re.ASCII).groups()  # type: ignore[union-attr]  # fails loudly
    fields, position = {"time": stamp}, 0
    while position < len(rest):
        match = _FIELD.match(rest, position)
        assert match, f"{line!r} at {rest[position:]!r}"
        assert match[1] not in fields, line
        fields[match[1]] = json.loads(match[2]) if match[2].startswith('"') else match[2]
        position = match.end()
    return fields


def _json(line: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), line
        return dict(pairs)

    fields: dict[str, Any] = json.loads(line, object_pairs_hook=once)
    assert re.fullmatch(_STAMP, fields["time"])
    return fields


@pytest.fixture(params=["text", "json"])
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _parsed(format: str, lines: list[str]) -> list[dict[str, Any]]:
    read: Callable[[str], dict[str, Any]] = _json if format == "json" else _text
    parsed = [read(line) for line in lines]
    for fields in parsed:
        stamp, *names = fields
        assert stamp == "time"
        assert names in FIELDS[fields["event"]]
    return parsed


def _bare(address: str) -> str:
    """An address without its brackets, which only the text format has."""
    return address.removeprefix("<").removesuffix(">")


def _meant(address: str) -> str:
    """An address without the quotes of its local part; a log may write them or not."""
    local, _, domain = address.rpartition("@")
    if local.startswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return f"{local}@{domain}"


def _serve(directory: Path, format: str) -> Any:
    return running(directory, "tests.server.apps:Refusing", f"--log-format={format}", "--hostname=mx.example")


def test_one_line_for_each_message(tmp_path: Path, format: str) -> None:
    with _serve(tmp_path, format) as server:
        with server.connect() as client:
            client.greet("[192.0.2.9]")
            client.deliver(b"x\r\n")
            client.ask("MAIL FROM:<>", "250")
            client.ask("RCPT TO:<nobody@b.example>", "550")
            client.ask("RCPT TO:<b@b.example>", "250")
            client.ask("RCPT TO:<c@b.example>", "250")
            client.ask("DATA", "354")
            client.send(b"spam\r\n.\r\n")
            client.expect("554 5.7.1 spam")
            port = client.port
            client.quit()
        one, two = _parsed(format, server.wait_for_access(2, MESSAGE[format]))
        assert (one["event"], two["event"]) == ("message", "message")
        assert one["id"] != two["id"]
        assert one["peer"] == two["peer"] == f"127.0.0.1:{port}"
        assert one["helo"] == "[192.0.2.9]"
        assert [one[name] for name in ("proto", "reply")] == ["ESMTP", "250 2.0.0"]
        assert [str(one[name]) for name in ("rcpts", "refused", "size")] == ["1", "0", "3"]
        assert (_bare(one["from"]), _bare(one["to"])) == ("a@a.example", "b@b.example")
        assert [str(two[name]) for name in ("rcpts", "refused", "size")] == ["2", "1", "6"]
        assert (_bare(two["from"]), _bare(two["to"])) == ("", "b@b.example")
        assert two["reply"] == "554 5.7.1"


def test_one_line_for_each_session_without_a_message(tmp_path: Path, format: str) -> None:
    def quits(client: Client) -> None:
        client.greet().quit()

    def goes(client: Client) -> None:
        client.greet()
        client.ask("FROB", "500")

    def is_thrown_out(client: Client) -> None:
        client.expect("220")
        client.ask("GET / HTTP/1.1", "521")

    with _serve(tmp_path, format) as server:
        ends = []
        for number, act in enumerate((quits, goes, is_thrown_out), 1):
            with server.connect() as client:
                act(client)
            ends.append(_parsed(format, server.wait_for_access(number, SESSION[format]))[-1])
        assert [fields["event"] for fields in ends] == ["session"] * 3
        assert [fields["end"] for fields in ends] == ["quit", "closed by client", "closed by server"]
        assert [str(fields["errors"]) for fields in ends[:2]] == ["0", "1"]
        assert [fields.get("reply") for fields in ends] == [None, None, "521 5.5.1"]
        assert [fields["helo"] for fields in ends] == ["client.example", "client.example", ""]
        with server.greeted() as client:
            client.deliver()
            client.quit()
        server.wait_for_access(1, MESSAGE[format])
        assert len(server.wait_for_access(3, SESSION[format])) == 3


def test_one_line_for_each_command_that_is_refused(tmp_path: Path, format: str) -> None:
    commands = ["FROB", "MAIL FROM:<a b>", 'EHLO "\\" event=message', "NOOP \x7f", "AUTH PLAIN AHRlc3QAc2VjcmV0"]
    with _serve(tmp_path, format) as server:
        with server.greeted() as client:
            replies = [client.ask(command, "5") for command in commands]
            client.ask("MAIL FROM:<a@a.example>", "250")
            replies.append(client.ask("RCPT TO:<nobody@b.example>", "550"))
            client.quit()
        lines = _parsed(format, server.wait_for_access(len(replies), REFUSED[format]))
        # Of AUTH no more than the mechanism: what stands behind it is a password.
        assert [fields["command"] for fields in lines] == [*commands[:-1], "AUTH PLAIN", "RCPT TO:<nobody@b.example>"]
        assert [fields["reply"] for fields in lines] == [reply.rstrip("\r\n") for reply in replies]
        assert "c2VjcmV0" not in "".join(server.access_log)


HOSTILE = [
    ('"a b"@a.example', ""),
    ('" event=message reply=250 "@a.example', ""),
    (r'"x\" reply=\"250 2.0.0\" x=\""@a.example', ""),
    (r'"\\"@a.example', ""),
    ('"x> to=<admin"@a.example', ""),
    ("a=b@a.example", ""),
    ("{}@a.example", ""),
    ("jörg@exämple.org", " SMTPUTF8"),
    ("用户@例子.广告", " SMTPUTF8"),
    ("\U0001f4e7@a.example", " SMTPUTF8"),
    ('"ä b"@a.example', " SMTPUTF8"),
    ("a\u00a0b@a.example", " SMTPUTF8"),
]


def test_a_hostile_sender_cannot_forge_a_field(tmp_path: Path, format: str) -> None:
    with _serve(tmp_path, format) as server, server.greeted() as client:
        for address, parameter in HOSTILE:
            client.ask(f"MAIL FROM:<{address}>{parameter}", "250")
            client.ask(f"RCPT TO:<{address}>", "250")
            client.ask("DATA", "354")
            client.send(b"x\r\n.\r\n")
            client.expect("250")
        client.quit()
        lines = server.wait_for_access(len(HOSTILE))
        for fields, (address, parameter) in zip(_parsed(format, lines), HOSTILE, strict=True):
            assert fields["reply"] == "250 2.0.0"
            assert fields["proto"] == ("UTF8SMTP" if parameter else "ESMTP")
            for name in ("from", "to"):
                assert _meant(_bare(fields[name])) == _meant(address)


def test_a_hostile_client_name_is_refused_or_escaped(tmp_path: Path, format: str) -> None:
    names = ["a b", 'a"b', "a=b", "a\\b", "ä.example", "a,b", "{}", "a;b"]
    taken = []
    with _serve(tmp_path, format) as server:
        for count, name in enumerate(names, 1):
            with server.connect() as client:
                client.expect("220")
                taken.append("" if client.ask(f"EHLO {name}", "").startswith("501") else name)
                client.ask("QUIT", "221")
            server.wait_for_access(count, SESSION[format])  # one behind the other, so that the lines are in this order
        assert [
            fields["helo"] for fields in _parsed(format, server.wait_for_access(len(names), SESSION[format]))
        ] == taken


def test_the_log_of_the_server_is_json_too(tmp_path: Path) -> None:
    app = tmp_path / "raising.py"
    app.write_text(
        "import fastsmtp\n\nclass App(fastsmtp.Handler):\n    async def noop(self, session, argument):\n"
        "        raise ValueError('two\\nlines \"quoted\"')\n"
    )
    with running(tmp_path, "raising:App", "--log-format=json") as server:
        server.greeted().ask("NOOP", "451")
        server.close_clients()
        assert server.stop() == 0
        _check_json(server)


def _check_json(server: Server) -> None:
    records = [json.loads(line) for line in server.log.splitlines()]
    assert {record["event"] for record in records} == {"log"}
    (raised,) = [record for record in records if "exception" in record]
    assert raised["level"] == "error"
    assert "two\nlines" in raised["exception"]
    for line in server.access_log:
        json.loads(line)


def test_lines_are_complete_when_a_worker_stops(tmp_path: Path, format: str) -> None:
    with _serve(tmp_path, format) as server:
        for _ in range(5):
            with server.greeted() as client:
                client.deliver()
                client.quit()
        assert server.stop() == 0
        assert len(_parsed(format, server.access_log)) == 5


def test_lines_of_several_workers_are_not_mixed_in_a_pipe() -> None:
    """A pipe takes up to 4096 octets as one piece; this one tells where a write has ended, or was cut in two."""
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    log = AccessLog(writing, "text", lambda delay, call: None)
    for number in range(100):
        log.turned_away(Endpoint("192.0.2.1", number), "x" * 150, 0.0)
    log.flush()
    os.close(writing)
    pieces = list(iter(lambda: os.read(reading, 65536), b""))
    os.close(reading)
    assert len(pieces) > 1
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert b"".join(pieces).count(b"event=turned-away") == 100
