"""``fastsmtp top`` against real servers: one frame, frame after frame, and what it says when there is no answer."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.server.admin_client import ADMIN, AdminClient
from tests.server.processes import is_stopped
from tests.server.running import environment, running
from tests.server.small_load import small_load
from tests.server.waiting import until

COMMAND = (sys.executable, "-m", "fastsmtp", "top")
PLAIN = ("--store=discard:", *ADMIN)


def shown(*arguments: str) -> tuple[int, str]:
    """Exit code, and what was printed."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=environment({"COLUMNS": "100"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_one_frame(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN, workers=2) as server, small_load(server):
        admin = AdminClient.of(server)
        until(lambda: admin.status()["totals"]["refusals"].get("503 5.5.1"), "something is refused")
        until(lambda: admin.processes()[0]["rss_bytes"] and admin.processes(1)[0]["rss_bytes"], "the gauges")
        before = admin.status()["totals"]["messages"]["accepted"]
        code, text = shown("--once", f"--admin={admin.host_and_port}", "--interval=1")
        after = admin.status()["totals"]["messages"]["accepted"]
        assert code == 0, text
        (rate, total) = re.findall(r"messages accepted +([\d.,]+) +([\d,]+)", text)[0]
        assert float(rate.replace(",", "")) > 0
        assert before <= int(total.replace(",", "")) <= after
        assert re.search(r"message +[\d.]+ m?s +[\d.]+ m?s +[\d.]+ m?s", text)
        for number, pid in enumerate(admin.pids()):
            assert re.search(rf"(?m)^{number} +{pid}  ready ", text)
        assert "503 5.5.1" in text


def test_over_a_unix_socket_frame_after_frame(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with running(tmp_path, "--store=discard:", f"--admin=unix:{path}") as server:
        command = [*COMMAND, "--admin", f"unix:{path}", "--interval=0.1"]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                heads = 0
                while heads < 3:
                    heads += "fastsmtp 0" in process.stdout.readline()
                server.stop()
                while "no answer" not in process.stdout.readline():
                    pass
            finally:
                process.kill()


def test_in_a_terminal_it_ends_with_an_interrupt(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        ours, theirs = pty.openpty()
        address = AdminClient.of(server).host_and_port
        command = [*COMMAND, f"--admin={address}", "--interval=0.1"]
        environ = environment({"TERM": "xterm-256color"})
        with subprocess.Popen(command, env=environ, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            try:
                seen = b""
                while b"Worker" not in seen:
                    seen += os.read(ours, 65536)
                process.send_signal(signal.SIGINT)
                try:
                    while rest := os.read(ours, 65536):
                        seen += rest
                except OSError:  # the other end is closed
                    pass
                assert process.wait(20) == 0
                assert b"Traceback" not in seen
            finally:
                process.kill()
                os.close(ours)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        until(lambda: admin.processes()[0]["stamp_age_seconds"] is not None, "a first stamp")
        (pid,) = admin.pids()
        os.kill(pid, signal.SIGSTOP)
        until(lambda: is_stopped(pid), "it stands still")
        until(lambda: admin.processes()[0]["stamp_age_seconds"] > 3, "an old stamp")
        _, text = shown("--once", f"--admin={admin.host_and_port}", "--interval=0.1")
        assert "worker 0 hangs: its event loop has not turned for" in text
        os.kill(pid, signal.SIGKILL)


def test_no_answer() -> None:
    code, text = shown("--once", "--admin=127.0.0.1:1")
    assert code == 1
    assert "127.0.0.1:1" in text
    assert "Traceback" not in text


def test_without_rich_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError('No module named rich', name='rich')\n")
    command = [*COMMAND, "--once", "--admin=127.0.0.1:1"]
    environ = environment({"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"})
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'fastsmtp[top]'" in done.stderr
