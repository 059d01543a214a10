"""Clients that make nothing but errors, or nothing but noise (standards.md S): what they get, when, what is noted."""

from __future__ import annotations

import select
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.server import journal
from tests.server.client import Client
from tests.server.running import running
from tests.server.secured import everything_is_read
from tests.server.waiting import until

APP = "tests.server.apps:TimedOut"  # notes when a session is closed
FLAGS = (APP, "--store=discard:", "--hostname=mx.example")
EARLY = 0.05  # seconds that the clocks of two processes may differ, and a timer's resolution


def _has_reply(client: Client) -> bool:
    return bool(select.select([client.socket], [], [], 0)[0])


def _reply_after(client: Client, delay: float, start: str) -> None:
    """The reply to what was just sent, which must not come earlier."""
    began = time.monotonic()
    client.expect(start)
    assert time.monotonic() - began >= delay - EARLY


def test_a_late_reply_holds_up_nobody_else(tmp_path: Path) -> None:
    """Neither the loop nor the only thread of the pool waits; and the input of that session is not read."""
    flags = ("--threads=1", "--max-junk-commands=2000000000", "--error-delay-after=3", "--error-delay=1.5")
    with (
        running(tmp_path, "tests.server.apps:ThreadGate", *flags) as server,
        server.greeted() as client,
        server.greeted() as other,
    ):
        for _ in range(2):
            client.ask("BOGUS", "500")
        began = time.monotonic()
        client.send(b"MAIL FROM:<a@a.example>\r\nBOGUS\r\n")  # the hook of MAIL takes the flight into the thread
        until(lambda: journal.events(tmp_path, event="mail", port=client.port), "the hook of MAIL")
        client.send(b"NOOP\r\n")  # this may have been read already
        until(lambda: everything_is_read(server.host_and_port[1], client.port) or _has_reply(client), "one read")
        client.send(b"RSET\r\n")
        answered = 0
        while not _has_reply(client):
            other.ask("MAIL FROM:<a@a.example>", "250")
            other.ask("RSET", "250")
            answered += 1
            assert not everything_is_read(server.host_and_port[1], client.port) or _has_reply(client)
        assert time.monotonic() - began >= 1.5 - EARLY
        assert answered > 10
        for start in ("250 2.1.0", "500 5.5.2", "250 2.0.0", "250 2.0.0"):
            client.expect(start)


def test_each_error_beyond_the_limit_waits(tmp_path: Path) -> None:
    flags = ("--error-delay-after=2", "--error-delay=0.2", "--max-errors=5")
    with running(tmp_path, *FLAGS, *flags) as server, server.greeted() as client:
        client.ask("BOGUS", "500")
        for _ in range(3):
            client.send(b"BOGUS\r\n")
            _reply_after(client, 0.2, "500")
        client.ask("NOOP", "250")
        client.send(b"BOGUS\r\nNOOP\r\n")
        _reply_after(client, 0.2, "500")
        client.expect("421 4.7.0 mx.example too many errors")
        client.expect_end()
        (line,) = server.wait_for_access(1, "event=session")
        assert ' errors=5 end="closed by server" reply="421 4.7.0" ' in line
        assert len(server.wait_for_access(5, "event=refused")) == 5


def test_a_flight_of_errors(tmp_path: Path) -> None:
    """The replies stay in the order of the commands, whichever of them wait."""
    flags = ("--error-delay-after=10", "--error-delay=0.1")
    with running(tmp_path, *FLAGS, *flags) as server, server.greeted() as client:
        flight = [b"BOGUS", b"RCPT TO:<b@b.example>", b"EHLO a b", b"NOOP"] * 5 + [b"QUIT"]
        began = time.monotonic()
        client.send(b"\r\n".join(flight) + b"\r\n")
        for start in ["500 5.5.2", "503 5.5.1", "501 5.5.4", "250 2.0.0"] * 5 + ["221 2.0.0"]:
            client.expect(start)
        client.expect_end()
        assert time.monotonic() - began >= 6 * 0.1 - EARLY


