"""Full is said early, in SMTP, and ends by itself (standards.md E7-E10)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.server import journal
from tests.server.gates import open_gate
from tests.server.running import running
from tests.server.waiting import until

MAIL = "MAIL FROM:<a@a.example>"
GATED = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<gate-full@b.example>\r\n"


def test_a_full_queue_of_hooks_is_451_to_mail(tmp_path: Path) -> None:
    flags = ("--threads=1", "--max-pending-hooks=2")
    with running(tmp_path, "tests.server.apps:ThreadGate", *flags) as server, ExitStack() as stack:
        one, two, three = (stack.enter_context(server.greeted()) for _ in range(3))
        one.send(GATED)
        until(lambda: journal.events(tmp_path, event="enter"), "a hook blocks the only thread")
        two.send(GATED)
        # The two flights travel on sockets of their own: the third may overtake the second.
        until(lambda: three.ask(MAIL, "").startswith("451 4.3.2 too busy"), "the queue is full", 2)
        three.ask("NOOP", "250")
        open_gate(tmp_path, "full")
        for client in (one, two):
            client.expect("250")
            client.expect("250")
        three.ask("RSET", "250")
        three.deliver()


def test_a_full_queue_of_hooks_is_421_to_new_connections(tmp_path: Path) -> None:
    flags = ("--threads=1", "--max-pending-hooks=2")
    with running(tmp_path, "tests.server.apps:WelcomeGate", *flags) as server, ExitStack() as stack:
        one, two, three = (stack.enter_context(server.connect()) for _ in range(3))  # accepted in this order
        three.expect("421 4.3.2 ")
        three.expect_end()
        open_gate(tmp_path, "welcome")
        for client in (one, two):
            client.expect("220")
        with server.connect() as later:
            later.expect("220")


def test_a_session_in_data_is_not_touched_by_a_full_queue(tmp_path: Path) -> None:
    """standards.md E7: 451 4.3.2 to MAIL; sessions in DATA are not touched."""
    flags = ("--threads=1", "--max-pending-hooks=1")
    with running(tmp_path, "tests.server.apps:ThreadGate", *flags) as server, ExitStack() as stack:
        one, two = (stack.enter_context(server.greeted()) for _ in range(2))
        two.begin_data()
        one.send(GATED)
        until(lambda: journal.events(tmp_path, event="enter", to="gate-full"), "the pool is full")
        two.send(b"x\r\n.\r\nNOOP\r\n")
        two.socket.settimeout(0.3)
        try:
            early = two.reply()
        except TimeoutError:
            early = ""
        assert early == ""
        two.socket.settimeout(10)
        open_gate(tmp_path, "full")
        two.expect("250 2.0.0 accepted")
        two.expect("250 2.0.0")


def test_a_full_queue_does_not_swallow_the_closed_hook(tmp_path: Path) -> None:
    """handler.py: `closed` is always the last call. What a handler opened for a session must be closed."""
    flags = ("--threads=1", "--max-pending-hooks=1")
    with running(tmp_path, "tests.server.apps:QueuedClosed", *flags) as server:
        with server.greeted() as busy, server.greeted() as leaving:
            port = leaving.port
            busy.send(b"NOOP\r\n")
            until(lambda: journal.events(tmp_path, event="noop"), "the pool is full")
            leaving.quit()
            open_gate(tmp_path, "noop")
            busy.expect("250")
        until(lambda: journal.events(tmp_path, event="closed", port=port), "the closed hook", 3)


def test_a_worker_with_enough_connections_says_421(tmp_path: Path) -> None:
    with (
        running(tmp_path, "--store=discard:", "--max-connections=2", "--linger-timeout=0.1") as server,
        server.greeted() as one,
        server.greeted() as two,
    ):
        for _ in range(3):
            with server.connect() as three:
                three.expect("421 4.3.2 ")
                three.expect_end()
        one.deliver()
        two.deliver()
        one.quit()

        def has_room() -> bool:
            with server.connect() as client:
                return client.reply().startswith("220")

        until(has_room, "room again")
