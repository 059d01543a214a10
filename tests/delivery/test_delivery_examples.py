"""The examples that send mail on, run as their heads say, with the servers they are meant for."""

from __future__ import annotations

import smtplib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.delivery.dovecot import dovecot
from tests.server.running import ROOT, Server, starting
from tests.server.running import running as serving
from tests.server.waiting import until

EXAMPLES = ROOT / "examples"
CONTENT = "From: me@example.com\r\nSubject: hello\r\n\r\nIt works.\r\n"
PATIENCE = 20  # seconds


@contextmanager
def example(directory: Path, app: str, *options: str, **environ: str) -> Iterator[Server]:
    """``fastsmtp serve APP``, in a directory of the test's own."""
    path = {"PYTHONPATH": f"{EXAMPLES}:{ROOT}"}
    with serving(directory, app, *options, environ={**path, **environ}, name="example") as server:
        yield server


@contextmanager
def client_of(server: Server, source: str = "127.0.0.1") -> Iterator[smtplib.SMTP]:
    host, port = server.host_and_port
    with smtplib.SMTP(host, port, "client.example", timeout=PATIENCE, source_address=(source, 0)) as client:
        client.ehlo()
        yield client


def test_lmtp_front_asks_dovecot_and_hands_on(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    with (
        dovecot(require_program("dovecot"), "ann", "bob") as boxes,
        example(tmp_path, "lmtp_front:Front", f"--store=forward:{boxes.url}", LMTP=boxes.url) as server,
        client_of(server) as client,
    ):
        client.mail("me@example.com")
        assert client.rcpt("ann@here.example")[0] == 250
        code, text = client.rcpt("eve@here.example")
        assert (code, text[:25]) == (550, b"5.1.1 <eve@here.example> ")
        assert client.rcpt("bob@here.example")[0] == 250
        assert client.data(CONTENT)[0] == 250
        (mail,) = boxes.mail_of("ann")  # the 250 was Dovecot's
        assert boxes.mail_of("bob") != []
    assert mail.startswith(b"Return-Path: <me@example.com>\n")
    assert mail.endswith(CONTENT.replace("\r\n", "\n").encode())


def test_lmtp_front_without_dovecot_says_later(tmp_path: Path) -> None:
    nobody = f"lmtp://unix:{tmp_path}/nobody"
    with (
        example(tmp_path, "lmtp_front:Front", f"--store=forward:{nobody}", LMTP=nobody) as server,
        client_of(server) as client,
    ):
        client.mail("me@example.com")
        assert client.rcpt("ann@here.example") == (451, b"4.3.0 the mailboxes cannot be reached, try again later")


def test_smarthost_takes_our_mail_and_passes_it_on(tmp_path: Path) -> None:
    with serving(tmp_path, "--store=maildir:./mail", name="relay") as relay:
        command = [sys.executable, "-m", "fastsmtp", "deliver", "--from", "queue:./outgoing", "--to"]
        with (
            example(tmp_path, "smarthost:Smarthost", "--store=queue:./outgoing") as server,
            starting(tmp_path, [*command, f"smtp://127.0.0.1:{relay.host_and_port[1]}"], name="deliver"),
        ):
            with client_of(server, "127.0.0.9") as stranger:
                stranger.mail("me@example.com")
                assert stranger.rcpt("you@example.net") == (550, b"5.7.1 relaying denied")
            with client_of(server) as client:
                client.sendmail("me@example.com", ["you@example.net", "them@example.org"], CONTENT)
            new = tmp_path / "mail" / "new"
            until(lambda: len(list(new.iterdir())) == 2, "both messages have arrived")
    for file in new.iterdir():
        assert file.read_bytes().endswith(CONTENT.encode())
