"""Bounded loads: every message is answered, once, in order."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.running import running

MESSAGES = 2000
REPLY = 'reply="250 2.0.0"'


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("hooks", ["AsyncHooks", "InlineHooks", "ThreadHooks"])
def test_smtp_source(tmp_path: Path, require_program: Callable[[str], str], hooks: str, workers: int) -> None:
    source = require_program("smtp-source")
    with running(tmp_path, f"loadtest.bench_app:{hooks}", workers=workers) as server:
        target = "{}:{}".format(*server.host_and_port)
        command = [source, "-s", "20", "-m", str(MESSAGES), "-l", "5120", target]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        lines = server.wait_for_access(MESSAGES, "event=message")
        assert all(REPLY in line for line in lines)
        assert len({re.search(" id=(\\S+)", line) for line in lines}) == MESSAGES
        assert server.stop() == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("app", ["AsyncHooks", "InlineHooks", "ThreadHooks", None])
def test_a_pipelining_client(tmp_path: Path, app: str | None) -> None:
    """The next MAIL stands right behind each end of data; the flights are cut anywhere."""
    count = 1000
    arguments = [f"loadtest.bench_app:{app}"] if app else []
    with running(tmp_path, *arguments) as server, server.greeted() as client:
        octets = b"".join(
            b"MAIL FROM:<a%d@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nSubject: %d\r\n\r\n%b\r\n.\r\n"
            % (number, number, b"x" * (number % 500))
            for number in range(count)
        )
        sending = threading.Thread(target=client.send, args=(octets + b"QUIT\r\n",))
        sending.start()
        try:
            for _ in range(count):
                for start in ("250 2.1.0", "250 2.1.5", "354", "250 2.0.0 accepted"):
                    client.expect(start)
            client.expect("221")
            client.expect_end()
        finally:
            client.socket.close()
            sending.join()
        lines = server.wait_for_access(count, "event=message")
        senders = [match[1] for line in lines if (match := re.search(" from=<a(\\d+)@", line))]
        assert senders == [str(number) for number in range(count)]
        if app is None:
            assert len(list((tmp_path / "mail" / "new").iterdir())) == count
