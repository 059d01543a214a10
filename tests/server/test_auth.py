"""AUTH at a real server (standards.md M, U11-U13): each mechanism, each kind of hook, delays, limits of guessing."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from fastsmtp.protocol.sasl import MECHANISMS
from tests.server import journal
from tests.server.client import Client
from tests.server.gates import open_gate
from tests.server.logins import PASSWORD, TOKEN
from tests.server.running import Server, running
from tests.server.saslclient import bearer, challenge, encoded, end_point, log_in, plain, scram
from tests.server.secured import TLS_1_2, issue, secure, trusting
from tests.server.waiting import until

KINDS = ("AsyncLogins", "ThreadedLogins", "InlineLogins")
SECRETS = {name: TOKEN if name in ("XOAUTH2", "OAUTHBEARER") else PASSWORD for name in MECHANISMS}
PATIENT = ("--max-auth-failures=100", "--auth-failure-delay=0", "--error-delay=0", "--max-errors=1000")
RIGHT = plain("alice", PASSWORD)
WRONG = plain("alice", "x")
LATE = plain("late", PASSWORD).encode() + b"\r\n"
MAIL = "MAIL FROM:<a@a.example>"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return issue(tmp_path_factory.mktemp("certificate"), trustme.CA(), "mx.example")


@pytest.fixture(scope="module", params=KINDS)
def server(
    tmp_path_factory: pytest.TempPathFactory, certificate: str, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """With each kind of hook; nothing that a test does stays behind."""
    flags = (f"tests.server.logins:{request.param}", "--store=discard:", f"--tls-certfile={certificate}", *PATIENT)
    with running(tmp_path_factory.mktemp("server"), *flags, workers=2) as server:
        yield server


# -- mechanisms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_mechanism(server: Server, mechanism: str) -> None:
    """Refused for a wrong secret, an unknown user, and again; then let in on the same connection."""
    with secure(server) as client:
        assert mechanism in client.ask("EHLO client.example", "250").split()
        refused = {log_in(client, mechanism, *who) for who in (("alice", "x"), ("nobody", SECRETS[mechanism]))}
        assert refused == {"535 5.7.8 authentication failed"}
        assert log_in(client, mechanism, "alice", SECRETS[mechanism]) == "235 2.7.0 authentication succeeded"
        client.ask("NOOP", "250 2.0.0 alice ")
        client.ask(RIGHT, "503 5.5.1 ")
        client.deliver()
        client.ask("RSET", "250")
        client.ask("EHLO client.example", "250")
        client.ask("NOOP", "250 2.0.0 alice ")
        client.quit()


def test_channel_binding_to_each_version_of_tls(server: Server) -> None:
    with secure(server, trusting(version=TLS_1_2)) as client:
        assert scram(client, "SCRAM-SHA-256-PLUS", "alice", PASSWORD).startswith("235")


def test_a_wrong_channel_binding(server: Server) -> None:
    """standards.md U11: somebody between the two has a certificate of his own."""
    with secure(server) as client:
        binding = hashlib.sha256(b"another certificate").digest()
        assert scram(client, "SCRAM-SHA-256-PLUS", "alice", PASSWORD, binding).startswith("535 5.7.8")
        assert scram(client, "SCRAM-SHA-256-PLUS", "alice", PASSWORD, end_point(client)).startswith("235")


def test_scram_between_the_steps(server: Server) -> None:
    """standards.md U11: another nonce is 535, and `*` is 501."""
    with secure(server) as client:
        for user in ("alice", "nobody"):
            client.ask(f"AUTH SCRAM-SHA-256 {encoded(f'n,,n={user},r=abc')}", "334")
            client.ask("*", "501 5.7.0 ")
            client.ask(f"AUTH SCRAM-SHA-256 {encoded(f'n,,n={user},r=abc')}", "334")
            client.ask(encoded("c=biws,r=abcdef,p=" + encoded(bytes(32))), "535 5.7.8 ")
            client.ask(f"AUTH SCRAM-SHA-256 {encoded(f'n,,n={user},r=abc')}", "334")
            client.ask("", "501 5.5.2 ")


def test_cram_md5_twice(server: Server) -> None:
    """standards.md U13: another challenge, and an old answer is none."""
    with secure(server) as client:
        first = challenge(client.ask("AUTH CRAM-MD5", "334"))
        answer = encoded("alice " + hmac.new(PASSWORD.encode(), first, hashlib.md5).hexdigest())
        client.ask("*", "501 5.7.0 ")
        assert challenge(client.ask("AUTH CRAM-MD5", "334")) != first
        client.ask(answer, "535 5.7.8 ")


def test_cancelled_behind_a_refused_token(server: Server) -> None:
    """standards.md U12."""
    with secure(server) as client:
        client.ask(bearer("XOAUTH2", "alice", "x"), "334 ")
        client.ask("*", "501 5.7.0 ")
        client.ask(bearer("XOAUTH2", "alice", "x"), "334 ")
        client.ask("", "535 5.7.8 ")


# -- what hooks answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "reply"),
    [
        ("busy", "454 4.7.0 the database rests"),
        ("locked", "535 5.7.8 account locked"),
        ("raised", "535 5.7.8 raised"),
        ("vip", "235 2.7.0 at your service"),
        ("broken", "454 4.7.0 temporary authentication failure"),
        ("odd", "454 4.7.0 temporary authentication failure"),
    ],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "SCRAM-SHA-256"])
def test_replies_of_hooks(server: Server, user: str, reply: str, mechanism: str) -> None:
    if mechanism.startswith("SCRAM") and user == "vip":
        reply = "535 5.7.8 authentication failed"  # there is no way in without a key
    with secure(server) as client:
        assert log_in(client, mechanism, user, "x") == reply
        client.ask("NOOP", "250 2.0.0 vip " if reply.startswith("235") else "250 2.0.0 None ")
        client.deliver()
        client.quit()


def test_a_hook_may_hang_up(server: Server) -> None:
    with secure(server) as client:
        assert log_in(client, "PLAIN", "shut", "x") == "535 5.7.8 go away"
        client.expect_end()


def test_pipelined_behind_auth(server: Server) -> None:
    """The line behind a challenge is the response, whatever it says; what follows is kept."""
    with secure(server) as client:
        client.send(f"AUTH PLAIN\r\nQUIT\r\nAUTH LOGIN\r\n{encoded('alice')}\r\n".encode())
        client.send(f"{encoded(PASSWORD)}\r\n{MAIL}\r\nRCPT TO:<b@b.example>\r\nAUTH PLAIN\r\nQUIT\r\n".encode())
        for start in ("334", "501 5.5.2", "334", "334", "235", "250", "250", "503 5.5.1", "221"):
            client.expect(start)
        client.expect_end()


# -- lines ------------------------------------------------------------------------------------------------------------


def test_lines_of_all_lengths_in_many_segments(server: Server) -> None:
    """RFC 4954 4: 12288 octets with CRLF, for AUTH and for responses; longer ones are dropped whole."""
    with secure(server) as client:
        for length, start in ((12286, "535 5.7.8"), (12287, "500 5.5.6"), (60000, "500 5.5.6")):
            room = (length - len("AUTH PLAIN ")) // 4 * 4
            response = encoded("\0alice\0" + "x" * (room * 3 // 4 - 7))
            padding = " " * (length - len("AUTH PLAIN ") - len(response))
            for segment in in_segments(f"AUTH PLAIN {response}{padding}\r\n"):
                client.send(segment)
            client.expect(start)
            client.ask("AUTH PLAIN", "334")
            for segment in in_segments("A" * length + "\r\n"):
                client.send(segment)
            client.expect("501 5.5.2" if length == 12286 else "500 5.5.6")
        assert log_in(client, "PLAIN", "alice", PASSWORD).startswith("235")
        client.ask("X" * 2047, "500 5.5.2 ")


def in_segments(line: str) -> Iterator[bytes]:
    for start in range(0, len(line), 1000):
        yield line[start : start + 1000].encode()


# -- delays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_delayed_535_holds_up_nobody(tmp_path: Path, certificate: str, kind: str) -> None:
    """Many wait for theirs on one thread, while others are served; all are told at about the same time."""
    flags = (f"tests.server.logins:{kind}", "--store=discard:", "--no-auth-requires-tls", "--threads=1")
    with running(tmp_path, *flags, "--auth-failure-delay=1.5") as server, server.greeted() as other:
        guessing = [server.greeted() for _ in range(10)]
        began = time.monotonic()
        for client in guessing:
            client.send(f"{WRONG}\r\nNOOP\r\n".encode())
        for _ in range(20):
            other.ask("NOOP", "250")
        other.ask(RIGHT, "235")
        assert time.monotonic() - began < 1.4
        for client in guessing:
            client.expect("535 5.7.8 ")
            assert 1.4 < time.monotonic() - began < 3
            client.expect("250")


def test_who_leaves_during_the_delay_is_forgotten(tmp_path: Path) -> None:
    flags = ("tests.server.logins:InlineLogins", "--store=discard:", "--no-auth-requires-tls")
    with running(tmp_path, *flags, "--auth-failure-delay=1", "--max-connections=1") as server:
        client = server.greeted()
        client.send(WRONG.encode() + b"\r\n")
        client.reset()
        until(lambda: server.connect().reply().startswith("220"), "its place is free", 5)
        server.wait_for_access(1, "535 5.7.8")
        assert "ERROR" not in server.log


@pytest.mark.parametrize("kind", ["AsyncLogins", "ThreadedLogins"])
def test_a_late_hook(tmp_path: Path, kind: str) -> None:
    flags = (f"tests.server.logins:{kind}", "--store=discard:", "--no-auth-requires-tls", "--hook-timeout=1")
    with running(tmp_path, *flags) as server, server.greeted() as client:
        client.send(LATE)
        client.expect("454 4.7.0 temporary authentication failure")
        open_gate(tmp_path, "auth")
        until(lambda: client.ask(RIGHT, "").startswith("235"), "hooks run again", 5)
        client.deliver()


def test_a_stop_while_a_hook_decides(tmp_path: Path) -> None:
    """The verdict is said, then 421."""
    flags = ("tests.server.logins:ThreadedLogins", "--store=discard:", "--no-auth-requires-tls")
    with running(tmp_path, *flags) as server, server.greeted() as client:
        client.send(LATE)
        until(lambda: journal.events(tmp_path, event="auth"), "the hook works")
        server.process.terminate()
        server.wait_for_log(r"stopping: \d workers drain")
        open_gate(tmp_path, "auth")
        client.expect("535 5.7.8 ")
        client.expect("421 4.3.2 ")
        client.expect_end()
        assert server.wait() == 0


# -- limits -----------------------------------------------------------------------------------------------------------

QUICK = ("tests.server.logins:ThreadedLogins", "--store=discard:", "--no-auth-requires-tls", "--auth-failure-delay=0")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER"])
def test_failures_per_connection(tmp_path: Path, mechanism: str) -> None:
    with running(tmp_path, *QUICK, "--max-auth-failures=2") as server, server.greeted() as client:
        assert log_in(client, mechanism, "alice", "x").startswith("535 5.7.8")
        assert log_in(client, "PLAIN", "busy", "x").startswith("454")  # nobody has decided
        assert log_in(client, mechanism, "alice", "y").startswith("535 5.7.8")
        client.expect("421 4.7.0 ")
        client.expect_end()


def test_a_refused_token_counts_also_if_it_is_cancelled(tmp_path: Path) -> None:
    """Else tokens could be guessed without limit: the 334 has said that this one is wrong."""
    with running(tmp_path, *QUICK, "--max-auth-failures=2") as server, server.greeted() as client:
        for _ in range(2):
            client.ask(bearer("XOAUTH2", "alice", "x"), "334 ")
            client.ask("*", "501 5.7.0 ")
        client.ask(RIGHT, "421 4.7.0 ")
        client.expect_end()


def fail(client: Client, way: str) -> None:
    """One failed login."""
    if way == "cancelled":
        client.ask(bearer("OAUTHBEARER", "alice", "x"), "334 ")
    elif way == "hung up":
        assert log_in(client, "PLAIN", "shut", "x").startswith("535")
    else:
        client.ask(WRONG, "535 5.7.8 ")


@pytest.mark.parametrize("way", ["refused", "cancelled", "hung up"])
def test_failures_per_client_over_all_workers(tmp_path: Path, way: str) -> None:
    """standards.md D: after so many, credentials are not read any more; the right ones do not count either."""
    flags = ("--auth-failures-per-client=4", "--exempt-networks=192.0.2.0/24")
    with running(tmp_path, *QUICK, *flags, workers=2) as server:
        workers: set[str] = set()
        for _ in range(4):
            with server.connect() as client:
                client.expect("220")
                client.ask("EHLO client.example", "250")
                fail(client, way)

        def both_refuse() -> bool:
            with server.connect() as client:
                workers.add(client.expect("220"))
                client.ask("EHLO client.example", "250")
                for command in (RIGHT, WRONG, "AUTH PLAIN !", "AUTH LOGIN", "AUTH SCRAM-SHA-256"):
                    client.ask(command, "454 4.7.0 temporary authentication failure")
                client.ask("AUTH NONE", "504")
                client.deliver()
            return len(workers) == 2

        until(both_refuse, "connections to both workers")


def test_exempt_clients_may_guess_on(tmp_path: Path) -> None:
    with running(tmp_path, *QUICK, "--auth-failures-per-client=2") as server:
        for _ in range(4):
            with server.greeted() as client:
                client.ask(WRONG, "535")
        with server.greeted() as client:
            client.ask(RIGHT, "235")


# -- where a login is wanted, and where it is not ---------------------------------------------------------------------


def test_in_clear_text(tmp_path: Path, certificate: str) -> None:
    """standards.md M: 538 without a look at the credentials, and AUTH is not offered."""
    app = "tests.server.logins:AsyncLogins"
    with running(tmp_path, app, "--store=discard:", f"--tls-certfile={certificate}") as server:
        with server.connect() as client:
            client.expect("220")
            client.ask(RIGHT, "503 5.5.1 ")
            assert "AUTH" not in client.ask("EHLO client.example", "250")
            for command in (RIGHT, WRONG, "AUTH PLAIN !", "AUTH", "AUTH NONE"):
                client.ask(command, "538 5.7.11 ")
            client.ask(MAIL, "250")
            client.ask(RIGHT, "503 5.5.1 ")
        with secure(server) as client:
            client.ask(RIGHT, "235")


def test_tls_and_a_login_are_required(tmp_path: Path, certificate: str) -> None:
    flags = ("tests.server.logins:AsyncLogins", "--store=discard:", "--require-tls", "--require-auth")
    with running(tmp_path, *flags, f"--tls-certfile={certificate}") as server:
        with server.greeted() as client:
            for command in (MAIL, "RCPT TO:<b@b.example>", "DATA", "VRFY x", RIGHT, "AUTH"):
                client.ask(command, "530 5.7.0 ")
            client.send(b"BDAT 4 LAST\r\nQUIT")
            client.expect("530 5.7.0 ")
            client.ask("NOOP", "250")
        with secure(server) as client:
            client.ask(MAIL, "530 5.7.0 ")
            client.ask("RCPT TO:<b@b.example>", "503 5.5.1 ")
            client.ask(WRONG, "535")
            client.ask(MAIL, "530 5.7.0 ")
            client.ask(RIGHT, "235")
            client.deliver()
            client.quit()
        (line,) = server.wait_for_access(1, "event=message")
        assert " proto=ESMTPSA " in line
        assert line.endswith(" tls=TLSv1.3 user=alice")


def test_who_is_turned_away_cannot_log_in(tmp_path: Path) -> None:
    with running(tmp_path, *QUICK, "--max-connections=1") as server, server.greeted(), server.connect() as client:
        client.send(f"EHLO client.example\r\n{RIGHT}\r\n".encode())
        client.expect("421 4.3.2 ")
        client.expect_end()


def test_xclient_ends_the_login_and_not_tls(tmp_path: Path, certificate: str) -> None:
    """standards.md U17; what comes behind it is kept."""
    flags = ("tests.server.logins:AsyncLogins", "--store=discard:", "--xclient-networks=127.0.0.0/8")
    with running(tmp_path, *flags, f"--tls-certfile={certificate}") as server, secure(server) as client:
        client.ask(RIGHT, "235")
        client.send(f"XCLIENT ADDR=192.0.2.9\r\nNOOP\r\n{MAIL}\r\n{RIGHT}\r\nSTARTTLS\r\n".encode())
        client.expect("220 ")
        client.expect("250 2.0.0 None TLSv1.3 ")
        for _ in range(3):
            client.expect("503 5.5.1 bad sequence of commands, EHLO first")
        client.ask("EHLO client.example", "250")
        client.ask(RIGHT, "235")
        client.ask("XCLIENT LOGIN=bob", "220 ")
        client.ask("NOOP", "250 2.0.0 bob TLSv1.3 ")


def test_nobody_can_log_in(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", "--no-auth-requires-tls") as server, server.greeted() as client:
        assert "AUTH" not in client.ask("EHLO client.example", "250")
        client.ask(RIGHT, "502 5.5.1 ")
        client.ask("AUTH", "502 5.5.1 ")
