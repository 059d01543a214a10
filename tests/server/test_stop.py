"""Stop: what is idle ends at once, what runs finishes, what takes too long is cut (standards.md E11-E15, T08-T11)."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.server import journal
from tests.server.client import Client
from tests.server.gates import open_gate
from tests.server.processes import is_alive, members_of
from tests.server.running import Server, running, starting
from tests.server.waiting import until

STOPPING = r"INFO fastsmtp\.master: stopping: \d workers drain"


def _mails(server: Server) -> int:
    return len(list((server.directory / "mail" / "new").iterdir()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_sessions_get_421_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "--store=discard:", "--drain-timeout=30", workers=2) as server:
        quiet, greeted, after = server.connect(), server.greeted(), server.greeted()
        quiet.expect("220")
        after.deliver()
        began = time.monotonic()
        server.send_signal(number)
        for client in (quiet, greeted, after):
            client.expect("421 4.3.2 ")
            client.expect_end()
            client.socket.close()
        assert server.wait() == 0
        assert time.monotonic() - began < 3
        server.wait_for_log(STOPPING)


def test_a_session_in_a_transaction_may_finish_it(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        in_data, in_mail, in_rset = server.greeted(), server.greeted(), server.greeted()
        in_data.begin_data()
        in_data.send(b"Subject: x\r\n")
        in_mail.ask("MAIL FROM:<a@a.example>", "250")
        in_rset.ask("MAIL FROM:<a@a.example>", "250")
        server.send_signal(signal.SIGTERM)
        server.wait_for_log(STOPPING)
        until(lambda: _refuses(server), "no new connections")
        in_data.send(b"\r\nx\r\n.\r\n")
        in_data.expect("250 2.0.0 accepted")
        in_data.expect("421 4.3.2")
        in_mail.ask("RCPT TO:<b@b.example>", "250")
        in_mail.ask("DATA", "354")
        in_mail.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        in_mail.expect("250 2.0.0 accepted")
        in_mail.expect("421 4.3.2")
        in_rset.ask("RSET", "250")
        in_rset.expect("421 4.3.2")
        for client in (in_data, in_mail, in_rset):
            client.expect_end()
            client.socket.close()
        assert server.wait() == 0
        assert _mails(server) == 2


def _refuses(server: Server) -> bool:
    try:
        Client(server.address).socket.close()
    except ConnectionRefusedError:
        return True
    return False


def test_no_worker_keeps_the_socket_of_another_one(tmp_path: Path) -> None:
    """Else connections would wait where nobody accepts any more, as long as one session drains."""
    with running(tmp_path, "--store=discard:", workers=3) as server:
        client = server.greeted()
        client.ask("MAIL FROM:<a@a.example>", "250")
        server.send_signal(signal.SIGTERM)
        until(lambda: len(server.workers) == 1, "the others leave")
        until(lambda: all(_refuses(server) for _ in range(20)), "no new connections")
        client.ask("RSET", "250")
        client.expect("421")
        client.socket.close()
        assert server.wait() == 0


@pytest.mark.parametrize("app", ["ThreadGate", "AsyncGate"])
def test_a_hook_that_runs_finishes(tmp_path: Path, app: str) -> None:
    """standards.md T10: a message whose data are complete gets its verdict."""
    with running(tmp_path, f"tests.server.apps:{app}", "--store=maildir:./mail") as server, server.greeted() as client:
        client.begin_data("gate-data@a.example")
        client.send(b"x\r\n.\r\n")
        until(lambda: journal.events(tmp_path, event="data"), "the data hook")
        server.send_signal(signal.SIGTERM)
        server.wait_for_log(STOPPING)
        open_gate(tmp_path, "data")
        client.expect("250 2.0.0 accepted")
        client.expect("421 4.3.2")
        client.expect_end()
        client.socket.close()
        assert server.wait() == 0
        assert _mails(server) == 1


def test_what_takes_longer_than_the_drain_is_cut(tmp_path: Path) -> None:
    """standards.md E15: 421 4.3.2 at a command boundary, no reply in the middle of data."""
    with running(tmp_path, "--drain-timeout=1") as server:
        in_data, in_mail = server.greeted(), server.greeted()
        in_data.begin_data()
        in_data.send(b"x\r\n")
        in_mail.ask("MAIL FROM:<a@a.example>", "250")
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        in_mail.expect("421 4.3.2")
        assert time.monotonic() - began > 0.9
        assert _said_before_the_end(in_data) == b""
        assert server.wait() == 1
        assert "worker 0: 2 sessions were cut" in server.log
        assert _mails(server) == 0
        assert list((tmp_path / "mail" / "tmp").iterdir()) == []


def _said_before_the_end(client: Client) -> bytes:
    said = b""
    try:
        while octets := client.socket.recv(4096):
            said += octets
    except ConnectionResetError:
        pass
    return said


def test_the_closed_hooks_of_cut_sessions_are_called(tmp_path: Path) -> None:
    """handlers.md: always the last call."""
    with running(tmp_path, "tests.server.apps:Farewell", "--store=discard:", "--drain-timeout=0.1") as server:
        for _ in range(5):
            server.greeted().begin_data()
        assert server.stop() == 1
    assert len(journal.events(tmp_path, event="closed")) == 5


def test_a_verdict_of_the_last_moment_is_in_the_log(tmp_path: Path) -> None:
    """Its client is gone, but the message was accepted."""
    with (
        running(tmp_path, "tests.server.apps:LastMoment", "--drain-timeout=0.1") as server,
        server.greeted() as client,
    ):
        client.begin_data()
        client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        until(lambda: journal.events(tmp_path, event="data"), "the hook")
        assert server.stop() == 1  # a session was cut
        assert len([line for line in server.access_log if "event=message" in line]) == 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_the_second_signal_cuts_at_once(tmp_path: Path, second: signal.Signals) -> None:
    with running(tmp_path, "--store=discard:", "--drain-timeout=60", workers=2) as server, server.greeted() as client:
        client.begin_data()
        server.send_signal(signal.SIGTERM)
        server.wait_for_log(STOPPING)
        began = time.monotonic()
        assert server.stop(second) == 1
        assert time.monotonic() - began < 3
        assert "1 sessions were cut" in server.log


def test_a_second_signal_with_nothing_to_cut_is_a_clean_stop(tmp_path: Path) -> None:
    """What only waits for the client to close has been answered: it was not cut."""
    with (
        running(tmp_path, "--store=discard:", "--linger-timeout=60", "--drain-timeout=60") as server,
        server.greeted() as client,
    ):
        server.send_signal(signal.SIGTERM)
        client.expect("421 4.3.2")
        client.expect_end()
        assert server.stop(signal.SIGTERM) == 0


def test_quit_cuts_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:") as server, server.greeted() as client:
        client.begin_data()
        assert server.stop(signal.SIGQUIT) == 1


def test_a_stop_while_a_worker_still_starts(tmp_path: Path) -> None:
    """Nothing was cut: exit code 0."""
    open_gate(tmp_path, "hold")
    command = [*_serve("tests.server.apps:Lifespan")]
    with starting(tmp_path, command) as server:
        until(lambda: journal.events(tmp_path, event="entered"), "the lifespan")
        server.send_signal(signal.SIGTERM)
        server.wait_for_log(STOPPING)
        open_gate(tmp_path, "lifespan")
        assert server.wait() == 0


def _serve(*arguments: str) -> list[str]:
    from tests.server.running import SERVE

    return [*SERVE, *arguments, "--listen=127.0.0.1:0", "--workers=1"]


def test_what_waits_in_the_accept_queue_is_served(tmp_path: Path) -> None:
    """standards.md E11."""
    with running(tmp_path, "--store=discard:") as server:
        os.kill(server.worker, signal.SIGSTOP)
        waiting = [server.connect() for _ in range(20)]
        server.send_signal(signal.SIGTERM)
        server.wait_for_log(STOPPING)
        os.kill(server.worker, signal.SIGCONT)
        for client in waiting:
            client.expect("220")
            client.expect("421 4.3.2")
            client.expect_end()
            client.socket.close()
        assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_address_is_free_directly_afterwards(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "--store=discard:", workers=2) as server:
        host, port = server.host_and_port
        with server.greeted() as client:
            client.deliver()
            pid = server.pid
            server.send_signal(number)
            server.wait()
        until(lambda: members_of(pid) == [], "all processes are gone")
        with running(tmp_path, "--store=discard:", listen=[f"{host}:{port}"], name="second") as second:
            second.greeted().deliver()


def test_the_workers_do_not_outlive_the_master(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", workers=2) as server:
        workers = server.workers
        assert len(workers) == 2
        idle, busy = server.greeted(), server.greeted()
        busy.begin_data()
        server.stop(signal.SIGKILL)
        idle.expect("421 4.3.2")
        busy.send(b"x\r\n.\r\n")
        busy.expect("250 2.0.0 accepted")
        idle.socket.close()
        busy.socket.close()
        until(lambda: not any(map(is_alive, workers)), "the workers end")


def test_no_process_keeps_the_port(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", workers=2) as server:
        address = server.host_and_port
        assert server.stop() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 5)


SLOW_ONCE_RENEWED = """
import pathlib, time
from fastsmtp import Handler

if pathlib.Path("loaded").exists():
    time.sleep(30)

class App(Handler):
    pass
"""


def test_a_stop_in_the_middle_of_a_reload_starts_nobody_any_more(tmp_path: Path) -> None:
    """The first successor ends before it serves; the other workers still drain, and are not to be replaced."""
    (tmp_path / "app.py").write_text(SLOW_ONCE_RENEWED)
    with running(tmp_path, "app:App", "--store=discard:", workers=2) as server:
        (tmp_path / "loaded").touch()
        before = server.workers
        busy = [server.greeted() for _ in range(12)]  # some at each worker
        for client in busy:
            client.begin_data()
        server.send_signal(signal.SIGHUP)
        (successor,) = until(lambda: set(server.workers) - set(before), "a successor")
        server.send_signal(signal.SIGTERM)
        until(lambda: not is_alive(successor), "the successor ends")
        for client in busy:
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            client.expect("250 2.0.0 accepted")
        assert server.wait() == 0
        assert "Traceback" not in server.log
