"""What a handler can rely on: instances, sessions, lifespans, contexts, and that its hooks take turns."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server import journal
from tests.server.gates import open_gate
from tests.server.processes import is_alive
from tests.server.running import running
from tests.server.waiting import until


@pytest.mark.parametrize(
    ("app", "second"),
    [("Counting", "own 1 1 3"), ("shared", "shared 3 1 3"), ("factory", "made 1 1 3")],
)
def test_a_class_makes_an_instance_a_session_and_an_instance_is_shared(tmp_path: Path, app: str, second: str) -> None:
    with running(tmp_path, f"tests.server.apps:{app}") as server, server.greeted() as one, server.greeted() as two:
        name = second.split()[0]
        one.ask("NOOP", f"250 2.0.0 {name} 1 1 1")
        one.ask("NOOP", f"250 2.0.0 {name} 2 2 2")
        two.ask("NOOP", f"250 2.0.0 {second}")


def test_a_factory_that_fails_costs_one_session(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:broken_factory") as server, server.connect() as client:
        assert client.reply().startswith("421 4.3.")
        client.expect_end()
        server.wait_for_log("RuntimeError: no handler today")
        assert is_alive(server.worker)


@pytest.mark.parametrize("app", ["forgetful_factory", "async_factory"])
def test_a_factory_that_makes_no_handler_accepts_no_mail(tmp_path: Path, app: str) -> None:
    with running(tmp_path, f"tests.server.apps:{app}") as server, server.connect() as client:
        assert client.reply().startswith("421 4.3.")
        client.expect_end()
        server.wait_for_log(f"{app} has returned .*: must be an instance of fastsmtp.Handler")


def test_the_lifespan_is_entered_and_left_in_each_worker(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:Lifespan", "--hostname=mx.example", workers=2) as server:
        workers = server.workers
        entered = journal.events(tmp_path, event="entered")
        assert {(event["slot"], event["hostname"]) for event in entered} == {(0, "mx.example"), (1, "mx.example")}
        assert sorted(event["pid"] for event in entered) == workers
        with server.connect() as client:
            banner = client.expect("220 slot ")
            assert int(banner.split()[-1]) in workers
            client.ask("QUIT", "221")
        assert journal.events(tmp_path, event="left") == []
        assert server.stop() == 0
        left = journal.events(tmp_path, event="left")
        assert sorted(event["pid"] for event in left) == workers


@pytest.mark.parametrize(
    ("to", "reply"),
    [
        ("sleep", "250 2.0.0 slept"),
        ("timeout", "250 2.0.0 timed out"),
        ("intime", "250 2.0.0 in time"),
        ("waitfor", "250 2.0.0 waited for"),
        ("group", "250 2.0.0 one two"),
        ("brokengroup", "250 2.0.0 group failed"),
        ("gather", "250 2.0.0 one two"),
        ("cancel", "250 2.0.0 still here"),
        ("latecancel", "250 2.0.0 still here"),
        ("thread", "250 2.0.0 from a thread"),
        ("cancelled", "451 4.3.0"),
        ("deadfuture", "451 4.3.0"),
        ("latedeadfuture", "451 4.3.0"),
        ("latefailure", "451 4.3.0"),
    ],
)
def test_an_async_hook_may_do_what_a_task_may_do(tmp_path: Path, to: str, reply: str) -> None:
    with running(tmp_path, "tests.server.apps:Suspending") as server, server.greeted() as client:
        for _ in range(3):
            client.ask("MAIL FROM:<a@a.example>", "250")
            client.ask(f"RCPT TO:<{to}@b.example>", reply)
            client.ask(f"RCPT TO:<{to}@b.example>", reply if reply.startswith("250") else "503")
            client.ask("RSET", "250")
        client.ask("MAIL FROM:<a@a.example>", "250")
        client.ask("RCPT TO:<sleep@b.example>", "250")
        with server.greeted() as other:
            other.ask("MAIL FROM:<a@a.example>", "250")
            other.ask("RCPT TO:<sleep@b.example>", "250")
        assert "never awaited" not in server.log


@pytest.mark.parametrize("odd", ["exit", "odd", "generator"])
@pytest.mark.parametrize("command", ["RCPT TO:<{}@b.example>", "VRFY {}", "VRFY {} late", "HELP {}"])
def test_a_hook_that_exits_gets_451_and_takes_nobody_with_it(tmp_path: Path, command: str, odd: str) -> None:
    """dispatch.py: whatever a hook raises ends in a reply. What a library raises is the hook's bug, too."""
    with (
        running(tmp_path, "tests.server.apps:Raising") as server,
        server.greeted() as other,
        server.greeted() as client,
    ):
        worker = server.worker
        client.ask("MAIL FROM:<a@a.example>", "250")
        for _ in range(2):
            client.ask(command.format(odd), "451 4.3.0")
            client.ask("NOOP", "250")
            client.ask("RSET", "250")
            client.ask("MAIL FROM:<a@a.example>", "250")
        other.ask("NOOP", "250")
        assert server.workers == [worker]


