"""What a master owes to processes that are not its workers, and workers to a master that is gone."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.server import journal
from tests.server.processes import is_alive, members_of
from tests.server.running import SERVE, running, starting
from tests.server.waiting import until

# Becomes the server, to which orphans come as they come to process 1: prctl(PR_SET_CHILD_SUBREAPER), which exec keeps.
REAPER = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execv(sys.argv[1], sys.argv[1:])"


def _zombies(session: int) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat[0] == "Z" and stat[3] == str(session):
            found.append(entry.name)
    return found


def test_orphans_are_collected(tmp_path: Path) -> None:
    """As process 1 of a container must: what a hook has started outlives its parent, and ends."""
    command = [sys.executable, "-c", REAPER, *SERVE, "tests.server.apps:Parent", "--listen=127.0.0.1:0", "--workers=1"]
    with starting(tmp_path, command) as server:
        server.wait_until_ready()
        worker = server.worker
        for _ in range(5):
            server.connect().expect("220")
        orphans = until(lambda: [event["pid"] for event in journal.events(tmp_path, event="orphan")], "orphans")
        until(lambda: not any(map(is_alive, orphans)), "they end")
        until(lambda: _zombies(server.pid) == [], "they are collected")
        assert server.workers == [worker]
        assert "died" not in server.log
        assert server.stop() == 0


def test_workers_and_admin_do_not_outlive_the_master(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:Pids", "--admin=127.0.0.1:0", workers=2) as server:
        client = server.greeted()
        client.begin_data()
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(10)
        until(lambda: len(members_of(server.pid)) == 1, "the idle ones leave")
        client.send(b"x\r\n.\r\n")  # what has begun may end: the kernel says TERM for the master
        client.expect("250 2.0.0 accepted")
        client.expect("421 4.3.2")
        client.expect_end()
        client.socket.close()
        until(lambda: members_of(server.pid) == [], "all leave")
