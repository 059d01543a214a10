"""Each example, and the handler in the README, run as a server and talked to by a client."""

from __future__ import annotations

import json
import mailbox
import os
import re
import shlex
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest.durability.postgresql import PostgreSQL
from tests.conformance.server_process import PATIENCE, ServerProcess
from tests.server.waiting import until

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
CERTIFICATE = ROOT / "tests" / "conformance" / "certificate.pem"
CONTENT = "From: me@example.com\r\nSubject: hello\r\n\r\nIt works.\r\n..\r\n"


def served(directory: Path, app: str, *options: str, where: Path = EXAMPLES) -> ServerProcess:
    """`fastsmtp serve APP`, as the head of an example says, for files in a directory of the test's own."""
    command = [sys.executable, "-m", "fastsmtp", "serve", app, "--listen", "127.0.0.1:0", "--workers", "1", *options]
    return ServerProcess(command, directory, {"PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"})


def script(directory: Path, name: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], cwd=directory, check=True, timeout=PATIENCE, capture_output=True
    )


@contextmanager
def client_of(server: ServerProcess) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP(server.host, server.port, "client.example", timeout=PATIENCE) as client:
        client.ehlo()
        yield client


def new_mail(maildir: Path) -> list[bytes]:
    return [file.read_bytes() for file in (maildir / "new").iterdir()]


def deliver(client: smtplib.SMTP, *recipients: str) -> tuple[int, bytes]:
    """A whole transaction; returns the reply to its content."""
    assert client.mail("me@example.com")[0] == 250
    for recipient in recipients:
        assert client.rcpt(recipient)[0] == 250
    return client.data(CONTENT)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_says_how_to_run_it(example: Path) -> None:
    assert f"    fastsmtp serve {example.stem}:" in example.read_text().split('"""')[1]


# -- accept.py --------------------------------------------------------------------------------------------------------


def test_accept_answers_with_texts_of_its_own(tmp_path: Path) -> None:
    with served(tmp_path, "accept:Accept", "--store", "maildir:./mail") as server, client_of(server) as client:
        assert client.mail("me@example.com") == (250, b"2.1.0 me@example.com is accepted")
        assert client.rcpt("you@example.com") == (250, b"2.1.5 you@example.com is accepted")
        octets = len(CONTENT)
        assert client.data(CONTENT) == (250, f"2.0.0 {octets} octets are accepted".encode())
        assert client.mail("<>") == (250, b"2.1.0 the null sender is accepted")
    (stored,) = new_mail(tmp_path / "mail")
    assert stored.endswith(CONTENT.encode())


# -- inbound.py -------------------------------------------------------------------------------------------------------


def test_inbound_accepts_here_and_works_there(tmp_path: Path, postgresql: PostgreSQL) -> None:
    postgresql.sql("DROP SCHEMA IF EXISTS fastsmtp CASCADE")
    consume = [sys.executable, "-m", "fastsmtp", "consume", "inbound:handle", "--from", postgresql.url]
    environment = {**os.environ, "PYTHONPATH": f"{EXAMPLES}:{ROOT}"}
    with served(tmp_path, "inbound:Inbound", "--store", postgresql.url) as server, client_of(server) as client:
        assert client.mail("me@example.com")[0] == 250
        assert client.rcpt("ann@elsewhere.example") == (550, b"5.7.1 relaying denied")
        assert client.rcpt("ann@tickets.example")[0] == 250
        assert client.data(CONTENT)[0] == 250
        with subprocess.Popen(consume, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as consumer:
            (ticket,) = until(lambda: list(tmp_path.glob("tickets/*.json")), "a ticket", 20)
            until(lambda: ticket.read_text().endswith("}"), "the ticket is written")
            consumer.terminate()
            assert consumer.wait(20) == 0
    assert json.loads(ticket.read_text()) == {"from": "me@example.com", "to": "ann", "subject": "hello"}


# -- gateway.py -------------------------------------------------------------------------------------------------------


def test_gateway_refuses_a_blocked_network_before_the_banner(tmp_path: Path) -> None:
    script(tmp_path, "gateway.py", "ann@example.org")
    block = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import gateway; gateway.block('127.0.0.8/29')"
    subprocess.run([sys.executable, "-B", "-c", block], cwd=tmp_path, check=True, timeout=PATIENCE)
    with served(tmp_path, "gateway:Gateway", "--store", "discard:") as server:
        address = (server.host, server.port)
        with socket.create_connection(address, PATIENCE, ("127.0.0.9", 0)) as blocked, blocked.makefile("rb") as lines:
            assert lines.read() == b"554 5.7.1 your network is not served here\r\n"
        with client_of(server) as client:
            assert client.noop()[0] == 250


def test_gateway_takes_mail_for_recipients_in_the_table(tmp_path: Path) -> None:
    script(tmp_path, "gateway.py", "ann@example.org")
    with served(tmp_path, "gateway:Gateway", "--store", "maildir:./mail") as server, client_of(server) as client:
        client.mail("me@example.com")
        assert client.rcpt("eve@example.org") == (550, b"5.1.1 no such recipient")
        assert client.rcpt("Ann@Example.org")[0] == 250
        assert client.rcpt("postmaster")[0] == 250
        assert client.data(CONTENT)[0] == 250
        script(tmp_path, "gateway.py", "eve@example.org")  # while the server runs
        client.mail("me@example.com")
        assert client.rcpt("eve@example.org")[0] == 250
    (stored,) = new_mail(tmp_path / "mail")
    assert stored.endswith(CONTENT.encode())


def test_gateway_without_its_database_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="unable to open database file"):
        served(tmp_path, "gateway:Gateway", "--store", "discard:")


