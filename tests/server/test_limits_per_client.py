"""What one client may have, over all workers (standards.md D, T05): connections, and new ones in a minute."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trustme

from tests.server.client import Client
from tests.server.proxied import v1
from tests.server.running import Server, running
from tests.server.secured import connect_inside, issue
from tests.server.waiting import until

FLAGS = ("tests.server.apps:Pids", "--store=discard:", "--hostname=mx.example", "--exempt-networks=none")
TOO_MANY = "421 4.7.0 mx.example too many connections from your address"
OTHER = "127.0.0.2"  # another client


@contextmanager
def _serving(directory: Path, *flags: str, workers: int = 2) -> Iterator[Server]:
    with running(directory, *FLAGS, *flags, workers=workers) as server:
        yield server


def _banners(server: Server, stack: ExitStack, count: int, source: str = "") -> tuple[list[Client], list[Client], int]:
    """Connect so often: who may stay, who may not, and how many workers have answered."""
    staying, refused, workers = [], [], set()
    for _ in range(count):
        client = stack.enter_context(server.connect(source=source))
        reply = client.reply()
        if reply == TOO_MANY:
            client.expect_end()
            refused.append(client)
        else:
            assert reply.startswith("220 pid "), reply
            workers.add(reply)
            staying.append(client)
    return staying, refused, len(workers)


def _until_admitted(server: Server, source: str = "") -> Client:
    """Try until there is a place again; the connection keeps it."""

    def try_once() -> Client | None:
        client = server.connect(source=source)
        if client.reply().startswith("220"):
            return client
        client.socket.close()
        return None

    client = until(try_once, "a place is free again")
    assert client is not None
    return client


def test_connections_of_one_client_over_two_workers(tmp_path: Path) -> None:
    with _serving(tmp_path, "--max-connections-per-client=20") as server, ExitStack() as stack:
        staying, refused, workers = _banners(server, stack, 30)
        assert (len(staying), len(refused), workers) == (20, 10, 2)
        others, none, _ = _banners(server, stack, 5, OTHER)
        assert (len(others), len(none)) == (5, 0)
        for client in (*staying, *others):  # nobody was disturbed
            client.ask("EHLO client.example", "250")
            client.deliver()
        refusals = server.wait_for_access(10, 'reply="421 4.7.0"')
        assert all(" event=session " in line and " peer=127.0.0.1:" in line for line in refusals)
        # A place for each that goes, in whatever way.
        for end in (Client.quit, Client.reset, Client.shut):
            end(staying.pop())
            _until_admitted(server)
        assert _banners(server, stack, 1)[1], "and no more than that"


def test_a_killed_worker_takes_its_connections_with_it(tmp_path: Path) -> None:
    """Whoever was connected to it can connect again; the connections of the other worker still count."""
    with _serving(tmp_path, "--max-connections-per-client=20") as server, ExitStack() as stack:
        staying, _, workers = _banners(server, stack, 20)
        assert workers == 2
        killed = server.workers[0]
        os.kill(killed, signal.SIGKILL)
        lost = [client for client in staying if not _is_alive(client)]
        assert 0 < len(lost) < 20
        server.wait_for_log(rf"worker \d+ \(pid {killed}\) died")
        for _ in lost:
            _until_admitted(server)
        again, refused, _ = _banners(server, stack, 3)
        assert (len(again), len(refused)) == (0, 3)


def _is_alive(client: Client) -> bool:
    try:
        client.send(b"NOOP\r\n")
        return client.reply().startswith("250")
    except (EOFError, ConnectionError):
        return False


def test_those_who_leave_and_come_again(tmp_path: Path) -> None:
    """standards.md T06: a scan, or a client in a hurry, leaves nothing behind, whatever room it was in."""
    flags = (f"--tls-certfile={issue(tmp_path, trustme.CA(), 'mx.example')}", "--max-connections-per-client=3")
    rooms = ("", "implicit_tls", "proxy_protocol proxy_networks=127.0.0.0/8", "greet_wait=0.05")
    listen = tuple(f"127.0.0.1:0 {room}".strip() for room in rooms)
    with running(tmp_path, *FLAGS, *flags, "--max-connections=20", listen=listen) as server, ExitStack() as stack:
        for count in range(1000):
            server.connect(at=count % len(rooms)).reset()
        clients = [_until_admitted(server) for _ in range(3)]
        staying, refused, _ = _banners(server, stack, 2)
        assert (len(staying), len(refused)) == (0, 2)
        for client in clients:
            client.ask("EHLO client.example", "250")
            client.deliver()
        assert "ERROR" not in server.log
        assert len(server.access_log) < 1000 + 20


def test_exempt_networks(tmp_path: Path) -> None:
    limits = ("--max-connections-per-client=1", "--connection-rate-per-client=1", "--exempt-networks=127.0.0.2")
    with running(tmp_path, *FLAGS[:-1], *limits, workers=2) as server, ExitStack() as stack:
        staying, refused, _ = _banners(server, stack, 5, OTHER)
        assert (len(staying), len(refused)) == (5, 0)
        staying, refused, _ = _banners(server, stack, 5)
        assert (len(staying), len(refused)) == (1, 4)


def test_new_connections_of_one_client_in_a_minute(tmp_path: Path) -> None:
    with _serving(tmp_path, "--connection-rate-per-client=10") as server, ExitStack() as stack:
        for _ in range(10):  # it does not matter that they are gone
            with server.connect() as client:
                client.expect("220 pid ")
                client.quit()
        staying, refused, _ = _banners(server, stack, 5)
        assert (len(staying), len(refused)) == (0, 5)
        assert len(server.wait_for_access(5, 'reply="421 4.7.0"')) == 5
        others, none, _ = _banners(server, stack, 10, OTHER)
        assert (len(others), len(none)) == (10, 0)


def test_a_new_worker_remembers_the_minute(tmp_path: Path) -> None:
    """Or whoever brings a worker down could begin anew."""
    with _serving(tmp_path, "--connection-rate-per-client=3", workers=1) as server, ExitStack() as stack:
        staying, _, _ = _banners(server, stack, 3)
        assert len(staying) == 3
        os.kill(server.worker, signal.SIGKILL)
        server.wait_for_log("died")
        staying, refused, _ = _banners(server, stack, 3)
        assert (len(staying), len(refused)) == (0, 3)


def test_a_listener_of_its_own_has_limits_of_its_own(tmp_path: Path) -> None:
    """Connections are counted over all listeners; how many are allowed, each says by itself."""
    listen = ("127.0.0.1:0 max_connections_per_client=2", "127.0.0.1:0 max_connections_per_client=3")
    with running(tmp_path, *FLAGS, listen=listen) as server:
        assert [server.connect(at=at).reply()[:3] for at in (0, 0, 0)] == ["220", "220", "421"]
        until(lambda: len(server.access_log) == 1, "the third is gone")
        assert [server.connect(at=at).reply()[:3] for at in (1, 1)] == ["220", "421"]


@pytest.mark.parametrize("kind", ["plain", "tls", "proxy"])
def test_a_refusal_is_written_and_closed_within_its_time(tmp_path: Path, kind: str) -> None:
    """Also if the client neither reads nor closes; and a server that is full of those can still say so."""
    options = {"plain": "", "tls": "implicit_tls", "proxy": "proxy_protocol proxy_networks=127.0.0.0/8"}[kind]
    flags = (f"--tls-certfile={issue(tmp_path, trustme.CA(), 'mx.example')}", "--refusal-timeout=1")
    listen = (f"127.0.0.1:0 max_connections_per_client=1 {options}",)

    def connect(server: Server) -> Client:
        if kind == "tls":
            return connect_inside(server)
        client = server.connect()
        client.send(v1("192.0.2.1") if kind == "proxy" else b"")
        return client

    with running(tmp_path, *FLAGS, *flags, listen=listen) as server:
        first = connect(server)
        first.expect("220")
        silent = [connect(server) for _ in range(10)]
        server.wait_for_access(10, 'reply="421 4.7.0"', 4)  # each is written when its connection is gone
        for client in silent:
            assert client.reply() == TOO_MANY
            client.expect_end()
        first.ask("NOOP", "250")


def test_a_refusal_of_who_has_talked_already(tmp_path: Path) -> None:
    """What it has sent is not read any more, and must not turn the 421 into a reset."""
    with _serving(tmp_path, "--max-connections-per-client=1", workers=1) as server, server.connect() as first:
        first.expect("220")
        for _ in range(50):
            with server.connect() as second:
                second.send(b"EHLO client.example\r\nMAIL FROM:<a@a.example>\r\n")
                assert second.reply() == TOO_MANY
        first.ask("EHLO client.example", "250")
        first.deliver()


def test_a_reset_before_we_look_is_nobody(tmp_path: Path) -> None:
    """The kernel has forgotten its address: it must not pass for a client of a unix socket, whom nobody limits."""
    certificate = f"--tls-certfile={issue(tmp_path, trustme.CA(), 'mx.example')}"
    listen = (
        "127.0.0.1:0",
        "127.0.0.1:0 implicit_tls",
        "127.0.0.1:0 proxy_protocol proxy_networks=127.0.0.0/8",
        f"unix:{tmp_path}/socket",
    )
    flags = ("tests.server.callers:Callers", "--store=maildir:./mail", certificate)
    flight = b"EHLO x.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nx\r\n.\r\n"
    with running(tmp_path, *flags, listen=listen) as server:
        os.kill(server.worker, signal.SIGSTOP)
        for at, octets in ((0, flight), (1, flight), (2, b"PROXY UNKNOWN\r\n" + flight)):
            client = server.connect(at=at)
            client.send(octets)
            client.reset()
        os.kill(server.worker, signal.SIGCONT)
        with server.connect(at=3) as local:
            local.greet().deliver()
            local.quit()
        (line,) = until(lambda: [line for line in server.access_log if " event=message " in line], "the message")
        assert " peer=unix " in line
        others = [each for each in server.access_log if each != line]
        assert not [each for each in others if "unix" in each or "event=message" in each]
        assert len(others) <= 3  # T06: one line each, at most
        assert len(list((tmp_path / "mail" / "new").iterdir())) == 1
        assert "ERROR" not in server.log
