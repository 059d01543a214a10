"""LMTP (RFC 2033) as a program speaks it that people use: swaks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.server.running import running


def test_swaks(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """LHLO, and a reply for each recipient that was taken."""
    with running(tmp_path, "--store=maildir:./mail", listen=["127.0.0.1:0 lmtp"]) as server:
        host, port = server.host_and_port
        command = [require_program("swaks"), "--protocol", "LMTP", "--server", host, "--port", str(port)]
        command += ["--from", "a@a.example", "--to", "b@b.example,c@c.example", "--body", "by swaks", "--timeout", "10"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert result.returncode == 0, result.stdout + result.stderr
        assert " -> LHLO " in result.stdout
        assert result.stdout.count("250 2.0.0 accepted, ") == 2
        (message,) = (tmp_path / "mail" / "new").iterdir()
        assert b"by swaks" in message.read_bytes()
