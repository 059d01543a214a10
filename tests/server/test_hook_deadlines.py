"""A hook that does not return costs its session an answer, and at most a thread (standards.md T16, E9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server import journal
from tests.server.client import Client
from tests.server.gates import open_gate
from tests.server.running import Server, running
from tests.server.waiting import until

GATES = ("ThreadGate", "AsyncGate", "StubbornGate")
FLAGS = ("--hook-timeout=1", "--data-hook-timeout=1")
MAIL = "MAIL FROM:<a@a.example>"


def _takes_mail_again(client: Client) -> bool:
    client.send(b"RSET\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n")
    client.expect("250")
    return [client.reply()[:3], client.reply()[:3]] == ["250", "250"]


def _calls_did_not_overlap(server: Server, port: int) -> bool:
    events = [event["event"] for event in journal.events(server.directory, port=port)]
    marks = [event for event in events if event in ("enter", "exit")]
    return marks == ["enter", "exit"] * (len(marks) // 2) + ["enter"] * (len(marks) % 2)


@pytest.mark.parametrize("app", GATES)
def test_a_late_hook_gets_451_and_the_session_goes_on(tmp_path: Path, app: str) -> None:
    with (
        running(tmp_path, f"tests.server.apps:{app}", "--threads=1", *FLAGS) as server,
        server.greeted() as client,
        server.greeted() as other,
    ):
        client.ask(MAIL, "250")
        client.ask("RCPT TO:<gate-late@b.example>", "451 4.3.0")
        server.wait_for_log("ERROR fastsmtp.handler: session .* hook rcpt did not return in time")
        client.ask("NOOP", "250")
        client.ask("RCPT TO:<b@b.example>", "503 5.5.1")  # standards.md E18: the transaction has ended
        other.deliver()  # nobody else suffers, not even from a pool of one thread
        client.ask("NOOP", "250")
        open_gate(tmp_path, "late")
        until(lambda: _takes_mail_again(client), "hooks run again")
        assert _calls_did_not_overlap(server, client.port)
        client.quit()
        assert server.stop() == 0


@pytest.mark.parametrize("app", GATES)
def test_no_hook_of_a_session_runs_beside_a_late_one(tmp_path: Path, app: str) -> None:
    with running(tmp_path, f"tests.server.apps:{app}", *FLAGS) as server, server.greeted() as client:
        client.send(f"{MAIL}\r\nRCPT TO:<gate-late@b.example>\r\n".encode())
        client.expect("250")
        client.expect("451 4.3.0")
        client.send(f"{MAIL}\r\nRCPT TO:<one@b.example>\r\nNOOP\r\n".encode())
        replies = [client.reply() for _ in range(3)]
        assert replies[-1].startswith("250 2.0.0")
        # With the late hook cancelled for good (async), or still at work: the new one runs behind it or fails.
        assert _calls_did_not_overlap(server, client.port)
        if app != "AsyncGate":
            assert journal.events(tmp_path, to="one") == []
        client.quit()


def test_the_second_blocking_hook_of_a_flight_is_late(tmp_path: Path) -> None:
    """The thread has answered one question already, and is stuck in the next."""
    with running(tmp_path, "tests.server.apps:ThreadGate", *FLAGS) as server, server.greeted() as client:
        client.send(f"{MAIL}\r\nRCPT TO:<gate-late@b.example>\r\nNOOP\r\n".encode())
        client.expect("250 2.1.0")
        client.expect("451 4.3.0")
        client.expect("250 2.0.0")
        client.ask("NOOP", "250")
        open_gate(tmp_path, "late")
        until(lambda: _takes_mail_again(client), "hooks run again")
        client.quit()
        assert "Traceback" not in server.log


@pytest.mark.parametrize("app", ["ThreadGate", "AsyncGate"])
def test_a_late_data_hook(tmp_path: Path, app: str) -> None:
    with running(tmp_path, f"tests.server.apps:{app}", *FLAGS) as server, server.greeted() as client:
        client.begin_data("gate-late@a.example")
        client.send(b"x\r\n.\r\n")
        client.expect("451 4.3.0")
        client.ask("RCPT TO:<b@b.example>", "503")
        open_gate(tmp_path, "late")
        until(lambda: _takes_mail_again(client), "hooks run again")
        (line,) = server.wait_for_access(1, "event=message")
        assert 'reply="451 4.3.0"' in line


@pytest.mark.parametrize("app", GATES)
def test_a_hook_that_never_returns_costs_its_session_only(tmp_path: Path, app: str) -> None:
    flags = ("--threads=1", "--drain-timeout=1", *FLAGS)
    with running(tmp_path, f"tests.server.apps:{app}", *flags) as server:
        with server.greeted() as client:
            client.ask(MAIL, "250")
            client.ask("RCPT TO:<gate-never@b.example>", "451 4.3.0")
            client.ask("NOOP", "250")
            client.ask("QUIT", "221")
        for _ in range(20):
            with server.greeted() as other:
                other.deliver()
                other.quit()
        # It does not keep the server from ending; whether a session that has gone counts as cut is left open.
        assert server.stop(seconds=15) in (0, 1)


def test_hooks_that_are_late_before_they_began_hold_no_thread(tmp_path: Path) -> None:
    """More of them than threads: each one that runs is replaced, and the replacement stays as long as it does."""
    with running(tmp_path, "tests.server.apps:ThreadGate", "--threads=2", *FLAGS) as server:
        stuck = [server.greeted() for _ in range(6)]
        for client in stuck:
            client.ask(MAIL, "250")
        for client in stuck:
            client.send(b"RCPT TO:<gate-late@b.example>\r\n")
        for client in stuck:
            client.expect("451 4.3.0")
        assert len(journal.events(tmp_path, event="enter", to="gate-late")) == 2
        for _ in range(6):
            with server.greeted() as other:
                other.deliver()
                other.quit()
        open_gate(tmp_path, "late")


def test_a_session_that_has_gone_while_its_hook_is_stuck_is_left_alone(tmp_path: Path) -> None:
    """Its deadlines are nobody's business any more, the one of the session included."""
    flags = ("--session-timeout=2", "--command-timeout=1", *FLAGS)
    with running(tmp_path, "tests.server.apps:ThreadGate", *flags) as server:
        with server.greeted() as client:
            client.ask(MAIL, "250")
            client.ask("RCPT TO:<gate-late@b.example>", "451 4.3.0")
            client.reset()
        with server.greeted() as clock:  # measures the time: its session is the younger one
            assert clock.rest().startswith(b"421 4.4.2")
        with server.greeted() as clock:
            assert clock.rest().startswith(b"421 4.4.2")
        open_gate(tmp_path, "late")
        assert server.stop() == 0
        assert "could not be timed out" not in server.log
        assert "Traceback" not in server.log


def test_blocking_hooks_of_a_shared_instance_do_not_slow_other_sessions(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:shared_gate", "--threads=8") as server:
        stuck = [server.greeted() for _ in range(7)]
        for client in stuck:
            client.send(f"{MAIL}\r\nRCPT TO:<gate-slow@b.example>\r\n".encode())
        until(lambda: len(journal.events(tmp_path, event="enter")) == 7, "seven hooks block")
        for _ in range(20):
            with server.greeted() as other:
                other.deliver()
                other.quit()
        assert journal.events(tmp_path, event="exit", to="gate-slow") == []
        open_gate(tmp_path, "slow")
        for client in stuck:
            client.expect("250")
            client.expect("250")
            client.socket.close()
