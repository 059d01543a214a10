"""`tests/conformance/serve` becomes a server with the settings that the cases are written for, and ends on TERM."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.server_process import PATIENCE, ServerProcess

SERVE = Path(__file__).with_name("serve")
COMMAND = [sys.executable, str(SERVE), "--plain", "0"]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def workers_of(master: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def test_greets_and_ends_as_one_process_tree(tmp_path: Path) -> None:
    with ServerProcess(COMMAND, tmp_path) as server:
        with smtplib.SMTP(server.host, server.port, timeout=PATIENCE) as client:
            assert client.noop()[0] == 250
            assert client.docmd("EHLO", "c.example")[0] == 250
        workers = workers_of(server.pid)
        assert workers
        assert server.end(signal.SIGTERM) == 0
    assert [pid for pid in [server.pid, *workers] if exists(pid)] == []


def test_banner_names_the_server(tmp_path: Path) -> None:
    with ServerProcess(COMMAND, tmp_path) as server:
        client = smtplib.SMTP(timeout=PATIENCE)
        assert client.connect(server.host, server.port) == (220, b"mx.example.org ESMTP")
        client.quit()


def test_settings_are_those_of_the_cases_whatever_surrounds_them(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.fastsmtp]\nmax_recipients = 7000\nsmtputf8 = false\n")
    with (
        ServerProcess(COMMAND, tmp_path, {"FASTSMTP_MAX_MESSAGE_BYTES": "12345"}) as server,
        smtplib.SMTP(server.host, server.port, timeout=PATIENCE) as client,
    ):
        client.ehlo()
        assert client.esmtp_features["size"] == "1000000"
        assert client.esmtp_features["limits"] == "RCPTMAX=100"
        assert "smtputf8" in client.esmtp_features


def test_maildir_keeps_the_mail(tmp_path: Path) -> None:
    with ServerProcess([*COMMAND, "--maildir", str(tmp_path / "mail")], tmp_path) as server:
        with smtplib.SMTP(server.host, server.port, timeout=PATIENCE) as client:
            client.sendmail("a@a.example", ["b@b.example"], "Subject: s\r\n\r\nkept\r\n")
        (file,) = (tmp_path / "mail" / "new").iterdir()
    assert file.read_bytes().endswith(b"\r\n\r\nkept\r\n")


def hello(server: ServerProcess, port: int, verb: bytes, preamble: bytes = b"") -> list[bytes]:
    """What a listener answers to its hello."""
    with socket.create_connection((server.host, port), PATIENCE) as connection, connection.makefile("rwb", 0) as stream:
        stream.write(preamble)
        assert stream.readline() == b"220 mx.example.org ESMTP\r\n"
        stream.write(verb + b" c.example\r\n")
        lines = [stream.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(stream.readline())
        return lines


def test_each_kind_of_listener_is_what_it_says(tmp_path: Path) -> None:
    with ServerProcess([*COMMAND, "--proxy", "0", "--xclient", "0", "--lmtp", "0"], tmp_path) as server:
        plain, proxy, xclient, lmtp = server.ports
        offered = hello(server, plain, b"EHLO")
        assert b"250 STARTTLS\r\n" in offered
        assert hello(server, proxy, b"EHLO", b"PROXY TCP4 192.0.2.9 192.0.2.1 51234 25\r\n") == offered
        assert hello(server, xclient, b"EHLO")[-1].startswith(b"250 XCLIENT NAME ADDR ")
        assert hello(server, lmtp, b"EHLO") == [b"500 5.5.1 wrong protocol\r\n"]
        assert hello(server, lmtp, b"LHLO") == offered


@pytest.mark.parametrize("arguments", [[], ["--plain", "smtp"]])
def test_port_is_asked_for(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, SERVE, *arguments], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert b"--plain" in done.stderr


def test_conformance_run_without_the_cases_says_so(tmp_path: Path) -> None:
    run = [sys.executable, str(SERVE.with_name("run.py")), str(tmp_path / "run_cases.py")]
    done = subprocess.run(run, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0
    assert b"no conformance cases were run" in done.stdout