def test_gateway_with_a_broken_table_answers_451(tmp_path: Path) -> None:
    script(tmp_path, "gateway.py", "ann@example.org")
    with served(tmp_path, "gateway:Gateway", "--store", "discard:") as server:
        (tmp_path / "gateway.sqlite").write_bytes(b"this is no database" * 100)
        with client_of(server) as client:
            client.mail("me@example.com")
            assert client.rcpt("ann@example.org") == (451, b"4.3.0 temporary failure, try again later")
        server.end()
        assert "hook rcpt raised" in server.log


# -- mailboxes.py -----------------------------------------------------------------------------------------------------


def test_mailboxes_delivers_to_each_recipient(tmp_path: Path) -> None:
    script(tmp_path, "mailboxes.py", "ann@example.org", "bob@example.org", "cat@example.net")
    with served(tmp_path, "mailboxes:Mailboxes") as server, client_of(server) as client:
        assert deliver(client, "ann@example.org", "Bob@Example.Org", "ann@example.org")[0] == 250
        boxes = tmp_path / "mailboxes"
        for name in ("ann", "bob"):
            (stored,) = new_mail(boxes / "example.org" / name)
            assert stored.startswith(b"Return-Path: <me@example.com>\r\nReceived: from client.example ")
            assert stored.endswith(CONTENT.encode())
        assert new_mail(boxes / "example.net" / "cat") == []
        (message,) = mailbox.Maildir(boxes / "example.org" / "ann", create=False)
        assert message["Subject"] == "hello"


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("eve@example.org", (550, b"5.1.1 no such mailbox")),
        ("ann@example.com", (550, b"5.7.1 this domain is not served here")),
        ("../example.org/ann@example.org", (550, b"5.1.1 no such mailbox")),
        ('"."@example.org', (550, b"5.1.1 no such mailbox")),
        ("ann@[127.0.0.1]", (550, b"5.7.1 this domain is not served here")),
    ],
)
def test_mailboxes_refuses_who_is_not_there(tmp_path: Path, recipient: str, reply: tuple[int, bytes]) -> None:
    script(tmp_path, "mailboxes.py", "ann@example.org")
    with served(tmp_path, "mailboxes:Mailboxes") as server, client_of(server) as client:
        client.mail("me@example.com")
        assert client.docmd("RCPT", f"TO:<{recipient}>") == reply


