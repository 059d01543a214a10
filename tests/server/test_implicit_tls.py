"""TLS from the first octet on (RFC 8314; standards.md U18, U22), alone, behind a proxy, and beside other listeners."""

from __future__ import annotations

import signal
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from tests.server.kernel import is_accepted
from tests.server.running import Server, running
from tests.server.secured import (
    ANYBODY,
    TLS_1_2,
    Pipe,
    connect_inside,
    issue,
    octets_until_the_end,
    shake_hands,
    start_tls,
    trusting,
)
from tests.server.waiting import until

SUBMISSIONS = "127.0.0.1:0 implicit_tls"
FLIGHT = b"EHLO client.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return issue(tmp_path_factory.mktemp("certificate"), trustme.CA(), "mx.example")


@pytest.fixture
def server(tmp_path: Path, certificate: str) -> Iterator[Server]:
    flags = ("--store=discard:", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags, listen=[SUBMISSIONS], workers=2) as server:
        yield server


def codes(replies: bytes) -> list[bytes]:
    """The codes of the replies, each once."""
    return [line[:3] for line in replies.splitlines() if line[3:4] == b" "]


def test_a_session(server: Server) -> None:
    with connect_inside(server) as client:
        client.expect("220")
        offer = client.ask("EHLO client.example", "250")
        assert "STARTTLS" not in offer
        client.ask("STARTTLS", "503 5.5.1 ")
        client.deliver()
        client.quit()


def test_a_whole_session_in_one_record(server: Server) -> None:
    """standards.md U22: a record is a segment."""
    with server.connect() as client:
        pipe = Pipe(client.socket)
        pipe.shake_hands()
        pipe.send(FLIGHT)
        assert codes(pipe.rest()) == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]


@pytest.mark.parametrize("cut", ["records of one octet", "segments of one octet", "all records in one segment"])
def test_a_session_however_it_is_cut(server: Server, cut: str) -> None:
    with server.connect() as client:
        pipe = Pipe(client.socket)
        pipe.shake_hands()
        if cut == "segments of one octet":
            segments = [bytes([octet]) for octet in pipe.record(FLIGHT)]
        else:
            segments = [pipe.record(FLIGHT[at : at + 1]) for at in range(len(FLIGHT))]
        for segment in segments if cut != "all records in one segment" else [b"".join(segments)]:
            client.send(segment)
        assert codes(pipe.rest()) == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]


def test_the_end_of_the_handshake_and_the_first_command_in_one_segment(server: Server) -> None:
    """The client does not wait for the banner; what it says is answered behind it."""
    with server.connect() as client:
        pipe = Pipe(client.socket)
        finished = pipe.shake_hands(keep_the_last=True)
        client.send(finished + pipe.record(FLIGHT))
        assert codes(pipe.rest()) == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]


