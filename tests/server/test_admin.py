"""The admin process: what it tells, who may control, and that it lives as long as the master, whatever it meets."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fastsmtp.server.columns import FAMILIES, HISTOGRAMS, Kind
from tests.server import journal
from tests.server.admin_client import ADMIN, TOKEN, AdminClient, admin_pid
from tests.server.gates import open_gate
from tests.server.processes import is_alive, is_stopped
from tests.server.running import SERVE, failing, running, starting
from tests.server.waiting import until

PLAIN = ("--store=discard:", *ADMIN)


# -- what it tells ---------------------------------------------------------------------------------------------------


def test_status(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN, workers=2, listen=["127.0.0.1:0", "127.0.0.1:0 lmtp"]) as server:
        admin = AdminClient.of(server)
        answer = admin.get("/status")
        found = json.loads(answer.body)
        assert (answer.status, answer.fields["content-type"]) == (200, "application/json")
        assert (found["pid"], found["state"], found["last_reload"]) == (server.pid, "ready", None)
        host, port = server.host_and_port
        assert found["listeners"][0] == f"{host}:{port}"
        assert found["listeners"][1].endswith(" lmtp")
        assert found["admin"] in server.log
        assert sorted(admin.pids()) == sorted(set(server.workers) - {admin_pid(server, admin)})
        for number, worker in enumerate(found["workers"]):
            (process,) = worker["processes"]
            assert (worker["worker"], worker["ready"], process["state"]) == (number, True, "ready")
            assert process["started"] >= found["started"]
        assert TOKEN not in answer.body


def test_gauges_follow_within_seconds(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        clients = [server.greeted() for _ in range(3)]
        until(lambda: admin.processes()[0]["open_connections"] == 3, "the connections are seen")
        (process,) = admin.processes()
        assert process["rss_bytes"] > 2**23
        assert 0 <= process["loop_lag_seconds"] < 5
        for client in clients:
            client.quit()
        until(lambda: admin.processes()[0]["open_connections"] == 0, "they are gone")


def test_hooks_in_threads_are_seen(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:ThreadGate", *ADMIN) as server, server.greeted() as client:
        admin = AdminClient.of(server)
        client.begin_data("gate-data@a.example")
        client.send(b"x\r\n.\r\n")
        until(lambda: admin.processes()[0]["hooks_pending"] == 1, "a hook")
        assert admin.processes()[0]["threads_busy"] == 1
        open_gate(tmp_path, "data")
        client.expect("250")
        until(lambda: admin.processes()[0]["hooks_pending"] == 0, "none")


def test_ends_of_sessions_and_use_of_the_cpu_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN, "--threads=3", "--max-errors=1") as server:
        admin = AdminClient.of(server)
        server.greeted().quit()
        server.greeted().socket.close()
        with server.greeted() as client:
            client.ask("RCPT TO:<a@a.example>", "503")
            client.expect("421")
        sessions = {"quit": 1, "closed_by_client": 1, "closed_by_server": 1}
        until(lambda: admin.status()["totals"]["sessions"] == sessions, "three ends")
        until(lambda: admin.processes()[0]["threads"] == 3, "the gauges")
        until(lambda: 0 < admin.status()["totals"]["cpu_seconds"] < 60, "time")
        until(lambda: admin.status()["totals"]["loop_delay_seconds"]["count"] > 1, "beats")


def test_a_store_without_room_is_seen(tmp_path: Path) -> None:
    free = f"--min-free-bytes={10**17}"
    with running(tmp_path, "--store=maildir:./mail", free, *ADMIN) as server:
        admin = AdminClient.of(server)
        until(lambda: admin.processes()[0]["mail_refused"] == 1, "MAIL is refused")


def test_a_worker_that_stands_still_shows_by_its_stamp(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        until(lambda: admin.processes()[0]["stamp_age_seconds"] is not None, "a first stamp")
        (pid,) = admin.pids()
        os.kill(pid, signal.SIGSTOP)
        until(lambda: is_stopped(pid), "it stands still")
        until(lambda: admin.processes()[0]["stamp_age_seconds"] > 2, "an old stamp")
        assert admin.get("/livez").status == 200
        assert admin.get("/metrics").status == 200
        os.kill(pid, signal.SIGCONT)
        until(lambda: admin.processes()[0]["stamp_age_seconds"] < 1.5, "a new stamp")


def _samples(text: str, openmetrics: bool) -> dict[str, set[str]]:
    """Names of samples by family."""
    found: Iterable[Metric] = parse_openmetrics(text) if openmetrics else parse_text(text)  # type: ignore[no-untyped-call] # not annotated there
    return {family.name: {sample.name for sample in family.samples} for family in found}


@pytest.mark.parametrize("openmetrics", [False, True])
def test_metrics_can_be_parsed(tmp_path: Path, openmetrics: bool) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5" if openmetrics else "*/*"
    with running(tmp_path, *PLAIN, workers=2) as server:
        answer = AdminClient.of(server).get("/metrics", Accept=accept)
    assert answer.status == 200
    kind = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
    assert answer.fields["content-type"].startswith(kind)
    found = _samples(answer.body, openmetrics)
    for family in FAMILIES:
        name = f"fastsmtp_{family.metric}"
        if family.kind is Kind.GAUGE:
            assert found[name] == {name}
        elif family.kind is Kind.COUNTER:
            assert found[name] == {f"{name}_total"}
    for histogram in HISTOGRAMS:
        name = f"fastsmtp_{histogram.family.metric}"
        assert found[name] == {f"{name}_bucket", f"{name}_count", f"{name}_sum"}
    assert all(name.startswith("fastsmtp_") for name in found)


def test_an_odd_accept_field_gets_text(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        for accept in ("application/openmetrics-text;version=x", "text/plain;version=1.x", ";;,;=", "a" * 5000):
            answer = admin.get("/metrics", Accept=accept)
            assert (answer.status, answer.fields["content-type"][:10]) == (200, "text/plain")


def test_messages_are_counted_over_the_lives_of_workers(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        for count in (1, 2):
            client = server.greeted()
            client.deliver()
            client.quit()
            os.kill(admin.pids()[0], signal.SIGKILL)
            server.wait_for_log(r"worker 0 \(pid \d+\) died", count=count)
            until(lambda: admin.get("/readyz").status == 200, "the successor serves")
        admin.post("/reload")
        server.wait_for_log("took over")
        server.greeted().deliver()
        until(lambda: admin.status()["totals"]["messages"] == {"accepted": 3, "refused": 0}, "three messages")


# -- readiness -------------------------------------------------------------------------------------------------------


def test_not_ready_while_it_starts_and_while_it_drains(tmp_path: Path) -> None:
    open_gate(tmp_path, "hold")
    admin = AdminClient(tmp_path / "admin.sock")
    command = [*SERVE, "tests.server.apps:Lifespan", "--listen=127.0.0.1:0", "--workers=1", "--admin=unix:admin.sock"]
    with starting(tmp_path, command) as server:
        until(lambda: journal.events(tmp_path, event="entered"), "the lifespan")
        answer = admin.get("/readyz")
        assert (answer.status, answer.body) == (503, "worker 0 not ready\n")
        assert admin.get("/livez").status == 200
        assert admin.status()["state"] == "starting"
        open_gate(tmp_path, "lifespan")
        server.wait_until_ready()
        answer = admin.get("/readyz")
        assert (answer.status, answer.body) == (200, "ready\n")
        with server.connect() as client:
            client.expect("220")
            client.ask("EHLO client.example", "250")
            client.ask("MAIL FROM:<a@a.example>", "250")
            assert admin.ask("POST", "/stop").status == 202
            until(lambda: admin.get("/readyz").body == "draining\n", "it drains")
            assert admin.get("/readyz").status == 503
            assert admin.get("/livez").status == 200
            until(lambda: admin.processes()[0]["state"] == "draining", "the worker drains")
            # A second TERM would cut the session.
            assert admin.ask("POST", "/stop").status == 409
            assert admin.ask("POST", "/reload").status == 409
            client.ask("RSET", "250")
            client.expect("421")
        assert server.wait() == 0
        assert not (tmp_path / "admin.sock").exists()


def test_not_ready_while_a_slot_is_empty(tmp_path: Path) -> None:
    open_gate(tmp_path, "hold")
    open_gate(tmp_path, "lifespan")
    with running(tmp_path, "tests.server.apps:Lifespan", *ADMIN) as server:
        admin = AdminClient.of(server)
        assert admin.get("/readyz").status == 200
        (tmp_path / "gate-lifespan").unlink(missing_ok=True)
        (pid,) = admin.pids()
        os.kill(pid, signal.SIGKILL)
        until(lambda: admin.get("/readyz").status == 503, "the slot is empty")
        open_gate(tmp_path, "lifespan")
        until(lambda: admin.get("/readyz").status == 200, "the successor serves")
        assert admin.status()["totals"]["worker_deaths"] == 1


# -- control ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/reload", "/stop"])
def test_control_needs_the_token(tmp_path: Path, path: str) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        before = admin.pids()
        for authorization in (
            "",
            f"Basic {TOKEN}",
            "Bearer",
            "Bearer wrong",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
        ):
            assert admin.ask("POST", path, Authorization=authorization).status == 403
        assert admin.ask("POST", path, Authorization="Bearer \xe4").status == 403
        assert admin.ask("POST", path).status == 403
        assert (admin.pids(), admin.status()["state"]) == (before, "ready")
        assert admin.ask("POST", path, Authorization=f"bearer {TOKEN}").status == 202
        server.wait_for_log("reload: replacing 1 workers" if path == "/reload" else "stopping: 1 workers drain")
        assert TOKEN not in server.log


def test_without_a_token_nobody_controls_over_tcp(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", "--admin=127.0.0.1:0") as server:
        admin = AdminClient.of(server)
        assert admin.post("/stop", "None").status == 403
        assert admin.post("/stop", "").status == 403
        assert admin.get("/readyz").status == 200


@pytest.mark.parametrize(("arguments", "mode"), [((), 0o600), (("--admin-mode=0660",), 0o660)])
def test_who_may_connect_to_the_unix_socket_controls(tmp_path: Path, arguments: tuple[str, ...], mode: int) -> None:
    path = tmp_path / "admin.sock"
    with running(tmp_path, "--store=discard:", f"--admin=unix:{path}", *arguments) as server:
        assert stat.S_IMODE(path.stat().st_mode) == mode
        admin = AdminClient(path)
        assert admin.ask("POST", "/reload").status == 202
        server.wait_for_log("took over")
        assert admin.ask("POST", "/stop").status == 202
        assert server.wait() == 0
        assert not path.exists()


def test_how_a_reload_went(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("from fastsmtp import Handler as App\n")
    with running(tmp_path, "app:App", "--store=discard:", *ADMIN) as server:
        admin = AdminClient.of(server)
        app.write_text("raise RuntimeError\n")
        admin.post("/reload")
        until(lambda: admin.status()["last_reload"], "it is given up")
        assert admin.status()["last_reload"]["outcome"] == "given_up"
        assert "(exit code 3)" in admin.status()["last_reload"]["reason"]
        app.write_text("from fastsmtp import Handler as App\n")
        admin.post("/reload")
        until(lambda: admin.status()["last_reload"] == {"outcome": "done", "reason": None}, "it is done")
        assert admin.status()["totals"]["reloads"] == {"done": 1, "given_up": 1}


def _states(admin: AdminClient) -> list[str]:
    return [process["state"] for process in admin.processes()]


def test_a_reload_waits_while_two_predecessors_leave(tmp_path: Path) -> None:
    """A slot has rows for three processes."""
    with running(tmp_path, *PLAIN, "--drain-timeout=60", "--drain-idle=60") as server:
        admin = AdminClient.of(server)
        busy = []
        for count in (1, 2):
            client = server.greeted()
            client.begin_data()
            busy.append(client)
            admin.post("/reload")
            server.wait_for_log("took over", count=count)
            # Until then the old one may be the one that the next client gets.
            until(lambda count=count: _states(admin).count("draining") == count, "the predecessors drain")  # type: ignore[misc] # mypy sees no types of defaults
        admin.post("/reload")
        server.wait_for_log(r"reload: workers \[0\] have two predecessors that still leave: waiting")
        assert len(admin.processes()) == 3
        busy[0].send(b"x\r\n.\r\n")
        busy[0].expect("250")
        busy[0].quit()
        server.wait_for_log("took over", count=3)
        until(lambda: admin.status()["totals"]["reloads"]["done"] == 3, "the reload is done")


# -- its life --------------------------------------------------------------------------------------------------------


def test_it_comes_back_when_it_dies(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        workers = admin.pids()
        for count in (1, 2):
            pid = admin_pid(server, admin)
            os.kill(pid, signal.SIGKILL)
            server.wait_for_log(r"admin \(pid \d+\) died \(signal SIGKILL\); the next one starts", count=count)
        server.wait_for_log("the next one starts in 1 s")
        assert admin.pids() == workers  # it waits in the queue
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL])
def test_it_does_not_outlive_the_master(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, *PLAIN) as server:
        pid = admin_pid(server, AdminClient.of(server))
        server.stop(number)
        until(lambda: not is_alive(pid), "it ends")


def test_it_ends_even_if_it_stands_still(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        pid = admin_pid(server, AdminClient.of(server))
        os.kill(pid, signal.SIGSTOP)
        assert server.stop() == 0
        assert not is_alive(pid)


def test_it_holds_no_listener_of_mail(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN, workers=2, listen=["127.0.0.1:0", "unix:smtp.sock"]) as server:
        admin = AdminClient.of(server)
        sockets = {pid: _sockets(pid) for pid in (server.pid, admin_pid(server, admin), *admin.pids())}
        master, of_admin, *of_workers = sockets.values()
        # its own, what it asks the master through, and where records of traces come from
        assert len(of_admin & master) == 3
        for each in of_workers:
            assert len(each & master) == 3  # their own of TCP, the one of the path, and where records of traces go
            assert not each & of_admin


def _sockets(pid: int) -> set[str]:
    """The sockets of a process, by inode."""
    names = []
    for entry in (Path("/proc") / str(pid) / "fd").iterdir():
        try:
            names.append(os.readlink(entry))
        except FileNotFoundError:
            continue
    return {name for name in names if name.startswith("socket:")}


def test_an_address_that_cannot_be_had(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = "{}:{}".format(*other.getsockname())
        code, log = failing(tmp_path, "--store=discard:", "--listen=unix:smtp.sock", f"--admin={address}")
    assert code == 4
    assert f"cannot listen on {address}" in log
    assert not (tmp_path / "smtp.sock").exists()


def test_a_server_that_does_not_come_up_ends_with_it(tmp_path: Path) -> None:
    code, log = failing(tmp_path, "tests.server.apps:BrokenLifespan", "--listen=127.0.0.1:0", "--workers=2", *ADMIN)
    assert (code, "the database is away" in log) == (3, True)


def test_without_the_setting_there_is_none(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", workers=1) as server:
        assert len(server.workers) == 1
        assert "admin" not in server.log


# -- requests that are not right -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/metrics/", 404),
        ("POST", "/nothing", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/status", 405),
        ("GET", "/reload", 405),
        ("HEAD", "/stop", 405),
        ("OPTIONS", "/livez", 405),
        ("HEAD", "/livez", 200),
        ("GET", "/livez?verbose=1", 200),
    ],
)
def test_paths_and_methods(tmp_path: Path, method: str, path: str, status: int) -> None:
    with running(tmp_path, *PLAIN) as server:
        answer = AdminClient.of(server).ask(method, path)
        assert answer.status == status
        assert ("allow" in answer.fields) == (status == 405)
        assert (answer.body == "") == (method == "HEAD")


HOST = b"Host: localhost\r\n"


def test_malformed_requests_disturb_nobody(tmp_path: Path) -> None:
    cases: list[tuple[bytes, bytes]] = [
        (b"", b""),
        (b"GET", b"400"),
        (b"GET / HTTP/1.1\r\n" + HOST, b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), b"400"),
        (b"EHLO client.example\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"505"),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 20000, b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X" * 10**6, b"431"),
        (b"POST /stop HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"501"),
        (b"POST /stop HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999\r\n\r\n", b"413"),
        (b"POST /stop HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", b"400"),
        (b"POST /stop HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabc", b"400"),
        (b"POST /stop HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabcde", b"403"),
        (b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\nGET /livez HTTP/1.1\r\n" + HOST + b"\r\n", b"200"),
    ]
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        pid = admin_pid(server, admin)
        for octets, status in cases:
            answer = admin.raw(octets)
            assert answer[9:12] == status, (octets[:60], answer[:200])
            assert answer.count(b"HTTP/1.1 ") <= 1
            assert b"Connection: close\r\n" in answer or not status
        with admin.connect() as gone:
            gone.sendall(b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n")
        assert admin_pid(server, admin) == pid
        assert "Traceback" not in server.log


def test_many_at_a_time(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN, workers=2) as server:
        admin = AdminClient.of(server)
        paths = ["/metrics", "/status", "/livez", "/readyz"] * 50
        with ThreadPoolExecutor(32) as pool:
            assert {answer.status for answer in pool.map(admin.get, paths)} == {200}


def test_too_many_at_a_time_are_told(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        waiting = [admin.connect() for _ in range(200)]
        try:
            until(lambda: admin.raw(b"GET /livez HTTP/1.0\r\n\r\n")[9:12] == b"503", "it is said")
        finally:
            for each in waiting:
                each.close()
        until(lambda: admin.raw(b"GET /livez HTTP/1.0\r\n\r\n")[9:12] == b"200", "there is room again")
