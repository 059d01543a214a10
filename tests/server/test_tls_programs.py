"""Programs that people use, with TLS, logins and a users file: swaks, curl, smtplib, `fastsmtp user`."""

from __future__ import annotations

import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.server.logins import PASSWORD, TOKEN
from tests.server.running import Server, environment, failing, running
from tests.server.saslclient import log_in
from tests.server.secured import issue, secure, trusting

LISTEN = ("127.0.0.1:0", "127.0.0.1:0 implicit_tls")


class Place(NamedTuple):
    authority: trustme.CA
    trusted: str  # the authority's certificate
    certificate: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    directory, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    return Place(authority, str(directory / "authority.pem"), issue(directory, authority, "localhost", "127.0.0.1"))


def user(directory: Path, *arguments: str, password: str = "") -> str:
    """`fastsmtp user`; returns what it says."""
    command = [sys.executable, "-m", "fastsmtp", "user", *arguments]
    result = subprocess.run(
        command, cwd=directory, env=environment(), input=password, capture_output=True, text=True, timeout=20
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def messages(server: Server) -> list[bytes]:
    return [file.read_bytes() for file in (server.directory / "mail" / "new").iterdir()]


def port_of(server: Server, at: int) -> int:
    address = server.addresses[at]
    assert isinstance(address, tuple)
    return address[1]


@pytest.fixture
def server(tmp_path: Path, place: Place) -> Iterator[Server]:
    """A submission server: nobody brings mail without TLS and a login."""
    flags = ("tests.server.logins:ThreadedLogins", "--store=maildir:./mail", "--require-tls", "--require-auth")
    with running(tmp_path, *flags, f"--tls-certfile={place.certificate}", listen=LISTEN, workers=2) as server:
        yield server


# -- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("implicit", [False, True], ids=["--tls", "--tlsc"])
def test_swaks(
    server: Server, place: Place, require_program: Callable[[str], str], mechanism: str, implicit: bool
) -> None:
    def swaks(password: str) -> subprocess.CompletedProcess[str]:
        command = [require_program("swaks"), "--server", "127.0.0.1", "--port", str(port_of(server, implicit))]
        command += ["--tlsc" if implicit else "--tls", "--tls-verify", "--tls-ca-path", place.trusted]
        command += ["--auth", mechanism, "--auth-user", "alice", "--auth-password", password]
        command += ["--from", "a@a.example", "--to", "b@b.example", "--body", "by swaks"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    result = swaks(PASSWORD)
    assert result.returncode == 0, result.stdout + result.stderr
    (message,) = messages(server)
    assert b"by swaks" in message
    assert b"with ESMTPSA" in message
    assert swaks("wrong").returncode == 28  # its code for a failed AUTH
    (line,) = server.wait_for_access(1, "event=message")
    assert " user=alice" in line


@pytest.mark.parametrize("implicit", [False, True], ids=["smtp", "smtps"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"])
def test_curl(
    server: Server, place: Place, require_program: Callable[[str], str], mechanism: str, implicit: bool
) -> None:
    scheme = "smtps" if implicit else "smtp"
    command = [require_program("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert", place.trusted]
    command += ["--url", f"{scheme}://localhost:{port_of(server, implicit)}/client.example", "--ipv4"]
    command += ["--mail-from", "a@a.example", "--mail-rcpt", "b@b.example", "--upload-file", "-"]
    command += ["--login-options", f"AUTH={mechanism}"]
    if mechanism in ("XOAUTH2", "OAUTHBEARER"):
        command += ["--oauth2-bearer", TOKEN, "--user", "alice:"]
    else:
        command += ["--user", f"alice:{PASSWORD}"]
    result = subprocess.run(command, input=b"Subject: x\r\n\r\nby curl\r\n", capture_output=True, timeout=30)
    assert result.returncode == 0, result.stderr
    (message,) = messages(server)
    assert message.endswith(b"Subject: x\r\n\r\nby curl\r\n")


def smtplib_client(server: Server, place: Place, implicit: bool) -> smtplib.SMTP:
    context = trusting(place.authority)
    if implicit:
        return smtplib.SMTP_SSL("localhost", port_of(server, 1), timeout=10, context=context)
    client = smtplib.SMTP("localhost", port_of(server, 0), timeout=10)
    client.starttls(context=context)
    return client


@pytest.mark.parametrize("implicit", [False, True], ids=["SMTP", "SMTP_SSL"])
def test_smtplib(server: Server, place: Place, implicit: bool) -> None:
    with (
        closing(smtplib_client(server, place, implicit)) as client,
        pytest.raises(smtplib.SMTPAuthenticationError, match="authentication failed"),
    ):
        client.login("alice", "wrong")  # by one mechanism after the other
    with smtplib_client(server, place, implicit) as client:
        client.login("alice", PASSWORD)
        client.sendmail("a@a.example", ["b@b.example"], b"Subject: x\r\n\r\nby smtplib\r\n")
    (message,) = messages(server)
    assert message.endswith(b"by smtplib\r\n")


def test_smtplib_with_each_mechanism(server: Server, place: Place) -> None:
    for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
        with smtplib_client(server, place, implicit=True) as client:
            client.user, client.password = "alice", PASSWORD  # as login() does
            client.ehlo()
            method = getattr(client, f"auth_{mechanism.lower().replace('-', '_')}")
            assert client.auth(mechanism, method)[0] == 235


# -- a users file -----------------------------------------------------------------------------------------------------


def test_a_users_file(tmp_path: Path, place: Place) -> None:
    """Users who are added, changed and removed while the server runs; both workers follow the file."""
    assert user(tmp_path, "add", "users", "alice", "--scram", password="first secret\n") == "alice: added in users\n"
    flags = ("--store=maildir:./mail", "--users=users", "--require-auth", "--auth-failure-delay=0")
    with running(tmp_path, *flags, f"--tls-certfile={place.certificate}", workers=2) as server:

        def let_in(name: str, password: str) -> bool:
            """The same answer for each mechanism, by connections enough to reach both workers."""
            answers = set()
            for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS") * 2:
                with secure(server) as client:
                    answers.add(log_in(client, mechanism, name, password)[:3])
            assert answers in ({"235"}, {"535"})
            return answers == {"235"}

        with secure(server) as client:
            assert "250 AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN" in client.ask("EHLO x", "250").splitlines()
            client.ask("MAIL FROM:<a@a.example>", "530")
            client.ask("AUTH CRAM-MD5", "504")
            log_in(client, "PLAIN", "alice", "first secret")
            client.deliver()
        assert let_in("alice", "first secret")
        assert not let_in("alice", "second secret")
        assert not let_in("bob", "first secret")
        assert user(tmp_path, "add", "users", "alice", "--scram", password="second secret\n").startswith("alice: repl")
        user(tmp_path, "add", "users", "bob", "--scram", password="bob's own\n")
        assert let_in("alice", "second secret")
        assert not let_in("alice", "first secret")
        assert let_in("bob", "bob's own")
        user(tmp_path, "remove", "users", "bob")
        assert not let_in("bob", "bob's own")
        assert "alice" in user(tmp_path, "list", "users")
        (tmp_path / "users").write_text("alice:second secret\n")  # not what belongs there: nothing changes
        assert let_in("alice", "second secret")
        server.wait_for_log("line 1: expected .argon2id", count=2)
        for text in ("first secret", "second secret", "bob's own"):
            assert text not in server.log + "".join(server.access_log)


def test_nobody_is_told_apart_by_time(tmp_path: Path, place: Place) -> None:
    """A login of somebody who is not there takes as long as one with a wrong password; a hash takes about 20 ms."""
    user(tmp_path, "add", "users", "alice", password="secret\n")
    flags = ("--store=discard:", "--users=users", "--auth-failure-delay=0", "--max-auth-failures=1000")
    spent = {"alice": 0.0, "nobody": 0.0}
    with (
        running(tmp_path, *flags, f"--tls-certfile={place.certificate}", "--error-delay=0") as server,
        secure(server) as client,
    ):
        for _ in range(9):
            for name in spent:
                began = time.perf_counter()
                assert log_in(client, "PLAIN", name, "wrong").startswith("535")
                spent[name] += time.perf_counter() - began
    assert 0.5 < spent["alice"] / spent["nobody"] < 2


def test_a_server_whose_users_cannot_be_read_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("alice:secret word\n")
    code, log = failing(tmp_path, "--store=discard:", "--users=users", "--listen=127.0.0.1:0")
    assert code != 0
    assert "line 1: expected $argon2id$" in log
    assert "secret word" not in log
