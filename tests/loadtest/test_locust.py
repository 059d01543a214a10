"""The users of the locustfile against real servers: rows, counts, failures, exit codes."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from tests.loadtest.apps import PASSWORD, USER
from tests.loadtest.locusts import ROOT, Run, environment, locust, locust_arguments, require_locust, result, run_program
from tests.server.admin_client import ADMIN, AdminClient
from tests.server.running import Server, running
from tests.server.secured import issue

USERS = ["Smtplib", "RawSmtp"]
SHORT = ("--users", "4", "--run-time", "3")
ALWAYS = {"connect", "EHLO", "MAIL", "RCPT", "DATA", "content", "QUIT", "message", "Aggregated"}


def url(server: Server, scheme: str = "smtp", login: bool = False, query: str = "", at: int = 0) -> str:
    address = server.addresses[at]
    assert isinstance(address, tuple)
    user = f"{quote(USER)}:{quote(PASSWORD)}@" if login else ""
    return f"{scheme}://{user}{address[0]}:{address[1]}{query}"


@pytest.mark.parametrize("user", USERS)
def test_every_step_has_its_row(tmp_path: Path, user: str) -> None:
    with running(tmp_path, "tests.loadtest.apps:Picky", "--store=discard:") as server:
        run = locust(tmp_path, url(server), user, *SHORT, "--refused-share", "0.5")
        assert run.code == 0, run.output
        assert set(run.rows) == ALWAYS | {"RCPT refused"}
        assert run.failures == {}
        check_numbers(run)


def check_numbers(run: Run) -> None:
    """What must be so whatever was sent."""
    assert run.count("message") == run.count("MAIL") == run.count("DATA") == run.count("content") > 0
    assert run.count("RCPT") >= run.count("message")
    assert run.count("connect") == run.count("QUIT") > 0


@pytest.mark.parametrize("user", USERS)
def test_starttls_and_auth(tmp_path: Path, user: str) -> None:
    certificate = issue(tmp_path, trustme.CA(), "localhost")
    flags = (f"--tls-certfile={certificate}", "--require-auth", "--store=discard:")
    with running(tmp_path, "tests.loadtest.apps:Picky", *flags) as server:
        run = locust(tmp_path, url(server, login=True, query="?starttls=1"), user, *SHORT)
        assert run.code == 0, run.output
        assert set(run.rows) == ALWAYS | {"STARTTLS", "AUTH"}
        assert run.count("EHLO") == 2 * run.count("STARTTLS") == 2 * run.count("AUTH")


@pytest.mark.parametrize("user", USERS)
def test_implicit_tls_and_large_messages(tmp_path: Path, user: str) -> None:
    certificate = issue(tmp_path, trustme.CA(), "localhost")
    flags = (f"--tls-certfile={certificate}", "--implicit-tls", "--store=discard:")
    with running(tmp_path, "tests.loadtest.apps:Picky", *flags) as server:
        run = locust(tmp_path, url(server, "smtps"), user, *SHORT, "--sizes", "3000000")
        assert run.code == 0, run.output
        check_numbers(run)


def test_a_raw_user_may_pipeline_and_have_many_connections(tmp_path: Path) -> None:
    arguments = ("--pipelining", "--connections", "5", "--messages-per-connection", "3", "--refused-share", "0.3")
    with running(tmp_path, "tests.loadtest.apps:Picky", "--store=discard:") as server:
        run = locust(tmp_path, url(server), "RawSmtp", *SHORT, *arguments)
        assert run.code == 0, run.output
        check_numbers(run)
        assert run.count("message") <= 3 * run.count("connect")


@pytest.mark.parametrize("user", USERS)
def test_a_failure_names_the_command_and_the_reply(tmp_path: Path, user: str) -> None:
    with running(tmp_path, "tests.loadtest.apps:Closed") as server:
        run = locust(tmp_path, url(server), user, *SHORT)
        assert run.code == 1
        assert set(run.failures) == {
            f"{row}: UnexpectedReplyError('MAIL FROM: expected 250, got 550 5.7.1 not from you')"
            for row in ("MAIL", "message")
        }
        assert "threshold missed: failed steps for each message" in run.output


@pytest.mark.parametrize("user", USERS)
def test_a_wrong_password(tmp_path: Path, user: str) -> None:
    with running(tmp_path, "tests.loadtest.apps:Picky", "--no-auth-requires-tls") as server:
        run = locust(tmp_path, url(server).replace("smtp://", "smtp://ann:wrong@"), user, *SHORT)
        assert run.code == 1
        (failure,) = run.failures
        assert failure.startswith("AUTH: UnexpectedReplyError('AUTH")
        assert "expected 235, got 535 5.7.8" in failure


@pytest.mark.parametrize("user", USERS)
def test_nobody_listens(tmp_path: Path, user: str) -> None:
    with running(tmp_path, "tests.loadtest.apps:Picky") as server:
        gone = url(server)
        server.stop()
    run = locust(tmp_path, gone, user, *SHORT)
    assert run.code == 1
    (failure,) = run.failures
    assert "connect: expected 220, got" in failure
    assert "refused" in failure
    assert run.failures[failure] <= 4 * 5  # once a second, not as fast as the kernel can refuse


def test_a_rate_is_kept(tmp_path: Path) -> None:
    with running(tmp_path, "tests.loadtest.apps:Picky", "--store=discard:") as server:
        paced = ("--shape", "constant-throughput", "--rate", "40", "--users", "8", "--run-time", "3", "--sizes", "1000")
        for user in USERS:
            run = locust(tmp_path, url(server), user, *paced)
            assert run.code == 0, run.output
            assert 60 <= run.count("message") <= 170  # 120 are due


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "loadtest.md").read_text(), re.DOTALL)
    (tmp_path / "locustfile.py").write_text(example)
    with running(tmp_path, "tests.loadtest.apps:Picky", "--store=discard:") as server:
        arguments = ("--headless", "--only-summary", "--host", url(server), "--users", "2", "--run-time", "5")
        code, output = run_program("locust", "-f", str(tmp_path / "locustfile.py"), *arguments)
        assert code == 0, output
        assert re.search(r"(?m)^SMTP +message +[1-9]\d* +0\(0\.00%\)", output), output


def test_workers_report_to_a_master(tmp_path: Path) -> None:
    """The master has all messages, as many as the server, and judges."""
    with running(tmp_path, "tests.loadtest.apps:Picky", "--store=discard:", *ADMIN) as server:
        master, *workers = distributed(tmp_path, url(server))
        output = master.communicate(timeout=60)[0].decode()
        for worker in workers:
            worker.communicate(timeout=30)
        run = result(tmp_path, master.returncode, output)
        assert run.code == 0, run.output
        check_numbers(run)
        accepted = AdminClient.of(server).status()["totals"]["messages"]["accepted"]
        assert abs(run.count("message") - accepted) <= 0.01 * accepted


def distributed(folder: Path, host: str) -> list[subprocess.Popen[bytes]]:
    """A master and two workers; the master's port is one that was free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    *arguments, user = locust_arguments(folder, host, "RawSmtp", *SHORT, "--rate", "100")
    master = (*arguments, "--master", "--master-bind-port", port, "--expect-workers", "2", user)
    worker = ("locust", "-f", "loadtest/locustfile.py", "--worker", "--master-port", port)
    return [
        subprocess.Popen(
            [require_locust(), "-m", *command],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for command in (master, worker, worker)
    ]
