"""What a newcomer sees first: no application, and mail that is there byte for byte in ./mail."""

from __future__ import annotations

import hashlib
import re
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.running import Server, running

# Return-Path and Received, as the store puts them in front (RFC 5321 4.4).
_ADDED = re.compile(
    rb"Return-Path: <(?P<sender>[^>]*)>\r\n"
    rb"Received: from \S+ \(\[127\.0\.0\.1\]\)\r\n"
    rb"\tby \S+ with E?SMTP id \S+?(\r\n\tfor <(?P<recipient>[^>]*)>)?;\r\n"
    rb"\t[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("newcomer"), "--max-message-bytes=70M", workers=None) as server:
        yield server


@pytest.fixture
def mails(server: Server) -> Iterator[Callable[[], list[bytes]]]:
    """Returns the content of what was delivered during the test, without the added headers."""
    new = server.directory / "mail" / "new"
    for each in new.iterdir():
        each.unlink()

    def read() -> list[bytes]:
        contents = []
        for each in sorted(new.iterdir()):
            octets = each.read_bytes()
            added = _ADDED.match(octets)
            assert added, octets[:300]
            contents.append(octets[added.end() :])
        return contents

    yield read
    assert list((server.directory / "mail" / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"Subject: hello\r\n\r\nIt works.\r\n",
        b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n...\r\nx.\r\n",
        b".first\r\n",
        b"Subject: eight bits\r\n\r\n\xff\xfe\x80 \xc3\xa4\r\n",
        b"",
        b"\r\n",
        b"no header, no end" * 100 + b"\r\n",
        bytes(octet for octet in range(256) if octet not in b"\0\r\n") + b"\r\n",
    ],
)
def test_a_message_is_there_byte_for_byte(server: Server, mails: Callable[[], list[bytes]], content: bytes) -> None:
    with smtplib.SMTP(*server.host_and_port) as client:
        client.sendmail("me@example.com", "you@example.com", content)
    if content:
        assert mails() == [content]
    else:
        assert mails() in ([b""], [b"\r\n"])  # smtplib adds a line end of its own


def test_the_empty_message(server: Server, mails: Callable[[], list[bytes]]) -> None:
    with server.greeted() as client:
        client.deliver(b"")
        assert mails() == [b""]


def test_several_recipients_are_one_file(server: Server, mails: Callable[[], list[bytes]]) -> None:
    content = b"Subject: x\r\n\r\nx\r\n"
    with smtplib.SMTP(*server.host_and_port) as client:
        for _ in range(3):
            client.sendmail("me@example.com", ["you@example.com", "they@example.com"], content)
    assert mails() == [content] * 3


def test_a_message_of_60_megabytes(server: Server, mails: Callable[[], list[bytes]]) -> None:
    line = bytes(octet for octet in range(1, 256) if octet not in b"\r\n") + b"\r\n"
    content = b"Subject: large\r\n\r\n" + (b"." + line) * (60_000_000 // (len(line) + 1))
    with smtplib.SMTP(*server.host_and_port, timeout=60) as client:
        client.sendmail("me@example.com", "you@example.com", content)
    (stored,) = mails()
    assert len(stored) == len(content)
    assert hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()


def test_swaks(
    server: Server, mails: Callable[[], list[bytes]], require_program: Callable[[str], str], tmp_path: Path
) -> None:
    content = b"From: me@example.com\r\nSubject: swaks\r\n\r\n.dot\r\n..\r\nend\r\n"
    file = tmp_path / "message"
    file.write_bytes(content.replace(b"\r\n", b"\n"))
    host, port = server.host_and_port
    swaks = [require_program("swaks"), "--server", host, "--port", str(port), "--data", f"@{file}"]
    for extra in ([], ["--pipeline"], ["--protocol", "SMTP"]):
        done = subprocess.run(
            [*swaks, "--from", "me@example.com", "--to", "you@example.com", *extra],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode()
    assert [mail.rstrip() for mail in mails()] == [content.rstrip()] * 3


def test_the_line_to_try_it_works(server: Server, mails: Callable[[], list[bytes]]) -> None:
    """The log's own example, as a person would paste it."""
    (found,) = server.wait_for_log(r"try it: (python3 -c .*)$")
    subprocess.run(["sh", "-c", found[1]], timeout=30, check=True)
    assert mails() == [b"Subject: hello\r\n\r\nIt works.\r\n"]
