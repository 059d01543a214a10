"""STARTTLS at a real server (standards.md N, T22, U19): what is discarded and forgotten, and handshakes that fail."""

from __future__ import annotations

import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from tests.server import journal
from tests.server.gates import open_gate
from tests.server.running import Server, running
from tests.server.secured import (
    ANYBODY,
    TLS_1_2,
    TLS_1_3,
    Pipe,
    everything_is_read,
    issue,
    octets_until_the_end,
    secure,
    shake_hands,
    start_tls,
    trusting,
)
from tests.server.waiting import until

STOPPING = r"stopping: \d workers drain"
MAIL = "MAIL FROM:<a@a.example>"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return issue(tmp_path_factory.mktemp("certificate"), trustme.CA(), "mx.example")


@pytest.fixture
def server(tmp_path: Path, certificate: str) -> Iterator[Server]:
    with running(tmp_path, "--store=discard:", f"--tls-certfile={certificate}") as server:
        yield server


# -- what came in clear text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "injected",
    [b"NOOP\r\n", b"RSET\r\n" * 100, b"EHLO mallory.example\r\n" + MAIL.encode() + b"\r\n", b"EHLO mal", b"\0\r\n\n"],
    ids=["command", "commands", "transaction", "half a line", "junk"],
)
def test_what_comes_with_starttls_is_discarded(server: Server, injected: bytes) -> None:
    """CVE-2011-0411."""
    with server.greeted() as client:
        client.send(b"STARTTLS\r\n" + injected)
        client.expect("220 2.0.0 ")
        shake_hands(client)
        client.send(b"lo.example\r\n")  # what half a line would become
        client.expect("500 5.5.2 ")
        client.ask(MAIL, "503 5.5.1 ")
        client.ask("EHLO client.example", "250")
        client.deliver()
        client.quit()


@pytest.mark.parametrize("more", [b"", b"NOOP\r\n"], ids=["all read", "some unread"])
def test_what_comes_before_the_220_is_not_executed(tmp_path: Path, certificate: str, more: bytes) -> None:
    """A hook works, so commands wait; some in the server, some in the kernel, where they break the handshake."""
    flags = ("tests.server.apps:ThreadGate", "--store=discard:", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags) as server, server.greeted() as client:
        client.ask(MAIL, "250")
        client.send(b"RCPT TO:<gate-rcpt@b.example>\r\nSTARTTLS\r\n")
        until(lambda: journal.events(tmp_path, event="enter"), "the hook works")
        client.send(b"NOOP\r\n")
        until(lambda: everything_is_read(server.host_and_port[1], client.port), "the server has read it")
        client.send(more)
        open_gate(tmp_path, "rcpt")
        client.expect("250 2.1.5 ")
        client.expect("220 2.0.0 ")
        if more:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                shake_hands(client)
            server.wait_for_access(1, "turned-away")
        else:
            shake_hands(client)
            client.ask("NOOP", "250")
            client.quit()


# -- what is forgotten ------------------------------------------------------------------------------------------------


def test_the_session_is_as_new(tmp_path: Path, certificate: str) -> None:
    flags = ("tests.server.logins:AsyncLogins", "--store=discard:", "--no-auth-requires-tls")
    with running(tmp_path, *flags, f"--tls-certfile={certificate}") as server, server.greeted() as client:
        login = "AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U="
        client.ask(login, "235")
        client.ask(MAIL, "250")
        client.ask("RCPT TO:<b@b.example>", "250")
        start_tls(client)
        client.ask("NOOP", "250 2.0.0 None TLSv1.3 ")
        for command in (MAIL, "RCPT TO:<b@b.example>", "DATA", login, "STARTTLS"):
            client.ask(command, "503 5.5.1 bad sequence of commands, EHLO first")
        offer = client.ask("EHLO client.example", "250")
        assert "STARTTLS" not in offer
        assert "AUTH " in offer
        client.ask("STARTTLS", "503 5.5.1 bad sequence of commands, TLS is active")
        client.ask("STARTTLS now", "501 5.5.4 ")
        client.ask("RCPT TO:<b@b.example>", "503")
        client.ask(login, "235")
        client.ask("NOOP", "250 2.0.0 alice TLSv1.3 ")
        client.deliver()
        client.quit()