def test_mailboxes_delivers_to_all_recipients_or_none(tmp_path: Path) -> None:
    script(tmp_path, "mailboxes.py", "ann@example.org", "bob@example.org")
    bob, elsewhere = tmp_path / "mailboxes" / "example.org" / "bob", tmp_path / "elsewhere"
    with served(tmp_path, "mailboxes:Mailboxes") as server, client_of(server) as client:
        client.mail("me@example.com")
        client.rcpt("ann@example.org")
        client.rcpt("bob@example.org")
        bob.rename(elsewhere)
        assert client.data(CONTENT) == (451, b"4.3.0 temporary failure, try again later")
        assert new_mail(bob.with_name("ann")) == []
        elsewhere.rename(bob)
        assert deliver(client, "ann@example.org", "bob@example.org")[0] == 250
    assert len(new_mail(bob)) == len(new_mail(bob.with_name("ann"))) == 1


def test_mailboxes_has_a_postmaster_at_its_first_domain(tmp_path: Path) -> None:
    script(tmp_path, "mailboxes.py", "postmaster@example.org", "postmaster@example.net")
    with served(tmp_path, "mailboxes:Mailboxes") as server, client_of(server) as client:
        assert deliver(client, "postmaster")[0] == 250
    assert len(new_mail(tmp_path / "mailboxes" / "example.net" / "postmaster")) == 1


# -- submission.py ----------------------------------------------------------------------------------------------------


def add_sender(directory: Path, name: str, password: str) -> None:
    command = [sys.executable, str(EXAMPLES / "submission.py"), name]
    subprocess.run(command, cwd=directory, check=True, timeout=PATIENCE, input=f"{password}\n", text=True)


