"""Start: where it listens, what it says, and how it gives up (exit codes 2, 3 and 4)."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from tests.server.client import Client
from tests.server.running import failing, running, starting
from tests.server.waiting import until

ANY = "--listen=127.0.0.1:0"


def test_the_log_says_how_many_workers_and_why(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", workers=None) as server:
        count = len(server.workers)
        server.wait_for_log(rf"workers: {count} \(\d+ CPUs? available.*\), 8 threads each")
        assert 1 <= count <= len(os.sched_getaffinity(0))
    with running(tmp_path, "--store=discard:", workers=3) as server:
        server.wait_for_log(r"workers: 3 \(as configured\)")
        assert len(server.workers) == 3


def test_affinity_bounds_the_workers(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    script = (
        f"import os, sys; os.sched_setaffinity(0, [{cpu}]); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", script, "-m", "fastsmtp", "serve", "--store=discard:", ANY]
    with starting(tmp_path, command) as server:
        server.wait_until_ready()
        server.wait_for_log(r"workers: 1 \(1 CPU available")
        assert len(server.workers) == 1


def test_several_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = ["127.0.0.1:0", "unix:smtp.sock"]
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        listen.append("[::1]:0")
    except OSError:
        pass
    with running(tmp_path, "--store=discard:", listen=listen, workers=2) as server:
        assert len(server.addresses) == len(listen)
        monkeypatch.chdir(tmp_path)  # the path of the unix socket is relative
        for address in server.addresses:
            for _ in range(4):
                with Client(address) as client:
                    client.greet().deliver()
                    client.quit()
        lines = server.wait_for_access(4 * len(listen))
        assert sum(" peer=unix " in line for line in lines) == 4
        assert sum(" peer=[::1]:" in line for line in lines) == (4 if len(listen) == 3 else 0)


def test_ipv6(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6")
    with running(tmp_path, listen=["[::1]:0"]) as server:
        server.greeted().deliver()
        (mail,) = (tmp_path / "mail" / "new").iterdir()
        assert b"([IPv6:::1])" in mail.read_bytes()


def test_a_unix_socket_is_removed_on_stop(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    with running(tmp_path, "--store=discard:", listen=[f"unix:{path}"], workers=2) as server:
        assert stat.S_ISSOCK(path.stat().st_mode)
        server.greeted().deliver()
        server.close_clients()
        assert server.stop() == 0
        assert not path.exists()


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    with running(tmp_path, "--store=discard:", listen=[f"unix:{path}"]) as server:
        server.stop(signal.SIGKILL)
        assert path.exists()
        until(lambda: server.workers == [], "the worker is gone")
    with running(tmp_path, "--store=discard:", listen=[f"unix:{path}"]) as server:
        server.greeted().deliver()


def test_a_unix_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    with running(tmp_path, "--store=discard:", listen=[f"unix:{path}"], name="first") as first:
        code, log = failing(tmp_path, f"--listen=unix:{path}", "--store=discard:")
        assert (code, f"unix:{path}" in log) == (4, True)
        first.greeted().deliver()


def test_a_unix_path_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("mail")
    code, log = failing(tmp_path, f"--listen=unix:{path}", "--store=discard:")
    assert (code, f"unix:{path}" in log) == (4, True)
    assert path.read_text() == "mail"


def test_a_server_that_drains_does_not_take_its_successors_unix_socket_away(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    listen = [f"unix:{path}"]
    with running(tmp_path, "--store=discard:", listen=listen, name="first") as first:
        busy = first.greeted()
        busy.begin_data()
        first.send_signal(signal.SIGTERM)
        until(lambda: not path.exists(), "the path is free")
        with running(tmp_path, "--store=discard:", listen=listen, name="second") as second:
            busy.send(b"x\r\n.\r\n")
            busy.expect("250 2.0.0 accepted")
            busy.expect("421")
            busy.socket.close()
            assert first.wait() == 0
            second.greeted().deliver()


@pytest.mark.parametrize("listening", [True, False])
def test_a_port_taken_by_somebody_else(tmp_path: Path, listening: bool) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listening:
            other.listen()
        address = "{}:{}".format(*other.getsockname())
        code, log = failing(tmp_path, f"--listen={address}", "--workers=2", "--store=discard:")
    assert code == 4
    assert f"cannot listen on {address}: another server has this address" in log
    assert "Traceback" not in log


def test_a_port_taken_by_another_fastsmtp(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", name="first") as first:
        address = "{}:{}".format(*first.host_and_port)
        code, log = failing(tmp_path, ANY, f"--listen={address}", "--store=discard:")
        assert (code, address in log) == (4, True)
        first.greeted().deliver()


def test_an_address_that_this_machine_has_not(tmp_path: Path) -> None:
    code, log = failing(tmp_path, "--listen=192.0.2.1:2525", "--store=discard:")
    assert code == 4
    assert "192.0.2.1:2525" in log


def test_a_host_that_nobody_knows(tmp_path: Path) -> None:
    code, log = failing(tmp_path, "--listen=nowhere.invalid:2525", "--store=discard:")
    assert code == 4
    assert "nowhere.invalid:2525" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("preload", [(), ("--preload",)])
@pytest.mark.parametrize(
    ("app", "patterns"),
    [
        ("missing:App", ["there is no module 'missing'"]),
        ("broken:App", ["Traceback", r"broken\.py", "ZeroDivisionError: division by zero"]),
        ("needy:App", ["Traceback", "ModuleNotFoundError: No module named 'not_installed'"]),
        ("exiting:App", ["SystemExit"]),
        ("plain:Missing", ["module 'plain' has no attribute 'Missing'"]),
        ("plain:Plain", ["is no subclass of fastsmtp.Handler"]),
        ("plain:number", ["42 is neither a Handler class"]),
    ],
)
def test_an_application_that_cannot_be_loaded(
    tmp_path: Path, app: str, patterns: list[str], preload: tuple[str, ...]
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import not_installed\n")
    (tmp_path / "exiting.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "plain.py").write_text("class Plain: pass\nnumber = 42\n")
    code, log = failing(tmp_path, app, ANY, "--workers=2", *preload)
    assert code == 3
    for pattern in patterns:
        assert re.search(pattern, log), log
    if "Traceback" not in patterns and "SystemExit" not in patterns:
        assert "Traceback" not in log


def test_a_lifespan_that_waits_in_vain_is_told_whole(tmp_path: Path) -> None:
    """A TimeoutError has no text of its own: only the traceback says what it was that did not come."""
    code, log = failing(tmp_path, "tests.server.apps:SlowDatabase", ANY)
    assert code == 3
    assert "Traceback" in log
    assert "TimeoutError" in log


def test_large_messages_need_their_directory(tmp_path: Path) -> None:
    code, log = failing(tmp_path, "--store=discard:", ANY, f"--spool-dir={tmp_path}/nowhere")
    assert code == 2
    assert f"spool_dir {tmp_path}/nowhere: no file can be made there: No such file or directory" in log


def test_the_line_to_paste_is_for_a_listener_that_takes_plain_mail(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", listen=["127.0.0.1:0 lmtp", "127.0.0.1:0"]) as server:
        (found,) = server.wait_for_log(r"try it: .*smtplib\.SMTP\('127\.0\.0\.1', (\d+)\)")
        assert int(found[1]) == server.addresses[1][1]


def test_a_lifespan_that_fails(tmp_path: Path) -> None:
    code, log = failing(tmp_path, "tests.server.apps:BrokenLifespan", ANY, "--workers=2")
    assert code == 3
    assert "Traceback" in log
    assert "RuntimeError: the database is away" in log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers=0"], "--workers: expected a whole number"),
        (["--listen=nonsense"], "--listen: expected HOST:PORT"),
        (["--store=nowhere"], "--store: expected one of maildir:PATH"),
        (["--no-such-flag"], "--no-such-flag"),
        (["no-app"], "APP: expected module:attribute"),
        (["--config=gone.toml"], "gone.toml: cannot be read"),
    ],
)
def test_a_wrong_setting(tmp_path: Path, arguments: list[str], message: str) -> None:
    code, log = failing(tmp_path, *arguments)
    assert code == 2
    assert message in log
    assert "Traceback" not in log


SCRIPT = """
import fastsmtp