def test_errors_are_not_forgotten(tmp_path: Path, certificate: str) -> None:
    flags = ("--store=discard:", "--max-errors=3", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags) as server, server.greeted() as client:
        client.ask("FROB", "500")
        client.ask("FROB", "500")
        start_tls(client)
        client.ask("FROB", "500")
        client.expect("421 4.7.0 ")
        client.expect_end()


def test_not_before_ehlo_and_not_with_an_argument(server: Server) -> None:
    with server.connect() as client:
        client.expect("220")
        client.ask("STARTTLS", "503 5.5.1 ")
        client.ask("HELO client.example", "250")
        client.ask("STARTTLS x", "501 5.5.4 ")
        start_tls(client)
        client.ask("HELO client.example", "250")
        client.deliver()


@pytest.mark.parametrize("flags", [(), ("--tls-certfile={}", "--no-starttls")])
def test_not_configured(tmp_path: Path, certificate: str, flags: tuple[str, ...]) -> None:
    flags = ("--store=discard:", *(each.format(certificate) for each in flags))
    with running(tmp_path, *flags) as server, server.connect() as client:
        client.expect("220")
        assert "STARTTLS" not in client.ask("EHLO client.example", "250")
        client.ask("STARTTLS", "502 5.5.1 ")
        client.deliver()


# -- handshakes that fail ---------------------------------------------------------------------------------------------

SLOW = ("--store=discard:", "--tls-handshake-timeout=1", "--max-connections=3")


def serves_again(server: Server) -> bool:
    with server.connect() as client:
        return client.reply().startswith("220")


def check_no_slot_is_lost(server: Server) -> None:
    """All three of SLOW's."""
    until(lambda: serves_again(server), "a slot is free")
    with server.greeted() as one, server.greeted() as two, server.greeted() as three, server.connect() as four:
        four.expect("421 4.3.2 ")
        for client in (one, two, three):
            client.quit()


