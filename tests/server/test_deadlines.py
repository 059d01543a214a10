"""Everything that a client may do has an end (standards.md D, T01-T03, T22), and whoever is on time is not cut off."""

from __future__ import annotations

import select
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from tests.server import journal
from tests.server.client import Client
from tests.server.running import Server, running
from tests.server.secured import issue, octets_until_the_end
from tests.server.waiting import until

APP = "tests.server.apps:TimedOut"
TIMEOUT = "421 4.4.2 mx.example timeout, closing connection"
FLAGS = (APP, "--store=maildir:./mail", "--hostname=mx.example", "--max-message-bytes=1G")
PATIENT = "60"  # seconds; what must not be what ends a session


def _drip(clients: list[Client], piece: bytes, seconds: float) -> list[Client]:
    """Each sends a piece ten times a second until the server says something; returns those to whom it says nothing."""
    end, silent = time.monotonic() + seconds, list(clients)
    while silent and time.monotonic() < end:
        for client in silent:
            client.send(piece)
        told, _, _ = select.select([client.socket for client in silent], [], [], 0.1)
        silent = [client for client in silent if client.socket not in told]
    return silent


def _nothing_is_kept(server: Server) -> bool:
    mail = server.directory / "mail"
    return not journal.events(server.directory, hook="data") and not any(
        entry.is_file() for entry in mail.rglob("*") if entry.parent.name in ("new", "cur", "tmp")
    )


# -- time is up -------------------------------------------------------------------------------------------------------

ENVELOPE = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"
LATE = [b"", b"EHLO x", ENVELOPE[:25], ENVELOPE, ENVELOPE + b"BDAT 10", ENVELOPE + b"BDAT 0\r\n", b"A"]


def test_a_command_has_a_deadline(tmp_path: Path) -> None:
    """standards.md T01, T02: one for all of it; in a transaction, too, and between two chunks."""
    flags = ("--command-timeout=1", f"--data-timeout={PATIENT}")
    with running(tmp_path, *FLAGS, *flags) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.greeted()) for _ in LATE]
        for client, begun in zip(clients, LATE, strict=True):
            client.send(begun)
            for _ in range(begun.count(b"\n")):
                client.expect("250")
        assert not _drip([clients[-1]], b"A", 8)
        for client in clients:
            assert client.reply() == TIMEOUT
            client.expect_end()
        lines = server.wait_for_access(len(LATE), "event=session")
        assert all(' end="closed by server" reply="421 4.4.2" ' in line for line in lines)
        assert len(server.access_log) == len(LATE)
        assert _nothing_is_kept(server)


BEGUN = [
    (b"DATA\r\n", "354"),
    (b"DATA\r\nSubject: x\r\n\r\n", "354"),
    (b"BDAT 1000\r\n", ""),
    (b"BDAT 1000 LAST\r\nSubject", ""),
    (b"BDAT 5\r\n\r\nx\r\nBDAT 1000 LAST\r\n", "250 2.0.0 5 octets received"),
    (b"RSET\r\nBDAT 1000\r\n", "250"),  # this chunk is refused, when it is there
]


def test_data_have_a_deadline(tmp_path: Path) -> None:
    """standards.md T03: those of a chunk, too; octet by octet gains nothing, and nothing is kept."""
    flags = ("--data-timeout=1", f"--command-timeout={PATIENT}", "--min-data-rate=1000")
    with running(tmp_path, *FLAGS, *flags) as server, ExitStack() as stack:
        began = time.monotonic()
        clients = [stack.enter_context(server.greeted()) for _ in range(2 * len(BEGUN))]
        for client, (begun, reply) in zip(clients, BEGUN * 2, strict=True):
            client.send(ENVELOPE + begun)
            for start in ("250", "250", reply):
                if start:
                    client.expect(start)
        assert not _drip(clients[len(BEGUN) :], b"x", 8)
        for client in clients:
            client.expect(TIMEOUT)
            client.expect_end()
        assert time.monotonic() - began < 8
        server.wait_for_access(len(clients), 'reply="421 4.4.2"')
        assert _nothing_is_kept(server)