@pytest.mark.parametrize("end", [Client.reset, Client.shut, lambda client: client.socket.close()])
def test_a_client_that_leaves_while_its_reply_waits(tmp_path: Path, end: object) -> None:
    """Its place is free again, at the latest when the delay is over."""
    flags = ("--error-delay-after=1", "--error-delay=0.5", "--max-connections=1", "--linger-timeout=0")
    with running(tmp_path, *FLAGS, *flags) as server:
        with server.greeted() as client:
            port = client.port
            client.send(b"BOGUS\r\n")
            until(lambda: everything_is_read(server.host_and_port[1], port), "the command is read")
            assert callable(end)
            end(client)
            if end is Client.shut:
                client.expect("500 5.5.2")
                client.expect_end()
        until(lambda: journal.events(tmp_path, hook="closed", port=port), "the closed hook", 4)

        def is_admitted() -> bool:
            with server.connect() as other:
                return other.reply().startswith("220")

        until(is_admitted, "the place is free")
        (line,) = server.wait_for_access(1, f"peer=127.0.0.1:{port} helo=client.example errors=1 end=")
        assert ' end="closed by client"' in line
        assert "ERROR" not in server.log


def test_a_stop_while_a_reply_waits(tmp_path: Path) -> None:
    flags = ("--error-delay-after=1", "--error-delay=1")
    with running(tmp_path, *FLAGS, *flags) as server, server.greeted() as idle, server.greeted() as busy:
        busy.ask("MAIL FROM:<a@a.example>", "250")
        for client in (idle, busy):
            client.send(b"BOGUS\r\n")
            until(partial(everything_is_read, server.host_and_port[1], client.port), "the command is read")
        server.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        idle.expect("500 5.5.2")
        idle.expect("421 4.3.2")
        busy.expect("500 5.5.2")
        busy.ask("RCPT TO:<b@b.example>", "250")
        busy.ask("DATA", "354")
        busy.send(b"x\r\n.\r\n")
        busy.expect("250 2.0.0 accepted")
        busy.expect("421 4.3.2")
        assert server.wait() == 0


def test_commands_that_bring_no_mail(tmp_path: Path) -> None:
    with running(tmp_path, *FLAGS, "--max-junk-commands=5") as server, server.greeted() as client:
        for command in ("NOOP", "RSET", "HELP", "VRFY x", "EHLO again.example"):
            client.ask(command, "2")
        client.deliver()
        for command in ("NOOP", "RSET", "HELP", "VRFY x", "EXPN x"):
            client.ask(command, "")
        client.ask("NOOP", "421 4.7.0 mx.example too many commands without mail")
        client.expect_end()
        (line,) = server.wait_for_access(1, "event=session")
        assert ' end="closed by server" reply="421 4.7.0" ' in line
        refused = server.wait_for_access(2, "event=refused")
        assert refused[1].endswith(' command="NOOP" reply="421 4.7.0 mx.example too many commands without mail"')


NOT_SMTP = [
    (b"GET / HTTP/1.1\r\nHost: mx.example\r\n\r\n", "521 5.5.1"),
    (b"POST / HTTP/1.1\r\nContent-Length: 60\r\n\r\nEHLO x\r\nMAIL FROM:<a@a.example>\r\n", "521 5.5.1"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "521 5.5.1"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "521 5.5.1"),
    (b"EHLO x\nMAIL FROM:<a@a.example>\n", "521 5.5.2"),
    (b"x" * 140000, "521 5.5.2"),
]


def test_what_is_not_smtp_leaves_two_lines(tmp_path: Path) -> None:
    """Closed at the first line; the log has the line that was refused, and the end of the session."""
    with running(tmp_path, *FLAGS) as server:
        for octets, reply in NOT_SMTP:
            with server.connect() as client:
                peer = f" peer=127.0.0.1:{client.port} "
                client.expect("220")
                client.send(octets)
                client.expect(reply)
                client.expect_end()
            refused, session = server.wait_for_access(2, peer)
            assert " event=refused " in refused
            assert f' reply="{reply} ' in refused
            assert " event=session " in session
            assert f' end="closed by server" reply="{reply}" ' in session


def test_recipients_without_end_are_junk(tmp_path: Path) -> None:
    """A flight may bring many more than there may be; but not for ever."""
    flags = ("--store=discard:", "--max-recipients=100", "--max-junk-commands=3")
    with running(tmp_path, *flags) as server, server.greeted() as client:
        client.ask("MAIL FROM:<a@a.example>", "250")
        for start in ["250"] * 100 + ["452 4.5.3"] * 103 + ["421 4.7.0"]:
            client.ask("RCPT TO:<b@b.example>", start)
        client.expect_end()