@pytest.mark.parametrize(
    "said", [b"NOOP\r\nNOOP\r\n", b"EHLO client.example\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 100000]
)
def test_no_reply_in_clear_text(tmp_path: Path, certificate: str, said: bytes) -> None:
    with running(tmp_path, *SLOW, f"--tls-certfile={certificate}") as server:
        for _ in range(4):
            with server.greeted() as client:
                client.ask("STARTTLS", "220")
                with suppress(ConnectionError):
                    client.send(said)
                answer = octets_until_the_end(client.socket)
                assert len(answer) in (0, 7), answer  # nothing, or an alert
                assert answer[:1] in (b"", b"\x15")
        server.wait_for_access(4, "turned-away")
        check_no_slot_is_lost(server)
        assert "ERROR" not in server.log


def test_a_client_that_is_silent_behind_the_220(tmp_path: Path, certificate: str) -> None:
    """standards.md T22; the third one sends an octet now and then."""
    with running(tmp_path, *SLOW, f"--tls-certfile={certificate}") as server:
        clients = [server.greeted() for _ in range(3)]
        began = time.monotonic()
        for client in clients:
            client.ask("STARTTLS", "220")
        clients[2].socket.settimeout(0.1)
        with suppress(ConnectionError):
            for octet in Pipe(clients[2].socket).hello[:100]:
                clients[2].send(bytes([octet]))
                with suppress(TimeoutError):  # this is what paces it
                    if not clients[2].socket.recv(1):
                        break
        assert 0.9 < time.monotonic() - began < 5
        for client in clients[:2]:
            assert octets_until_the_end(client.socket) == b""
        server.wait_for_access(3, "turned-away")
        check_no_slot_is_lost(server)


def test_a_hook_that_returns_late_does_not_disturb_the_handshake(tmp_path: Path, certificate: str) -> None:
    flags = ("--hook-timeout=1", f"--tls-certfile={certificate}")
    with running(tmp_path, "tests.server.apps:ThreadGate", *flags) as server, server.greeted() as client:
        client.ask("MAIL FROM:<a@a.example>", "250")
        client.ask("RCPT TO:<gate-late@b.example>", "451 4.3.0")
        client.ask("STARTTLS", "220")
        pipe = Pipe(client.socket)
        hello = pipe.hello
        client.send(hello[:50])
        open_gate(tmp_path, "late")
        until(lambda: journal.events(tmp_path, event="exit"), "the hook returns")
        with server.greeted() as other:  # by the end of its hooks the loop knows of the one before
            other.deliver()
            other.quit()
        client.send(hello[50:])
        pipe.shake_hands()


@pytest.mark.parametrize("way", ["close", "reset", "close in the middle", "reset in the middle"])
def test_a_client_that_leaves_in_the_handshake(tmp_path: Path, certificate: str, way: str) -> None:
    with running(tmp_path, *SLOW, f"--tls-certfile={certificate}") as server:
        for _ in range(4):
            client = server.greeted()
            client.ask("STARTTLS", "220")
            if "middle" in way:
                client.send(Pipe(client.socket).hello[:50])
            if way.startswith("reset"):
                client.reset()
            else:
                client.socket.close()
        assert all("peer=127.0.0.1:" in line for line in server.wait_for_access(4, "turned-away"))
        check_no_slot_is_lost(server)
        assert "ERROR" not in server.log


def test_old_versions_are_refused(server: Server, require_program: Callable[[str], str]) -> None:
    """standards.md U19."""
    for version in ("-tls1", "-tls1_1"):
        result = s_client(require_program("openssl"), server, version, "-cipher", "ALL:@SECLEVEL=0")
        assert "alert protocol version" in result
    assert "Verify return code" in s_client(require_program("openssl"), server, "-tls1_2")
    server.wait_for_access(2, "turned-away")


def test_renegotiation_is_refused(server: Server, require_program: Callable[[str], str]) -> None:
    """standards.md U19; the client gives up, with no reply behind it."""
    result = s_client(require_program("openssl"), server, "-tls1_2", says="R\n")
    assert "RENEGOTIATING" in result
    assert "no renegotiation" in result
    server.wait_for_access(1, "session")
    secure(server).quit()


def s_client(openssl: str, server: Server, *flags: str, says: str = "") -> str:
    host, port = server.host_and_port
    command = [openssl, "s_client", "-connect", f"{host}:{port}", "-starttls", "smtp", "-crlf", *flags]
    result = subprocess.run(command, input=says, capture_output=True, text=True, timeout=20)
    return result.stdout + result.stderr


def test_a_least_version_of_1_3(tmp_path: Path, certificate: str) -> None:
    flags = ("--store=discard:", "--tls-min-version=1.3", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags) as server:
        with server.greeted() as client, pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            start_tls(client, trusting(version=TLS_1_2))
        secure(server, trusting(version=TLS_1_3)).quit()


# -- the end of the server --------------------------------------------------------------------------------------------


def test_a_stop_during_the_handshake(tmp_path: Path, certificate: str) -> None:
    """Who ends it gets 421 inside TLS, without having to say anything (standards.md E12)."""
    with running(tmp_path, "--store=discard:", f"--tls-certfile={certificate}", workers=2) as server:
        before, middle = server.greeted(), server.greeted()
        for client in (before, middle):
            client.ask("STARTTLS", "220")
        pipe = Pipe(middle.socket, trusting(version=TLS_1_2))
        middle.send(pipe.hello)
        middle.socket.recv(1)  # the rest of the server's flight waits
        server.send_signal(signal.SIGTERM)
        server.wait_for_log(STOPPING)
        shake_hands(before, ANYBODY)
        before.expect("421 4.3.2 ")
        before.expect_end()
        middle.socket.close()
        before.socket.close()
        assert server.wait() == 0
        assert "no session was cut" in server.log


def test_a_handshake_that_lasts_longer_than_the_drain(tmp_path: Path, certificate: str) -> None:
    flags = ("--store=discard:", "--drain-timeout=1", f"--tls-certfile={certificate}")
    with running(tmp_path, *flags) as server, server.greeted() as client:
        client.ask("STARTTLS", "220")
        server.send_signal(signal.SIGTERM)
        assert octets_until_the_end(client.socket) == b""
        server.wait()


def test_a_second_session_of_the_same_client_is_resumed(server: Server) -> None:
    first = secure(server)
    assert isinstance(first.socket, ssl.SSLSocket)
    ticket = first.socket.session
    first.quit()
    second = server.greeted()
    second.ask("STARTTLS", "220")
    tls = ANYBODY.wrap_socket(second.socket, session=ticket, suppress_ragged_eofs=False)
    second.socket = tls
    assert tls.session_reused
    second.ask(MAIL, "503")
    second.ask("EHLO client.example", "250")
    second.deliver()
    second.quit()