class Inbox(fastsmtp.Handler):
    @fastsmtp.inline
    def welcome(self, session):
        return fastsmtp.Reply(220, None, "from a script")

if __name__ == "__main__":
    raise SystemExit(fastsmtp.run({target}, listen="127.0.0.1:0", workers=2, max_errors=1{more}))
"""


@pytest.mark.parametrize("target", ["Inbox", "Inbox()", "lambda: Inbox()"])
def test_serving_from_a_script(tmp_path: Path, target: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(target=target, more=""))
    with starting(tmp_path, [sys.executable, str(script)]) as server:
        server.wait_until_ready()
        assert len(server.workers) == 2
        with server.connect() as client:
            client.expect("220 from a script")
            client.ask("EHLO client.example", "250")
            client.deliver()
            client.ask("FROB", "500")
            client.expect("421 4.7.0")
        server.send_signal(signal.SIGHUP)  # the script's objects are still there: reload serves them again
        server.wait_for_log("took over", count=2)
        with server.connect() as client:
            client.expect("220 from a script")
        assert server.stop() == 0


def test_a_script_with_a_store(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(target="Inbox", more=", store='maildir:./mail'"))
    with starting(tmp_path, [sys.executable, str(script)]) as server:
        server.wait_until_ready()
        with server.connect() as client:
            client.greet().deliver()
        assert len(list((tmp_path / "mail" / "new").iterdir())) == 1


def test_a_script_with_a_wrong_setting(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(target="Inbox", more=", no_such_setting=1"))
    with starting(tmp_path, [sys.executable, str(script)]) as server:
        assert server.wait() == 1
        assert "ConfigError" in server.log
        assert "no_such_setting" in server.log