def test_context_variables_belong_to_a_session(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:Contexts") as server, ExitStack() as stack:
        one, two = (stack.enter_context(server.connect()) for _ in range(2))
        for name, client in (("one", one), ("two", two)):
            client.expect("220")
            client.ask("NOOP", "250 2.0.0 unset")
            client.ask("HELP", "250 2.0.0 unset")
            client.ask(f"HELO {name}", "250")
        for name, client in (("one", one), ("two", two)):
            client.ask("NOOP", f"250 2.0.0 inline {name}")
            client.ask("HELP", f"250 2.0.0 inline {name}")
        one.ask("MAIL FROM:<early@a.example>", "250")
        two.ask("MAIL FROM:<late@a.example>", "250")
        one.ask("RCPT TO:<b@b.example>", "250 2.0.0 async one")
        two.ask("RCPT TO:<b@b.example>", "250 2.0.0 late two")
        one.ask("NOOP", "250 2.0.0 async one")
        two.ask("HELP", "250 2.0.0 late two")
        one.ask("VRFY x", "252")
        one.ask("RCPT TO:<b@b.example>", "250 2.0.0 thread one")
        one.ask("NOOP", "250 2.0.0 thread one")
        two.ask("NOOP", "250 2.0.0 late two")


def _dialogue(number: int) -> tuple[bytes, list[str]]:
    """A pipelined flight and its replies."""
    lines = [
        ("MAIL FROM:<a@a.example>", "250 2.1.0"),
        (f"NOOP a{number}", f"250 2.0.0 a{number}"),
        ("RCPT TO:<slow@b.example>", "250 2.1.5"),
        (f"VRFY b{number}", f"250 2.0.0 b{number}"),
        ("RCPT TO:<quick@b.example>", "250 2.1.5"),
        (f"NOOP c{number}", f"250 2.0.0 c{number}"),
        ("DATA", "354"),
        (f"message {number}\r\n.", f"250 2.0.0 message {number}"),
        (f"VRFY d{number}", f"250 2.0.0 d{number}"),
        (f"NOOP e{number}", f"250 2.0.0 e{number}"),
    ]
    return "".join(f"{line}\r\n" for line, _ in lines).encode(), [reply for _, reply in lines]


def test_hooks_of_a_session_take_turns_under_pipelining(tmp_path: Path) -> None:
    arguments = ("tests.server.apps:Mixed", "--max-junk-commands=1000000", "--threads=4")
    with running(tmp_path, *arguments) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.greeted()) for _ in range(8)]
        for start in range(0, 40, 10):
            dialogues = [_dialogue(number) for number in range(start, start + 10)]
            for client in clients:
                client.send(b"".join(octets for octets, _ in dialogues))
            for client in clients:
                for _, replies in dialogues:
                    for reply in replies:
                        client.expect(reply)
        for client in clients:
            client.quit()
        assert server.stop() == 0
        assert journal.events(tmp_path) == []


def test_what_came_before_a_disconnect_is_delivered_once(tmp_path: Path) -> None:
    """standards.md G: disconnect behind the end of data. A blocking hook follows an async one when nobody is there."""
    with running(tmp_path, "tests.server.apps:AsyncThenThread") as server:
        with server.greeted() as client:
            port = client.port
            flight = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nx\r\n.\r\n"
            client.send(flight)
            until(lambda: journal.events(tmp_path, event="mail"), "the mail hook")
            client.reset()
        open_gate(tmp_path, "mail")
        until(lambda: journal.events(tmp_path, event="closed"), "the closed hook", 5)
        calls = [event["event"] for event in journal.events(tmp_path, port=port)]
        assert calls == ["mail", "rcpt", "data", "closed"]


def test_a_disconnect_in_the_middle_of_a_hook_leaves_nothing_behind(tmp_path: Path) -> None:
    with running(tmp_path, "tests.server.apps:AsyncThenThread") as server:
        with server.greeted() as client:
            client.send(b"MAIL FROM:<a@a.example>\r\n")
            until(lambda: journal.events(tmp_path, event="mail"), "the mail hook")
            client.reset()
        assert journal.events(tmp_path, event="closed") == []  # hooks take turns: closed waits
        open_gate(tmp_path, "mail")
        until(lambda: journal.events(tmp_path, event="closed"), "the closed hook")
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_an_await_that_was_cancelled_elsewhere_harms_no_other_session(tmp_path: Path) -> None:
    """CancelledError in the first step of a hook: no Exception, but its own failure all the same."""
    with running(tmp_path, "tests.server.apps:Suspending") as server, server.greeted() as client:
        client.send(b"MAIL FROM:<a@a.example>\r\nRCPT TO:<deadfuture@b.example>\r\n")
        server.wait_for_log("CancelledError")
        for _ in range(3):
            with server.greeted() as other:
                other.ask("MAIL FROM:<a@a.example>", "250")
                other.ask("RCPT TO:<sleep@b.example>", "250 2.0.0 slept")
