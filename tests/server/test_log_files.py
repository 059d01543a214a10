"""Log files, opened anew on USR1 by every process; the pid file; the modes of what a server makes."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

from tests.server.admin_client import ADMIN, TOKEN, AdminClient
from tests.server.running import SERVE, Server, failing, running, starting
from tests.server.waiting import until

FILES = ("--log-file=logs/error", "--access-log-file=logs/access")


def _ready(tmp_path: Path, server: Server, name: str = "error") -> None:
    log = tmp_path / "logs" / name

    def address() -> str:
        assert server.process.poll() is None, server.log
        return log.read_text().partition("listening on ")[2].partition("\n")[0] if log.exists() else ""

    host, _, port = until(address, "the server is ready", 20).rpartition(":")
    server.addresses = [(host, int(port))]


def test_logs_go_to_files_and_follow_them(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    command = [*SERVE, "tests.server.apps:Hooky", "--listen=127.0.0.1:0", "--workers=2", *FILES, *ADMIN]
    with starting(tmp_path, command) as server:
        _ready(tmp_path, server)
        server.greeted().deliver()
        until(lambda: "event=message" in (logs / "access").read_text(), "a line")
        assert stat.S_IMODE((logs / "access").stat().st_mode) & 0o137 == 0
        for name in ("error", "access"):
            (logs / name).rename(logs / f"{name}.1")
        server.send_signal(signal.SIGUSR1)
        until(lambda: (logs / "error").exists() and "logs opened anew" in (logs / "error").read_text(), "the new log")
        before = (logs / "access.1").read_text()

        def everybody_has_moved() -> bool:
            """Each worker's lines go to the new file, whoever of them it is."""
            until(lambda: (logs / "access").exists(), "the new access log")
            for _ in range(12):
                with server.greeted() as client:
                    client.deliver()
            return (logs / "access").read_text().count("event=message") >= 12

        until(everybody_has_moved, "lines in the new file")
        assert (logs / "access.1").read_text() == before
        host, _, port = (logs / "error.1").read_text().partition("admin at ")[2].partition("\n")[0].rpartition(":")
        admin = AdminClient((host, int(port)))
        admin.post("/reload", TOKEN)
        until(lambda: "fastsmtp.admin: SIGHUP sent" in (logs / "error").read_text(), "the admin process moved, too")
        until(lambda: "reload: done" in (logs / "error").read_text(), "the reload")
        assert server.stop() == 0
        assert "what a hook prints" in (logs / "access").read_text()
        assert "fastsmtp.admin" not in (logs / "error.1").read_text()
        assert (server.log, server.access_log) == ("", [])


def test_a_log_that_cannot_be_opened_anew_goes_on(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    command = [*SERVE, "tests.server.apps:Pids", "--listen=127.0.0.1:0", "--workers=1", *FILES]
    with starting(tmp_path, command) as server:
        _ready(tmp_path, server)
        logs.rename(tmp_path / "moved")
        server.send_signal(signal.SIGUSR1)
        moved = tmp_path / "moved"
        until(lambda: (moved / "error").read_text().count("the old file stays in use") == 4, "both, in both processes")
        server.greeted().deliver()
        until(lambda: "event=message" in (moved / "access").read_text(), "a line in the old file")
        assert server.stop() == 0


def test_a_log_that_cannot_be_opened_at_all(tmp_path: Path) -> None:
    code, log = failing(tmp_path, "--listen=127.0.0.1:0", "--log-file=nowhere/log")
    assert (code, "Traceback" in log) == (2, False)
    assert "nowhere/log: cannot be opened: No such file or directory" in log


def test_usr1_without_files_is_harmless(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", *ADMIN, workers=2) as server:
        before = server.workers
        server.send_signal(signal.SIGUSR1)
        server.wait_for_log("logs opened anew")
        server.greeted().deliver()
        assert server.workers == before


# -- pid, umask, mode of sockets ---------------------------------------------------------------------------------------


def test_the_pid_is_in_a_file_as_long_as_the_server_lives(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("of yesterday\n")
    with running(tmp_path, "--store=discard:", "--pidfile=pid") as server:
        assert (tmp_path / "pid").read_text() == f"{server.pid}\n"
        assert server.stop() == 0
    assert not (tmp_path / "pid").exists()


def test_a_pidfile_that_is_another_servers_by_now_stays(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", "--pidfile=pid") as server:
        (tmp_path / "pid").write_text("4242\n")
        assert server.stop() == 0
    assert (tmp_path / "pid").read_text() == "4242\n"


def test_a_pidfile_that_cannot_be_written(tmp_path: Path) -> None:
    code, log = failing(tmp_path, "--listen=127.0.0.1:0", "--pidfile=nowhere/pid")
    assert (code, "nowhere/pid: cannot be written" in log, "Traceback" in log) == (2, True, False)


def test_umask_and_the_mode_of_sockets(tmp_path: Path) -> None:
    listen = ["unix:default.sock", "unix:own.sock socket_mode=0600"]
    before = os.umask(0o022)
    try:
        with running(tmp_path, "--store=maildir:mail", "--umask=027", listen=listen) as server:
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.sock")}
            assert modes == {"default.sock": 0o750, "own.sock": 0o600}
            assert stat.S_IMODE((tmp_path / "mail").stat().st_mode) & 0o027 == 0
            assert server.stop() == 0
    finally:
        os.umask(before)
