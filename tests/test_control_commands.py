"""`fastsmtp ctl` and `fastsmtp healthcheck`, against servers that run."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result

from fastsmtp.cli import main
from fastsmtp.config import SETTINGS
from tests.server.admin_client import ADMIN, TOKEN
from tests.server.processes import is_stopped
from tests.server.running import Server, running
from tests.server.secured import issue
from tests.server.waiting import until


def _run(*arguments: str, **environ: str) -> Result:
    settings: dict[str, str | None] = {about.environment: None for about in SETTINGS.values()}
    return CliRunner().invoke(main, arguments, env={**settings, "FASTSMTP_CONFIG": None, **environ})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a unix socket."""
    monkeypatch.chdir(tmp_path)
    return "unix:admin.sock"


@contextmanager
def _server(directory: Path, *arguments: str, workers: int = 1) -> Iterator[Server]:
    with running(directory, "--store=discard:", "--admin=unix:admin.sock", *arguments, workers=workers) as server:
        yield server


# -- ctl -------------------------------------------------------------------------------------------------------------


def test_status(tmp_path: Path, path: str) -> None:
    with _server(tmp_path, workers=2) as server:
        found = _run("ctl", "status", "--admin", path)
        assert found.exit_code == 0
        assert f"ready, pid {server.pid}" in found.stdout
        assert "2 of 2 ready" in found.stdout
        assert "last reload:   none" in found.stdout
        as_json = json.loads(_run("ctl", "status", "--json", FASTSMTP_ADMIN=path).stdout)
        assert (as_json["pid"], len(as_json["workers"])) == (server.pid, 2)


def test_workers(tmp_path: Path, path: str) -> None:
    with _server(tmp_path, workers=2) as server:
        _, *lines = _run("ctl", "workers", "--admin", path).stdout.splitlines()
        as_json = json.loads(_run("ctl", "workers", "--json", "--admin", path).stdout)
        pids = [process["pid"] for worker in as_json for process in worker["processes"]]
        assert [line.split()[:3] for line in lines] == [[str(n), str(pid), "ready"] for n, pid in enumerate(pids)]
        assert set(pids) < set(server.workers)


def test_reload_waits_until_it_is_done(tmp_path: Path, path: str) -> None:
    with _server(tmp_path, workers=2) as server:
        found = _run("ctl", "reload", "--admin", path)
        assert (found.exit_code, found.stdout) == (0, "done\n")
        assert len(server.wait_for_log("took over", count=2)) == 2
        as_json = json.loads(_run("ctl", "reload", "--json", "--admin", path).stdout)
        assert as_json == {"outcome": "done", "reason": None}
        assert _run("ctl", "reload", "--no-wait", "--admin", path).stdout == "reloading\n"


def test_a_reload_that_is_given_up(tmp_path: Path, path: str) -> None:
    (tmp_path / "app.py").write_text("from fastsmtp import Handler as App\n")
    with _server(tmp_path, "app:App"):
        (tmp_path / "app.py").write_text("raise RuntimeError\n")
        found = _run("ctl", "reload", "--admin", path)
        assert found.exit_code == 1
        assert found.stdout == "given up: a new worker did not start (exit code 3); the log says why\n"
        assert "given up" in _run("ctl", "status", "--admin", path).stdout