@pytest.mark.parametrize("said", [b"EHLO client.example\r\n", b"QUIT\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_clear_text_gets_no_reply(server: Server, said: bytes) -> None:
    """standards.md U18."""
    with server.connect() as client:
        client.send(said)
        assert octets_until_the_end(client.socket)[:1] in (b"", b"\x15")  # an alert
    (line,) = server.wait_for_access(1, "turned-away")
    assert "reason=" in line


def test_a_silent_client(tmp_path: Path, certificate: str) -> None:
    flags = ("--store=discard:", "--tls-handshake-timeout=1", "--max-connections=2", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags, listen=[SUBMISSIONS]) as server:
        began = time.monotonic()
        with server.connect() as one, server.connect() as two, server.connect() as three:
            assert octets_until_the_end(three.socket) == b""  # there is no room, and no way to say so
            for client in (one, two):
                assert octets_until_the_end(client.socket) == b""
            assert 0.9 < time.monotonic() - began < 5
        server.wait_for_access(3, "turned-away")
        with connect_inside(server) as one, connect_inside(server) as two:
            for client in (one, two):
                client.expect("220")
                client.quit()


@pytest.mark.parametrize("way", ["close", "reset"])
def test_a_client_that_leaves_in_the_handshake(tmp_path: Path, certificate: str, way: str) -> None:
    """One line each, no slot lost."""
    flags = ("--store=discard:", "--max-connections=2", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags, listen=[SUBMISSIONS]) as server:
        for count in range(1, 9):
            client = server.connect()
            port = client.port
            if count % 2:
                client.send(Pipe(client.socket).hello)
                client.socket.recv(1)
            if way == "reset":
                client.reset()
            else:
                client.socket.close()
            lines = server.wait_for_access(count, "turned-away")
            assert count % 2 == 0 or f"peer=127.0.0.1:{port} " in lines[-1]
        connect_inside(server).expect("220")
        assert "ERROR" not in server.log


# -- listeners --------------------------------------------------------------------------------------------------------


def test_every_listener_has_settings_of_its_own(tmp_path: Path, certificate: str) -> None:
    listen = [
        "127.0.0.1:0",
        f"{SUBMISSIONS} require_auth",
        "127.0.0.1:0 require_tls tls_min_version=1.3",
        "127.0.0.1:0 lmtp starttls=no",
        f"{SUBMISSIONS} lmtp",
    ]
    flags = ("tests.server.logins:AsyncLogins", "--store=discard:", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags, listen=listen, workers=2) as server:
        with server.connect(at=0).greet() as client:
            client.deliver()
            start_tls(client)
        with server.connect(at=1) as client:
            shake_hands(client)
            client.greet().ask("MAIL FROM:<a@a.example>", "530 5.7.0 authentication required")
            client.ask("AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=", "235")
            client.deliver()
        with server.connect(at=2).greet() as client:
            client.ask("MAIL FROM:<a@a.example>", "530 5.7.0 ")
            client.ask("STARTTLS", "220")
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                shake_hands(client, trusting(version=TLS_1_2))
        with server.connect(at=3) as client:
            client.expect("220")
            assert "STARTTLS" not in client.ask("LHLO client.example", "250")
            client.deliver()
        with server.connect(at=4) as client:
            shake_hands(client)
            client.expect("220")
            client.ask("LHLO client.example", "250")
            client.deliver()


@pytest.mark.parametrize("together", [True, False], ids=["one segment", "two segments"])
def test_behind_a_proxy(tmp_path: Path, certificate: str, together: bool) -> None:
    listen = [f"{SUBMISSIONS} proxy_protocol proxy_networks=127.0.0.0/8"]
    flags = ("--store=discard:", "--max-connections=1", f"--tls-certfile={certificate}")
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 465\r\n"
    with running(tmp_path, *flags, listen=listen) as server:
        with server.connect() as client:
            if together:
                pipe = Pipe(client.socket)
                client.send(header + pipe.hello)
                pipe.shake_hands()
                pipe.send(FLIGHT)
                assert codes(pipe.rest())[-1] == b"221"
            else:
                client.send(header)
                shake_hands(client)
                client.greet().deliver()
                client.quit()
        assert " peer=192.0.2.7:4321 " in server.wait_for_access(1, "message")[0]
        with server.connect() as client:
            client.send(header + b"EHLO client.example\r\n")
            assert octets_until_the_end(client.socket)[:1] in (b"", b"\x15")
        assert " peer=192.0.2.7:4321 " in server.wait_for_access(1, "turned-away")[0]


# -- the end of the server --------------------------------------------------------------------------------------------


def test_a_stop_ends_sessions_inside_tls(tmp_path: Path, certificate: str) -> None:
    """standards.md E12, E14: 421 4.3.2 comes inside TLS, and close_notify behind it; a transaction may finish."""
    flags = (f"--tls-certfile={certificate}",)
    with running(tmp_path, *flags, listen=[SUBMISSIONS], workers=2) as server:
        idle, fresh, busy, shaking, silent = [server.connect() for _ in range(5)]
        for client in (idle, fresh, busy):
            shake_hands(client)
        idle.greet()
        fresh.expect("220")
        busy.greet().begin_data()
        pipe = Pipe(shaking.socket)
        finished = pipe.shake_hands(keep_the_last=True)
        server.send_signal(signal.SIGTERM)
        for client in (idle, fresh):
            client.expect("421 4.3.2 ")
            client.expect_end()
        busy.send(b"x\r\n.\r\n")
        busy.expect("250 2.0.0 accepted")
        busy.expect("421 4.3.2 ")
        busy.expect_end()
        shaking.send(finished)
        assert codes(pipe.rest())[-1] == b"421"
        silent.socket.close()
        for client in (idle, fresh, busy, shaking):
            client.socket.close()
        assert server.wait() == 0
        assert "no session was cut" in server.log


def test_what_takes_longer_than_the_drain_is_cut(tmp_path: Path, certificate: str) -> None:
    """standards.md E15: 421 at a command boundary, nothing in the middle of data; handshakes are no sessions."""
    flags = ("--drain-timeout=1", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags, listen=[SUBMISSIONS]) as server:
        in_data, in_mail = (connect_inside(server).greet() for _ in range(2))
        silent = server.connect()
        in_data.begin_data()
        in_data.send(b"x\r\n")
        in_mail.ask("MAIL FROM:<a@a.example>", "250")
        server.send_signal(signal.SIGTERM)
        in_mail.expect("421 4.3.2 ")
        in_mail.expect_end()
        with suppress(ssl.SSLError, ConnectionResetError):
            assert in_data.rest() == b""
        assert octets_until_the_end(silent.socket) == b""
        assert server.wait() == 1
        assert "worker 0: 2 sessions were cut" in server.log
        assert list((tmp_path / "mail" / "new").iterdir()) == []


def test_a_reload(tmp_path: Path, certificate: str) -> None:
    """standards.md E11, E13: who is idle gets 421 inside TLS, and nobody else notices."""
    flags = ("--store=discard:", "--drain-idle=1", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags, listen=[SUBMISSIONS]) as server:
        idle = connect_inside(server).greet()
        shaking = server.connect()
        pipe = Pipe(shaking.socket, ANYBODY)
        finished = pipe.shake_hands(keep_the_last=True)
        before = server.workers
        server.send_signal(signal.SIGHUP)
        until(lambda: set(server.workers) - set(before), "a successor")
        shaking.send(finished)
        pipe.send(FLIGHT)
        assert codes(pipe.rest()) == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
        idle.expect("421 4.3.2 ")
        idle.expect_end()
        connect_inside(server).greet().quit()


def test_who_is_silent_does_not_hold_up_a_stop(tmp_path: Path, certificate: str) -> None:
    flags = (f"--tls-certfile={certificate}", "--tls-handshake-timeout=30", "--drain-timeout=30", "--drain-idle=0.1")
    with running(tmp_path, "--store=discard:", *flags, listen=[SUBMISSIONS]) as server:
        client = server.connect()
        until(lambda: is_accepted(client), "it is accepted")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
