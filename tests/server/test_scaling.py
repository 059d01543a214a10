"""More workers, and fewer, while clients come and go: nobody is refused, reset or failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtest.chaos.replacing import replace, scale
from tests.server import journal
from tests.server.admin_client import ADMIN, TOKEN, AdminClient
from tests.server.gates import open_gate
from tests.server.running import Server, running
from tests.server.waiting import until

PIDS = "tests.server.apps:Pids"


def test_replacing_under_load_fails_nobody(tmp_path: Path) -> None:
    outcome = replace(tmp_path, times=5, sessions=16)
    assert outcome.failed == []
    assert len(outcome.acknowledged) > 150


def test_scaling_under_load_fails_nobody(tmp_path: Path) -> None:
    outcome = scale(tmp_path, rounds=1, sessions=16)
    assert outcome.failed == []
    assert len(outcome.by_worker) >= 5  # four, of which one stayed, and at least one of those that came back


def _pids(server: Server, connections: int = 64) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(connections):
        client = server.connect()
        found[client.expect("220 pid ").split()[-1]] += 1
        client.socket.close()
    return found


def test_ttin_and_ttou(tmp_path: Path) -> None:
    with running(tmp_path, PIDS, "--max-workers=3", workers=2) as server:
        server.send_signal(signal.SIGTTIN)
        until(lambda: len(_pids(server)) == 3, "a third worker serves")
        server.send_signal(signal.SIGTTIN)
        server.wait_for_log(r"ERROR .*workers: from 1 to 3 \(max_workers\), not 4")
        for count in (2, 1):
            server.send_signal(signal.SIGTTOU)
            until(lambda count=count: len(server.workers) == count, f"{count} workers")  # type: ignore[misc]
            assert len(_pids(server)) == count
        server.send_signal(signal.SIGTTOU)
        server.wait_for_log("ERROR .*workers: from 1 to 3")
        assert len(_pids(server)) == 1
        assert server.stop() == 0


def test_scaling_as_asked(tmp_path: Path) -> None:
    with running(tmp_path, PIDS, *ADMIN, workers=1) as server:
        admin = AdminClient.of(server)
        answer = admin.post("/scale?workers=3")
        assert (answer.status, answer.body) == (202, "workers: 1 before, 3 wanted\n")
        until(lambda: [worker["ready"] for worker in admin.status()["workers"]] == [True] * 3, "three are ready")
        assert admin.get("/readyz").status == 200
        assert admin.status()["workers_wanted"] == 3
        assert set(_pids(server)) == set(map(str, admin.pids()))
        assert admin.post("/scale?workers=1").status == 202
        until(lambda: len(admin.status()["workers"]) == 1, "the slots are gone")
        assert admin.get("/readyz").status == 200
        assert admin.post("/scale?workers=2").status == 202  # a slot that was there before
        until(lambda: len(_pids(server)) == 2, "two serve")


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("?workers=9", 409, "from 1 to 8"),
        ("?workers=0", 409, "from 1 to 8"),
        ("?workers=", 400, "expected"),
        ("?workers=-1", 400, "expected"),
        ("?workers=2&workers=3", 400, "expected"),
        ("", 400, "expected"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, query: str, status: int, says: str) -> None:
    with running(tmp_path, PIDS, *ADMIN) as server:
        admin = AdminClient.of(server)
        answer = admin.post(f"/scale{query}")
        assert (answer.status, says in answer.body) == (status, True)
        assert admin.post("/scale?workers=2", token="not-the-token-of-the-tests").status == 403
        assert len(_pids(server)) == 1


def test_sessions_of_a_worker_that_is_not_wanted_go_on(tmp_path: Path) -> None:
    """standards.md E13: retirement is as a reload."""
    with running(tmp_path, PIDS, "--drain-idle=1", workers=2) as server:
        clients = [server.connect() for _ in range(24)]
        by_pid = {client: int(client.expect("220 pid ").split()[-1]) for client in clients}
        server.send_signal(signal.SIGTTOU)
        leaver = server.workers[1]
        (busy, *_), (staying, *_) = (
            [client for client in clients if (by_pid[client] == leaver) is leaving] for leaving in (True, False)
        )
        busy.ask("EHLO client.example", "250")
        busy.begin_data()
        until(lambda: set(_pids(server)) == {str(server.workers[0])}, "new connections go to the one that stays")
        busy.send(b"x\r\n.\r\n")
        busy.expect("250 2.0.0 accepted")
        busy.expect("421 4.3.2")  # idle for a second
        staying.ask("NOOP", "250")
        server.close_clients()
        server.wait_for_log(rf"worker 1 \(pid {leaver}\) has left")


def test_a_stopping_server_hurries_those_that_leave(tmp_path: Path) -> None:
    """A worker that retires has all the time of its sessions; when the server stops, it has not."""
    with running(tmp_path, PIDS, "--drain-idle=60", workers=1) as server:
        with server.greeted() as idle:
            server.send_signal(signal.SIGHUP)
            server.wait_for_log("took over")
            idle.ask("NOOP", "250")
            server.send_signal(signal.SIGTERM)
            idle.expect("421 4.3.2")
            idle.expect_end()
        assert server.wait() == 0


def test_connections_go_round_a_worker_that_stands_still(tmp_path: Path) -> None:
    with running(tmp_path, PIDS, workers=2) as server:
        pids = server.workers
        assert len(_pids(server)) == 2
        os.kill(pids[0], signal.SIGSTOP)

        def only_the_other() -> bool:
            clients = [server.connect(seconds=0.5) for _ in range(12)]
            try:
                return {client.expect("220 pid ").split()[-1] for client in clients} == {str(pids[1])}
            except TimeoutError:
                return False
            finally:
                for client in clients:
                    client.socket.close()

        until(only_the_other, "nobody waits for it", 20)
        os.kill(pids[0], signal.SIGCONT)
        until(lambda: len(_pids(server)) == 2, "it serves again")


def test_a_worker_that_starts_is_not_wanted_any_more(tmp_path: Path) -> None:
    """And neither is the one that it was to replace."""
    with running(tmp_path, "tests.server.apps:Lifespan", "--drain-idle=0.1", workers=2) as server:
        old = server.workers
        open_gate(tmp_path, "hold")
        server.send_signal(signal.SIGTTIN)
        until(lambda: len(server.workers) == 3, "a third one starts")
        server.send_signal(signal.SIGTTOU)
        until(lambda: server.workers == old, "it ends")
        server.wait_for_log(r"worker 2 \(pid \d+\) has left")
        server.send_signal(signal.SIGHUP)
        until(lambda: len(server.workers) == 3, "a successor starts")
        server.send_signal(signal.SIGTTOU)
        until(lambda: len(server.workers) == 2, "the second one leaves")
        open_gate(tmp_path, "lifespan")
        server.wait_for_log("reload: done")
        until(lambda: not set(old) & set(server.workers), "all are new")
        assert len(server.workers) == 1
        assert "died" not in server.log


def test_a_worker_whose_application_is_still_starting_ends_at_once(tmp_path: Path) -> None:
    """Its loop turns already, and hears the signal; nobody waits for what the application waits for."""
    with running(tmp_path, "tests.server.apps:Lifespan") as server:
        old = server.workers
        open_gate(tmp_path, "hold")
        server.send_signal(signal.SIGTTIN)
        until(lambda: journal.events(tmp_path, event="entered", slot=1), "the application starts")
        server.send_signal(signal.SIGTTOU)
        server.wait_for_log(r"worker 1 \(pid \d+\) has left")
        assert server.workers == old


def test_ctl_scales_and_drains(tmp_path: Path) -> None:
    with running(tmp_path, PIDS, *ADMIN) as server:
        address = server.wait_for_log(r"admin at (127\.0\.0\.1:\d+)")[0][1]

        def ctl(*arguments: str) -> str:
            command = [sys.executable, "-m", "fastsmtp", "ctl", *arguments, "--admin", address, "--token", TOKEN]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
            return done.stdout + done.stderr

        assert ctl("scale", "2") == "workers: 1 before, 2 wanted\n"
        until(lambda: len(_pids(server)) == 2, "two serve")
        assert json.loads(ctl("scale", "1", "--json")) == {"outcome": "workers: 2 before, 1 wanted"}
        assert "from 1 to 8" in ctl("scale", "99")
        assert ctl("drain") == "stopped\n"
        assert server.wait() == 0


def test_shared_balance(tmp_path: Path) -> None:
    """All accept from one socket: also a single worker left gets everybody."""
    with running(tmp_path, PIDS, "--balance=shared", "--drain-idle=0.1", workers=3) as server:
        assert sum(_pids(server).values()) == 64
        for count in (2, 1):
            server.send_signal(signal.SIGTTOU)
            until(lambda count=count: len(server.workers) == count, f"{count} workers")  # type: ignore[misc]
        assert len(_pids(server)) == 1
        server.send_signal(signal.SIGTTIN)
        until(lambda: len(server.workers) == 2, "two workers")
        assert server.stop() == 0


def test_balance_by_cpu(tmp_path: Path) -> None:
    """Who connects on a CPU is served on it; when its worker leaves, by another one."""
    ours = sorted(os.sched_getaffinity(0))
    workers = 2 * len(ours)
    with running(tmp_path, PIDS, "--balance=cpu", "--drain-idle=0.1", workers=workers) as server:
        until(lambda: len(_served_on(server, ours[0])) == 2, "both workers of this CPU are ready")
        for cpu in ours:
            pids = [int(pid) for pid in _served_on(server, cpu)]
            assert [os.sched_getaffinity(pid) for pid in pids] == [{cpu}] * 2
        for count in range(workers - 1, 0, -1):
            server.send_signal(signal.SIGTTOU)
            until(lambda count=count: len(server.workers) == count, f"{count} workers")  # type: ignore[misc]
        assert {pid for cpu in ours for pid in _served_on(server, cpu)} == set(map(str, server.workers))
        assert server.stop() == 0


def _served_on(server: Server, cpu: int) -> Counter[str]:
    """Who serves those whose connections arrive on this CPU, where the client runs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        return _pids(server)
    finally:
        os.sched_setaffinity(0, before)