def test_a_handshake_has_a_deadline(tmp_path: Path) -> None:
    """standards.md T22: closed without a word, and the place is free."""
    flags = (f"--tls-certfile={issue(tmp_path, trustme.CA(), 'mx.example')}", "--tls-handshake-timeout=1")
    listen = ("127.0.0.1:0 implicit_tls", "127.0.0.1:0")
    with running(tmp_path, *FLAGS, *flags, "--max-connections=4", listen=listen) as server:
        clients = [server.connect(at=at) for at in (0, 0, 1, 1)]
        for client in clients[2:]:
            client.greet()
            client.ask("STARTTLS", "220")
        for client, begun in zip(clients, (b"", b"\x16\x03\x01\x02\x00") * 2, strict=True):
            client.send(begun)
        for client in clients:
            assert octets_until_the_end(client.socket) == b""
        lines = server.wait_for_access(4, "event=turned-away")
        assert all(' reason="TLS handshake: ' in line for line in lines)

        def is_admitted() -> bool:
            return server.connect(at=1).reply().startswith("220")

        for _ in range(4):
            until(is_admitted, "the place is free")


# -- whoever is on time -----------------------------------------------------------------------------------------------


def test_data_have_their_own_time(tmp_path: Path) -> None:
    """`command_timeout` is not theirs, and the time for commands begins anew behind them."""
    flags = ("--command-timeout=1", f"--data-timeout={PATIENT}")
    with running(tmp_path, *FLAGS, *flags) as server, server.greeted() as data, server.greeted() as chunk:
        data.begin_data()
        chunk.send(ENVELOPE + b"BDAT 40 LAST\r\n")
        for _ in range(2):
            chunk.expect("250")
        assert _drip([data], b"x\r\n", 2.5) == [data]
        data.send(b".\r\nNOOP\r\n")
        chunk.send(b"x" * 40 + b"NOOP\r\n")
        for client in (data, chunk):
            client.expect("250 2.0.0 accepted")
            client.expect("250 2.0.0 ok")
            client.expect(TIMEOUT)


def _stream(clients: list[Client], seconds: float) -> None:
    """Small pieces, without a pause, so that there is always something that was read and not looked at."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for client in clients:
            client.send(b"x" * 62 + b"\r\n")


def test_a_message_that_streams_in_is_not_cut_off(tmp_path: Path) -> None:
    """Octets that were read and not yet looked at hid the message from the sweep: 421, and a worker that hung."""
    flags = ("--session-timeout=1", "--data-timeout=1", "--min-data-rate=500", "--store=discard:")
    with running(tmp_path, *FLAGS, *flags) as server:
        clients = [server.greeted() for _ in range(8)]
        for client in clients:
            client.begin_data()
            client.send(b"\r\n")
        _stream(clients, 2.5)
        for client in clients:
            client.send(b".\r\n")
        for client in clients:
            client.expect("250 2.0.0 accepted")
            client.expect(TIMEOUT)  # `session_timeout`; running data finish first
            client.expect_end()
        assert "ERROR" not in server.log


def test_a_message_that_streams_in_too_slowly_hurts_nobody_else(tmp_path: Path) -> None:
    flags = ("--data-timeout=1", "--min-data-rate=2000000000", "--store=discard:")
    with running(tmp_path, *FLAGS, *flags) as server, server.greeted() as other:
        clients = [server.greeted() for _ in range(8)]
        for client in clients:
            client.begin_data()
        with pytest.raises(ConnectionError):
            _stream(clients, 10)
        server.wait_for_access(8, 'reply="421 4.4.2"')
        other.deliver()
        assert journal.events(tmp_path, hook="data", port=other.port)
        assert len(journal.events(tmp_path, hook="data")) == 1
        assert "ERROR" not in server.log
