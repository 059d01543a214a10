"""HUP reads the settings anew: what can change does, what cannot is said, and a wrong value changes nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from fastsmtp.config import Config
from fastsmtp.server.settings_in_force import FIXED
from tests.server import journal
from tests.server.admin_client import AdminClient
from tests.server.gates import open_gate
from tests.server.running import SERVE, Server, running, starting
from tests.server.waiting import until

TOKEN = "a-token-of-the-tests"
BASE = f"""
app = "tests.server.apps:Pids"
workers = 1
drain_idle = "100ms"
admin = "127.0.0.1:0"
admin_token = "{TOKEN}"
"""


def _serve(tmp_path: Path, more: str = "") -> list[str]:
    _write(tmp_path, more)
    return [*SERVE, "--config=server.toml"]


def _write(tmp_path: Path, more: str) -> None:
    (tmp_path / "server.toml").write_text(f'listen = "127.0.0.1:0"\n{BASE}{more}')


def _reload(server: Server, count: int, outcome: str = "reload: done") -> None:
    server.send_signal(signal.SIGHUP)
    server.wait_for_log(outcome, count=count)


def test_settings_of_the_session_change(tmp_path: Path) -> None:
    with starting(tmp_path, _serve(tmp_path)) as server:
        server.wait_until_ready()
        with server.connect() as client:
            client.expect("220")
            assert "SIZE 33554432" in client.ask("EHLO client.example", "250")
        _write(tmp_path, "max_message_bytes = 12345\n")
        _reload(server, 1)

        def offers() -> bool:
            with server.connect() as client:
                client.expect("220")
                return "SIZE 12345" in client.ask("EHLO client.example", "250")

        until(offers, "the new size is offered")


def test_a_wrong_value_changes_nothing(tmp_path: Path) -> None:
    with starting(tmp_path, _serve(tmp_path)) as server:
        server.wait_until_ready()
        admin = AdminClient.of(server)
        worker = admin.pids()
        for number, (wrong, says) in enumerate(
            (
                ("max_errors = 0\n", "max_errors in server.toml: expected a whole number"),
                ("no_such_thing = 1\n", "no_such_thing in server.toml: no such setting"),
                ("this is no TOML", "server.toml: "),
            ),
            1,
        ):
            _write(tmp_path, wrong)
            _reload(server, number, "reload given up, everything stays as it is: .*server.toml")
            assert says in server.log
            last = admin.status()["last_reload"]
            assert last["outcome"] == "given_up"
            assert says in last["reason"]
        (tmp_path / "server.toml").unlink()
        _reload(server, 4, "reload given up, everything stays as it is")
        assert admin.pids() == worker
        server.connect().expect("220 pid ")
        _write(tmp_path, "")
        _reload(server, 1)
        assert admin.status()["last_reload"] == {"outcome": "done", "reason": None}


def test_what_cannot_change_is_said_and_stays(tmp_path: Path) -> None:
    with starting(tmp_path, _serve(tmp_path, 'pidfile = "one.pid"\n')) as server:
        server.wait_until_ready()
        text = (tmp_path / "server.toml").read_text()
        text = text.replace("127.0.0.1:0", "127.0.0.2:0", 1).replace("one.pid", "two.pid")
        (tmp_path / "server.toml").write_text(text + 'max_errors = 3\nbalance = "shared"\n')
        _reload(server, 1)
        for name in ("listen", "pidfile", "balance"):
            server.wait_for_log(f"WARNING .*: {name} cannot change without a restart: it stays as it was")
        assert int((tmp_path / "one.pid").read_text()) == server.pid
        with server.connect() as client:  # the rest of the file is in force
            client.greet()
            for _ in range(3):
                client.ask("BOGUS", "500")
            client.expect("421 4.7.0")
        assert server.stop() == 0
        assert not (tmp_path / "one.pid").exists()


def test_options_of_a_listener_change(tmp_path: Path) -> None:
    with starting(tmp_path, _serve(tmp_path)) as server:
        server.wait_until_ready()
        text = (tmp_path / "server.toml").read_text()
        (tmp_path / "server.toml").write_text(text.replace("127.0.0.1:0", "127.0.0.1:0 no-such-option", 1))
        _reload(server, 1, "reload given up")
        (tmp_path / "server.toml").write_text(text.replace("127.0.0.1:0", "127.0.0.1:0 vrfy=no", 1))
        _reload(server, 1)

        def knows_no_vrfy() -> bool:
            with server.connect() as client:
                client.greet()
                return client.ask("VRFY x", "").startswith("502")

        until(knows_no_vrfy, "VRFY is off")
        assert "cannot change" not in server.log


def test_the_log_and_the_number_of_workers_change(tmp_path: Path) -> None:
    with starting(tmp_path, _serve(tmp_path)) as server:
        server.wait_until_ready()
        admin = AdminClient.of(server)
        (tmp_path / "server.toml").write_text(
            (tmp_path / "server.toml").read_text().replace("workers = 1", "workers = 2") + 'log_format = "json"\n'
        )
        _reload(server, 1)
        until(lambda: len(admin.pids()) == 2, "two workers")
        lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        assert "workers: 1 before, 2 wanted" in {line["message"] for line in lines}
        assert admin.post("/reload").status == 202  # by the admin process, which has the new form, too
        server.wait_for_log('"logger":"fastsmtp.admin"')


def test_a_reload_that_fails_leaves_the_old_settings_in_force(tmp_path: Path) -> None:
    """A worker that dies afterwards gets those, not the ones that nobody could serve with."""
    with starting(tmp_path, _serve(tmp_path)) as server:
        server.wait_until_ready()
        admin = AdminClient.of(server)
        _write(tmp_path, 'users = "nobody-has-written-this"\n')
        _reload(server, 1, "the old one stays, reload given up")
        assert "exit code 3" in admin.status()["last_reload"]["reason"]
        os.kill(admin.pids()[0], signal.SIGKILL)
        server.wait_for_log("its successor starts now")
        with server.connect() as client:
            client.greet().deliver()


def test_a_worker_of_one_reload_proves_nothing_for_the_next(tmp_path: Path) -> None:
    """What nobody could serve with is not in force, though a successor with the settings before them came up."""
    with starting(tmp_path, _serve(tmp_path)) as server:
        server.wait_until_ready()
        admin = AdminClient.of(server)
        open_gate(tmp_path, "hold")
        (tmp_path / "server.toml").write_text((tmp_path / "server.toml").read_text().replace("Pids", "Lifespan"))
        server.send_signal(signal.SIGHUP)
        until(lambda: journal.events(tmp_path, event="entered"), "the successor starts")
        _write(tmp_path, 'users = "nobody-has-written-this"\n')
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("reload: replacing 1 workers", count=2)
        open_gate(tmp_path, "lifespan")
        server.wait_for_log("reload given up")
        os.kill(admin.pids()[0], signal.SIGKILL)
        server.wait_for_log("its successor starts now")
        with server.connect() as client:
            client.greet().deliver()


def test_a_reload_reaches_a_server_whose_only_worker_is_dead(tmp_path: Path) -> None:
    """What is wrong may be a setting: the worker that is started next has the new ones."""
    with starting(tmp_path, _serve(tmp_path)) as server:
        server.wait_until_ready()
        for count in (1, 2):
            server.connect().expect("220 pid ")
            os.kill(AdminClient.of(server).pids()[0], signal.SIGKILL)
            server.wait_for_log(r"died \(signal SIGKILL\)", count=count)
        server.wait_for_log("its successor starts in 1 s")
        _write(tmp_path, "max_message_bytes = 12345\n")
        _reload(server, 1)
        with server.connect() as client:
            client.expect("220")
            assert "SIZE 12345" in client.ask("EHLO client.example", "250")


def test_a_script_has_the_settings_it_was_started_with(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import fastsmtp\n"
        "if __name__ == '__main__':\n"
        "    raise SystemExit(fastsmtp.run(fastsmtp.Handler, listen='127.0.0.1:0', workers=1, max_errors=2))\n"
    )
    with starting(tmp_path, [sys.executable, str(script)]) as server:
        server.wait_until_ready()
        _reload(server, 1)
        with server.connect() as client:
            client.greet()
            client.ask("BOGUS", "500")
            client.ask("BOGUS", "500")
            client.expect("421 4.7.0")


def test_what_the_environment_says_counts_again(tmp_path: Path) -> None:
    """Nobody can change the environment of a process; the file must not win because it is read anew."""
    (tmp_path / "server.toml").write_text("max_errors = 5\n")
    environ = {"FASTSMTP_MAX_ERRORS": "2"}
    with running(tmp_path, "tests.server.apps:Pids", "--config=server.toml", environ=environ) as server:
        (tmp_path / "server.toml").write_text("max_errors = 6\n")
        _reload(server, 1)
        with server.connect() as client:
            client.greet()
            client.ask("BOGUS", "500")
            client.ask("BOGUS", "500")
            client.expect("421 4.7.0")


def test_fixed_settings_are_settings() -> None:
    assert set(FIXED) <= set(Config.__dataclass_fields__)
