"""Passwords, responses and challenges never reach a log (standards.md M), whatever becomes of the line they are in."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.server.logins import PASSWORD
from tests.server.running import Server, running
from tests.server.secured import everything_is_read, issue
from tests.server.waiting import until

SECRET = "correct horse battery staple"
RESPONSE = base64.b64encode(b"\0alice\0" + SECRET.encode()).decode()
NAME, WORD = (base64.b64encode(text.encode()).decode() for text in ("alice", SECRET))
FLAGS = (
    "tests.server.logins:ThreadedLogins",
    "--store=discard:",
    "--log-level=debug",
    "--no-auth-requires-tls",
    "--auth-failure-delay=0",
    "--max-auth-failures=100",
    "--error-delay=0",
    "--max-errors=100",
)


def forms(secret: str) -> set[str]:
    """A secret as it might stand in a log: in clear, and in base64 at each of the three places of its octets."""
    octets = secret.encode()
    shifted = {base64.b64encode(b"x" * shift + octets)[4:-4].decode() for shift in range(3)}
    return {secret, secret.split()[0], octets.hex(), *shifted}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path, *FLAGS) as server:
        yield server


def check_logs(server: Server) -> None:
    """Neither log has the secret, in any form; both are complete, as the server has ended."""
    server.close_clients()
    server.stop()
    for text in (server.log, "\n".join(server.access_log)):
        assert not [form for form in forms(SECRET) if form in text], text


LINES = (
    f"AUTH PLAIN {RESPONSE}",
    f"auth plain {RESPONSE}",
    f"AUTH PLAIN  {RESPONSE} ",
    f"AUTH\tPLAIN\t{RESPONSE}",
    f"AUTH PLAIN{RESPONSE}",
    f"AUTH {RESPONSE}",
    f"AUTH {WORD[:20]}",
    f"AUTH UNKNOWN {RESPONSE}",
    f"AUTH PLAIN {RESPONSE} {RESPONSE}",
    f"AUTH PLAIN {RESPONSE}!",
    f"AUTH PLAIN {RESPONSE}\x01",
    f"AUTH PLAIN {RESPONSE}\0",
    f"AUTH PLAIN {RESPONSE}\r",
    f" AUTH PLAIN {RESPONSE}",
    f"\tAUTH PLAIN {RESPONSE}",
    f"\x01AUTH PLAIN {RESPONSE}",
    f"AUTHENTICATE PLAIN {RESPONSE}",
    f"AUTH PLAIN {SECRET}",
    f"AUTH PLAIN {RESPONSE}{'A' * 12000}",
    f"AUTH PLAIN {RESPONSE}{'A' * 20000}",
)


@pytest.mark.parametrize("start", ["fresh", "greeted", "in transaction"])
def test_a_line_with_credentials(server: Server, start: str) -> None:
    with server.connect() as client:
        client.expect("220")
        if start != "fresh":
            client.ask("EHLO client.example", "250")
        if start == "in transaction":
            client.ask("MAIL FROM:<a@a.example>", "250")
        for line in LINES:
            client.ask(line, "5")
        client.quit()
    server.wait_for_access(len(LINES), "refused")
    check_logs(server)


@pytest.mark.parametrize(
    "response",
    [WORD, f"{WORD}!", f"{WORD}\x01", f" {WORD}", SECRET, f"{WORD}{'A' * 20000}"],
    ids=["wrong", "no base64", "control", "space", "clear", "long"],
)
def test_a_response(server: Server, response: str) -> None:
    with server.greeted() as client:
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER"):
            client.ask(f"AUTH {mechanism}", "334")
            if mechanism == "LOGIN":
                client.ask(NAME, "334")
            client.ask(response, "5")
        client.quit()
    server.wait_for_access(6, "refused")
    check_logs(server)


@pytest.mark.parametrize("before", ["AUTH LOGIN x y", "AUTH NTLM", "AUTH", " AUTH LOGIN", "AUTH LOGIN !"])
def test_responses_of_a_client_that_does_not_look_at_replies(server: Server, before: str) -> None:
    """It sends name and password behind a refused AUTH, where they are commands that there are not."""
    with server.greeted() as client:
        client.ask(before, "5")
        for line in (NAME, WORD, SECRET, f"{WORD}\x01", "A" * 2048 + WORD):
            client.ask(line, "500")
        client.quit()
    server.wait_for_access(6, "refused")
    check_logs(server)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"AUTH PLAIN {RESPONSE}\n", ""),
        (f"AUTH PLAIN {RESPONSE}", "\n"),
        (f"AUTH LOGIN\r\n{NAME}\r\n{WORD}\n", ""),
        (f"AUTH LOGIN\r\n{NAME}\r\n{WORD}", "\n"),
        (f"AUTH PLAIN {'A' * 12280}", f"{RESPONSE}\n"),
        (f"AUTH PLAIN {'A' * 12280}", f"{RESPONSE}{'A' * 120000}"),
    ],
)
def test_a_line_that_ends_the_session(server: Server, first: str, second: str) -> None:
    with server.greeted() as client:
        client.send(first.encode())
        if second:
            until_read(server, client.port)
        client.send(second.encode())
        assert b"\r\n521 5.5.2 " in b"\r\n" + client.rest()
    check_logs(server)


def until_read(server: Server, port: int) -> None:
    """Waits until the server has read what a client has sent: what comes now is a read of its own."""
    until(lambda: everything_is_read(server.host_and_port[1], port), "the server has read it")


def test_a_line_that_is_cut_and_too_long(server: Server) -> None:
    """What was kept of it is its end."""
    with server.greeted() as client:
        client.send(b"AUTH PLAIN " + b"A" * 12288)
        until_read(server, client.port)
        client.ask(RESPONSE, "500 5.5.6 ")
        client.quit()
    server.wait_for_access(1, "refused")
    check_logs(server)


@pytest.mark.parametrize("flag", ["--auth-requires-tls", "--require-tls", "--auth-mechanisms=SCRAM-SHA-256"])
def test_credentials_where_they_are_not_wanted(tmp_path: Path, flag: str) -> None:
    certificate = issue(tmp_path, trustme.CA(), "mx.example")
    with running(tmp_path, *FLAGS, flag, f"--tls-certfile={certificate}") as server, server.greeted() as client:
        client.ask(f"AUTH PLAIN {RESPONSE}", "5")
        client.ask("AUTH LOGIN", "5")
        client.ask(NAME, "500")
        client.ask(WORD, "500")
        client.quit()
        server.wait_for_access(4, "refused")
        check_logs(server)


def test_a_hook_that_raises(server: Server) -> None:
    """Its traceback is in the log, and shows no value."""
    response = base64.b64encode(b"\0broken\0" + SECRET.encode()).decode()
    with server.greeted() as client:
        client.ask(f"AUTH PLAIN {response}", "454 4.7.0 temporary authentication failure")
        client.quit()
    server.wait_for_log("LookupError")
    check_logs(server)


def test_a_login(server: Server) -> None:
    with server.greeted() as client:
        word = base64.b64encode(PASSWORD.encode()).decode()
        client.ask("AUTH LOGIN", "334")
        client.ask(NAME, "334")
        client.ask(word, "235")
        client.deliver()
        client.quit()
    server.close_clients()
    server.stop()
    assert "alice" in server.access_log[0]
    assert not [form for form in forms(PASSWORD) if form in server.log + "".join(server.access_log)]