@contextmanager
def secure_client_of(server: ServerProcess) -> Iterator[smtplib.SMTP]:
    """A client behind STARTTLS, whatever name the certificate has."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with client_of(server) as client:
        client.starttls(context=context)
        client.ehlo()
        yield client


def test_submission_needs_tls_and_a_login(tmp_path: Path) -> None:
    add_sender(tmp_path, "ann@example.org", "correct horse")
    options = (
        "--require-tls",
        "--require-auth",
        f"--tls-certfile={CERTIFICATE}",
        "--max-auth-failures=9",
        "--auth-failure-delay=0",
    )
    with served(tmp_path, "submission:Submission", "--store", "maildir:./mail", *options) as server:
        with client_of(server) as client:
            assert client.mail("ann@example.org") == (530, b"5.7.0 STARTTLS first")
        with secure_client_of(server) as client:
            assert client.mail("ann@example.org") == (530, b"5.7.0 authentication required")
            for user, password in (("ann@example.org", "wrong"), ("bob@example.org", "correct horse")):
                with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                    client.login(user, password)
                assert refused.value.smtp_code == 535
            assert client.login("ann@example.org", "correct horse")[0] == 235
            assert client.mail("bob@example.org") == (550, b"5.7.1 this is not your address")
            client.sendmail("ann@example.org", "you@example.net", CONTENT)
    (stored,) = new_mail(tmp_path / "mail")
    assert b" with ESMTPSA id " in stored
    assert stored.endswith(CONTENT.encode())


def test_submission_without_its_database_answers_454(tmp_path: Path) -> None:
    options = ("--no-auth-requires-tls", "--store", "discard:")
    with served(tmp_path, "submission:Submission", *options) as server, client_of(server) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login("ann@example.org", "correct horse", initial_response_ok=False)
        assert refused.value.smtp_code == 454
        add_sender(tmp_path, "ann@example.org", "correct horse")
        assert client.login("ann@example.org", "correct horse")[0] == 235


# -- lmtp_delivery.py -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "replies"),
    [
        ("--lmtp", [b"250 2.0.0 accepted, ", b"451 4.2.0 this box ca", b"250 2.0.0 accepted, "]),
        ("--no-lmtp", [b"451 4.2.0 this box ca"]),
    ],
)
def test_lmtp_delivery_answers_for_each_recipient(tmp_path: Path, option: str, replies: list[bytes]) -> None:
    script(tmp_path, "lmtp_delivery.py", "ann", "bob")
    boxes = tmp_path / "boxes"
    with (
        served(tmp_path, "lmtp_delivery:Delivery", option) as server,
        socket.create_connection((server.host, server.port), PATIENCE) as client,
        client.makefile("rwb") as file,
    ):
        assert file.readline().startswith(b"220 ")
        hello = b"LHLO" if option == "--lmtp" else b"EHLO"
        file.write(hello + b" client.example\r\nMAIL FROM:<me@example.com>\r\n")
        for box in (b"ann", b"bob", b"eve", b"../ann", b"Ann+news"):
            file.write(b"RCPT TO:<%b@example.org>\r\n" % box)
        file.flush()
        while not file.readline().startswith(b"250 "):
            pass
        assert [file.readline()[:3] for _ in range(6)] == [b"250", b"250", b"250", b"550", b"550", b"250"]
        (boxes / "bob" / "tmp").rename(boxes / "bob" / "elsewhere")
        file.write(f"DATA\r\n{CONTENT.replace('..', '...')}.\r\nQUIT\r\n".encode())
        file.flush()
        assert file.readline().startswith(b"354 ")
        assert [file.readline()[: len(reply)] for reply in replies] == replies
        assert file.readline().startswith(b"221 ")
    (stored,) = new_mail(boxes / "ann")
    assert stored.startswith(b"Return-Path: <me@example.com>\r\n")
    assert stored.endswith(CONTENT.encode())
    assert new_mail(boxes / "bob") == []


# -- README.md --------------------------------------------------------------------------------------------------------


@pytest.fixture
def readme(tmp_path: Path) -> ServerProcess:
    """The handler of the README, served as the README says."""
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(# inbox\.py\n.*?)```", text, re.DOTALL)
    (tmp_path / "inbox.py").write_text(code.replace("192.0.2.1", "127.0.0.9"))  # an address that we have
    assert "fastsmtp serve inbox:Inbox --store maildir:./mail" in text
    return served(tmp_path, "inbox:Inbox", "--store", "maildir:./mail", where=tmp_path)


def test_readme_handler(readme: ServerProcess, tmp_path: Path) -> None:
    with readme as server:
        with client_of(server) as client:
            client.mail("me@example.com")
            assert client.rcpt("you@example.com") == (550, b"5.7.1 relaying denied")
            assert client.rcpt("you@example.org") == (250, b"2.1.5 recipient ok")
            code, text = client.data(CONTENT)
            assert (code, text[:16]) == (250, b"2.0.0 accepted, ")
        with socket.create_connection((server.host, server.port), PATIENCE, ("127.0.0.9", 0)) as blocked:
            assert blocked.makefile("rb").read() == b"554 5.7.1 no service for you\r\n"
        assert server.end(signal.SIGTERM) == 0
        assert "event=message" in server.access_log
    assert (tmp_path / "subjects.txt").read_text() == "me@example.com: hello\n"
    (stored,) = new_mail(tmp_path / "mail")
    assert stored.endswith(CONTENT.encode())


def commands_of_the_readme(heading: str) -> list[list[str]]:
    """The commands of a section, split as a shell would."""
    section = (ROOT / "README.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"(?m)^(?:    .*\n)+", section)
    return [shlex.split(command) for command in block.replace("\\\n", " ").splitlines()]


def test_readme_submission(tmp_path: Path) -> None:
    install, add, serve = commands_of_the_readme("Submission, without code")
    assert install == ["pip", "install", ".[auth]"]
    fastsmtp = [sys.executable, "-m", "fastsmtp"]
    subprocess.run(
        [*fastsmtp, *add[1:]], cwd=tmp_path, check=True, timeout=PATIENCE, input="correct horse\n", text=True
    )
    replaced = {"mail.pem": str(CERTIFICATE), "0.0.0.0:587": "127.0.0.1:0", "0.0.0.0:465": "127.0.0.1:0"}
    for old, new in replaced.items():
        serve = [word.replace(old, new) for word in serve]
    with ServerProcess([*fastsmtp, *serve[1:], "--workers", "1"], tmp_path) as server:
        with secure_client_of(server) as client:
            client.login("ann@example.org", "correct horse")
            client.sendmail("ann@example.org", "you@example.net", CONTENT)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP_SSL(server.host, server.ports[1], timeout=PATIENCE, context=context) as client:
            client.ehlo()
            assert client.mail("ann@example.org")[0] == 530
    (stored,) = new_mail(tmp_path / "outgoing")
    assert stored.endswith(CONTENT.encode())