def test_a_reload_that_takes_too_long(tmp_path: Path, path: str) -> None:
    with _server(tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
        until(lambda: is_stopped(server.pid), "the master stands still")
        found = _run("ctl", "reload", "--wait-timeout", "0.2", "--admin", path)
        os.kill(server.pid, signal.SIGCONT)
        assert (found.exit_code, "is not over in time" in found.stderr) == (1, True)


def test_stop(tmp_path: Path, path: str) -> None:
    with _server(tmp_path) as server:
        found = _run("ctl", "stop", "--admin", path)
        assert (found.exit_code, found.stdout) == (0, "stopping: sessions are drained\n")
        assert server.wait() == 0
        gone = _run("ctl", "status", "--admin", path)
        assert (gone.exit_code, gone.stderr) == (1, f"Error: {path}: [Errno 2] No such file or directory\n")


def test_the_token_is_taken_from_wherever_settings_are(tmp_path: Path, path: str) -> None:
    with running(tmp_path, "--store=discard:", *ADMIN) as server:
        address = server.wait_for_log(r"admin at (\S+)")[0][1]
        refused = _run("ctl", "reload", FASTSMTP_ADMIN=address)
        assert (refused.exit_code, "control needs" in refused.stderr) == (1, True)
        assert _run("ctl", "status", FASTSMTP_ADMIN=address).exit_code == 0
        assert _run("ctl", "reload", "--token", TOKEN, FASTSMTP_ADMIN=address).exit_code == 0
        assert _run("ctl", "reload", FASTSMTP_ADMIN=address, FASTSMTP_ADMIN_TOKEN=TOKEN).exit_code == 0
        Path("mail.toml").write_text(f'admin = "{address}"\nadmin_token = "{TOKEN}"\n')
        assert _run("ctl", "reload", "--config", "mail.toml").exit_code == 0


@pytest.mark.parametrize("command", ["status", "workers", "reload", "stop"])
def test_without_an_address(command: str, path: str) -> None:
    result = _run("ctl", command)
    assert (result.exit_code, "no admin address" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--admin", "nonsense"], "--admin: expected HOST:PORT"),
        (["--admin", "127.0.0.1:1", "--token", "short"], "--admin-token: expected 16"),
        (["--admin", "127.0.0.1:1", "--timeout", "0"], "--timeout"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, path: str) -> None:
    result = _run("ctl", "status", *arguments)
    assert (result.exit_code, message in result.stderr) == (2, True)


@contextmanager
def _saying(octets: bytes) -> Iterator[str]:
    """A server that says this to one client, whatever it hears; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(octets)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield "{}:{}".format(*listening.getsockname())
        thread.join(8)


@pytest.mark.parametrize(
    "octets", [b"", b"220 mx.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\n\r\nno JSON", b"HTTP/1.1 404 No\r\n\r\n"]
)
def test_something_else_at_the_address(octets: bytes, path: str) -> None:
    with _saying(octets) as address:
        result = _run("ctl", "status", "--admin", address)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {address}: ")
    assert result.exception is None or isinstance(result.exception, SystemExit)


# -- healthcheck -----------------------------------------------------------------------------------------------------


def test_healthcheck_asks_the_admin_process(tmp_path: Path, path: str) -> None:
    with _server(tmp_path) as server:
        assert _run("healthcheck", FASTSMTP_ADMIN=path).exit_code == 0
        client = server.greeted()
        client.ask("MAIL FROM:<a@a.example>", "250")
        server.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        result = _run("healthcheck", "--admin", path)
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", "not healthy: draining\n")


def _listening(server: Server, at: int = 0) -> str:
    address = server.addresses[at]
    return f"unix:{address}" if isinstance(address, str) else "{}:{}".format(*address)


def test_healthcheck_without_admin_wants_a_banner(tmp_path: Path, path: str) -> None:
    with running(tmp_path, "--store=discard:", listen=["127.0.0.1:0", "unix:smtp.sock"]) as server:
        for at in range(2):
            result = _run("healthcheck", FASTSMTP_LISTEN=_listening(server, at))
            assert (result.exit_code, result.output) == (0, "")
        lines = server.wait_for_access(2)
        assert all("quit" in line for line in lines)


def test_healthcheck_behind_a_proxy_and_inside_tls(tmp_path: Path, path: str) -> None:
    certificate = issue(tmp_path, trustme.CA(), "mx.example")
    options = f"proxy_protocol proxy_networks=127.0.0.0/8 implicit_tls tls_certfile={certificate}"
    with running(tmp_path, "--store=discard:", listen=[f"127.0.0.1:0 {options}"]) as server:
        result = _run("healthcheck", FASTSMTP_LISTEN=f"{_listening(server)} {options}")
        assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"554 no service\r\n", "expected a banner, got 554 no service"),
        (b"", "expected a banner, got nothing"),
        (b"\xff\r\n", "expected a banner, got \ufffd"),
    ],
)
def test_healthcheck_says_why(octets: bytes, reason: str, path: str) -> None:
    with _saying(octets) as address:
        result = _run("healthcheck", FASTSMTP_LISTEN=address)
    assert (result.exit_code, result.stderr) == (1, f"not healthy: {reason}\n")


def test_healthcheck_of_nobody(path: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        result = _run("healthcheck", FASTSMTP_LISTEN="{}:{}".format(*nobody.getsockname()))
    assert (result.exit_code, result.stderr) == (1, "not healthy: [Errno 111] Connection refused\n")


def test_healthcheck_does_not_wait_for_ever(tmp_path: Path, path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for setting in ("FASTSMTP_LISTEN", "FASTSMTP_ADMIN"):
            address = "{}:{}".format(*silent.getsockname())
            result = _run("healthcheck", "--timeout", "0.2", **{setting: address})
            assert (result.exit_code, "timed out" in result.stderr) == (1, True)
