"""Transport: clients that do not read, close half, vanish, dawdle, or talk on when all is said."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.server import journal
from tests.server.client import Client
from tests.server.kernel import unread
from tests.server.processes import cpu_seconds, memory_of
from tests.server.running import SERVE, Server, running, starting
from tests.server.waiting import until

MESSAGE = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n"


def _mails(server: Server) -> list[Path]:
    return sorted((server.directory / "mail" / "new").iterdir())


def test_a_client_that_never_reads_is_stopped_and_then_closed(tmp_path: Path) -> None:
    """standards.md T04."""
    flags = ("--store=discard:", "--write-timeout=1", "--max-junk-commands=2000000000", "--command-timeout=60")
    with running(tmp_path, *flags) as server, server.connect(receive_buffer=4096) as client, server.greeted() as other:
        before = memory_of(server.worker)
        client.expect("220")
        client.socket.setblocking(False)
        flight = memoryview(b"HELP\r\n" * 100000)
        sent, end = 0, time.monotonic() + 15
        closed = False
        while not closed and time.monotonic() < end:
            try:
                sent += client.socket.send(flight[sent % 6 :])
            except BlockingIOError:
                other.ask("NOOP", "250")  # it does not hold up the others; and it lets the server's seconds pass
            except (ConnectionResetError, BrokenPipeError):
                closed = True
        assert closed
        assert sent < 64 << 20
        assert memory_of(server.worker) - before < 8 << 20
        server.wait_for_access(1, "event=session")


def test_a_client_that_reads_late_gets_every_reply(tmp_path: Path) -> None:
    """Reading stops while output waits, and goes on behind it, wherever the flights were cut."""
    flags = ("--store=discard:", "--max-junk-commands=2000000000")
    count = 60000
    with running(tmp_path, *flags) as server, server.connect(receive_buffer=4096) as client:
        client.greet()
        client.socket.setblocking(False)
        flight, sent, replies = b"NOOP\r\n" * count + MESSAGE + b"QUIT\r\n", 0, b""
        while sent < len(flight):
            try:
                sent += client.socket.send(flight[sent : sent + 65536])
            except BlockingIOError:
                client.socket.settimeout(8)
                replies += client.socket.recv(4096)
                client.socket.setblocking(False)
        client.socket.settimeout(8)
        replies += client.rest()
        lines = replies.split(b"\r\n")
        assert lines[:count] == [b"250 2.0.0 ok"] * count
        assert [line[:3] for line in lines[count:]] == [b"250", b"250", b"354", b"250", b"221", b""]


def test_chunks_that_several_reads_of_one_turn_bring(tmp_path: Path) -> None:
    """RFC 3030 2: what was read before its BDAT was executed is content as well, and what follows is not lost."""
    with running(tmp_path, "--store=discard:") as server, server.greeted() as client:
        line = b"0123456789abcdef\r\n"
        for _ in range(20):
            client.send(b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n")
            client.send(b"BDAT 360000\r\n" + b"\r\n" * 9 + line * 19999)
            for start in ("250 2.1.0", "250 2.1.5", "250 2.0.0 360000 octets"):
                client.expect(start)
            client.send(b"BDAT 360000\r\n" + line * 20000)
            client.expect("250 2.0.0 360000 octets")
            client.send(b"BDAT 18 LAST\r\n" + line + b"NOOP\r\n")
            client.expect("250 2.0.0 accepted")
            client.expect("250 2.0.0 ok")


def test_a_chunk_does_not_overtake_what_was_read_before_it(tmp_path: Path) -> None:
    """A read that fills the buffer has another one behind it in the same turn; content must not become commands."""
    envelope, line = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n", b"RCPT TO:<evil@b.example>\r\n"
    size = 65536 - len(envelope) - len(b"BDAT 00000\r\n")  # so that the next BDAT begins the second read
    first = (b"Subject: x\r\n\r\n" + line * 4000)[: size - 2] + b"\r\n"
    flight = envelope + b"BDAT %d\r\n" % size + first + b"BDAT %d LAST\r\n" % (8000 * len(line)) + line * 8000
    with running(tmp_path, "--store=discard:") as server, server.greeted() as client:
        for _ in range(5):
            os.kill(server.worker, signal.SIGSTOP)
            sending = threading.Thread(target=client.send, args=(flight + b"NOOP\r\n",))
            sending.start()
            until(lambda: unread(client) >= 65536, "a whole read waits")
            os.kill(server.worker, signal.SIGCONT)
            for start in ("250 2.1.0", "250 2.1.5", f"250 2.0.0 {size} octets", "250 2.0.0 accepted", "250 2.0.0 ok"):
                client.expect(start)
            sending.join()


def test_a_half_close_behind_a_message(tmp_path: Path) -> None:
    """standards.md I: a FIN is no abort."""
    with running(tmp_path) as server, server.greeted() as client:
        client.send(MESSAGE)
        client.shut()
        for start in ("250 2.1.0", "250 2.1.5", "354", "250 2.0.0 accepted"):
            client.expect(start)
        client.expect_end()
        assert len(_mails(server)) == 1


@pytest.mark.parametrize("end", [b"", b".", b".\r"])
def test_a_half_close_inside_data(tmp_path: Path, end: bytes) -> None:
    with running(tmp_path) as server:
        for half in (True, False):
            with server.greeted() as client:
                client.begin_data()
                client.send(b"Subject: x\r\n\r\nhello\r\n" + end)
                if half:
                    client.shut()
                    client.expect_end()
                else:
                    client.reset()
        server.wait_for_access(2, "event=session")
        assert _mails(server) == []
        assert list((tmp_path / "mail" / "tmp").iterdir()) == []


def test_a_half_close_in_the_middle_of_a_command(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.greeted() as client:
        client.send(b"NOOP\r\nNOOP")
        client.shut()
        client.expect("250")
        client.expect_end()


def test_scans_and_resets_leave_no_trace(tmp_path: Path) -> None:
    """standards.md T06: a port scan is one line at most."""
    with running(tmp_path, "--store=discard:", "--max-connections=50") as server:
        server.wait_for_log("try it: .*\n")  # the last line of the start
        log = server.log
        for _ in range(200):
            server.connect().reset()

        def all_gone() -> bool:
            with server.connect() as client:
                return client.reply().startswith("220")

        until(all_gone, "no slot has leaked")
        with server.greeted() as client:
            client.deliver()
        assert server.log == log


def test_a_command_that_does_not_come_in_time(tmp_path: Path) -> None:
    """standards.md T01, T02: a deadline for the whole command, not for each octet."""
    flags = ("tests.server.apps:TimedOut", "--command-timeout=1")
    with running(tmp_path, *flags) as server, server.greeted() as silent, server.greeted() as slow:
        silent.expect("421 4.4.2 ")
        slow.socket.settimeout(0.1)
        said, began = b"", time.monotonic()
        while not said and time.monotonic() - began < 8:
            slow.send(b"N")
            with contextlib.suppress(TimeoutError):
                said = slow.socket.recv(100)
        assert said.startswith(b"421 4.4.2 ")
        silent.expect_end()
        port = silent.port
        silent.socket.close()
        until(lambda: journal.events(tmp_path, port=port, hook="closed"), "the closed hook")
        assert [event["hook"] for event in journal.events(tmp_path, port=port)] == ["timeout", "closed"]
        assert len(journal.events(tmp_path, hook="timeout")) == 2


def test_data_that_dawdle(tmp_path: Path) -> None:
    """standards.md T03: 421 4.4.2, nothing is kept."""
    flags = ("tests.server.apps:TimedOut", "--data-timeout=1", "--min-data-rate=1000000", "--store=maildir:./mail")
    with running(tmp_path, *flags) as server, server.greeted() as client:
        client.begin_data()
        client.socket.settimeout(0.05)
        said, began = b"", time.monotonic()
        while not said and time.monotonic() - began < 8:
            client.send(b"x\r\n")
            with contextlib.suppress(TimeoutError):
                said = client.socket.recv(100)
        assert said.startswith(b"421 4.4.2 ")
        assert time.monotonic() - began < 4
        assert journal.events(tmp_path, hook="data") == []
        assert _mails(server) == []
        assert list((tmp_path / "mail" / "tmp").iterdir()) == []


def test_data_that_come_at_the_minimum_rate_have_time(tmp_path: Path) -> None:
    """`data_timeout` + octets / `min_data_rate`."""
    flags = ("--store=discard:", "--data-timeout=1", "--min-data-rate=500")
    with running(tmp_path, *flags) as server, server.greeted() as client:
        client.begin_data()
        end = time.monotonic() + 3.5
        client.socket.settimeout(0.1)
        while time.monotonic() < end:
            client.send(b"x" * 98 + b"\r\n")
            with pytest.raises(TimeoutError):  # paces us, and would show a 421
                client.socket.recv(100)
        client.socket.settimeout(5)
        client.send(b".\r\n")
        client.expect("250 2.0.0 accepted")


def test_a_session_may_last_so_long_but_its_data_finish(tmp_path: Path) -> None:
    flags = ("--store=discard:", "--session-timeout=1")
    with running(tmp_path, *flags) as server, server.greeted() as busy, server.greeted() as idle:
        busy.begin_data()
        idle.expect("421 4.4.2 ")
        busy.send(b"x\r\n.\r\n")
        busy.expect("250 2.0.0 accepted")
        busy.expect("421 4.4.2 ")
        busy.expect_end()


@pytest.mark.parametrize(
    ("start", "reply"),
    [
        (b"GET / HTTP/1.1\r\n", "521 5.5.1"),
        (b"NOOP\n", "521 5.5.2"),
        (b"QUIT\r\n", "221 2.0.0"),
        (b"BOGUS\r\n" * 30, "421 4.7.0"),
    ],
)
def test_no_reset_swallows_the_last_reply(tmp_path: Path, start: bytes, reply: str) -> None:
    """standards.md S: what is unread when we close would make the kernel send a RST."""
    with running(tmp_path, "--store=discard:", "--linger-timeout=5") as server, server.greeted() as client:
        # Together: behind a QUIT that nothing follows we close at once, for then the client has nothing more to say.
        client.send(start + b"x" * 8192 + b"\r\n")
        try:
            for _ in range(20):
                client.send(b"x" * 8192 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pytest.fail("a reset, before the reply was read")
        said = client.rest().decode().splitlines()
        assert said[-1].startswith(reply)


@pytest.mark.parametrize("last_command", [b"QUIT\r\n", b"GET / HTTP/1.1\r\n"], ids=["close", "linger"])
def test_the_last_reply_and_the_end_are_one_segment(tmp_path: Path, last_command: bytes) -> None:
    """One at a time they cost twice as much."""
    close_wait = 8  # TCP's state when the other side has said that it is done
    with running(tmp_path, "--store=discard:") as server:
        for _ in range(20):
            with server.greeted() as client:
                client.send(last_command)
                assert client.socket.recv(1000).startswith(b"221" if last_command.startswith(b"QUIT") else b"521")
                state, *_ = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
                assert state == close_wait


def test_no_reset_swallows_the_421_of_a_full_server(tmp_path: Path) -> None:
    flags = ("--store=discard:", "--max-connections=1", "--linger-timeout=5")
    with running(tmp_path, *flags) as server, server.greeted(), server.connect() as client:
        client.send(b"EHLO client.example\r\n" + MESSAGE * 100)
        client.expect("421 4.3.2")
        client.expect_end()


def test_a_client_that_does_not_close_behind_our_last_reply(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", "--linger-timeout=1") as server, server.greeted() as client:
        client.send(b"NOOP\n")
        client.expect("521")
        client.expect_end()

        def closed() -> bool:
            try:
                client.send(b"x")
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        until(closed, "the server closes", 5)


def test_out_of_descriptors(tmp_path: Path) -> None:
    """standards.md T07: no busy loop, and accepting goes on by itself."""
    with running(tmp_path, "--store=discard:") as server:
        resource.prlimit(server.worker, resource.RLIMIT_NOFILE, (40, 40))
        clients = [server.connect() for _ in range(60)]
        served = [client for client in clients if _banner(client).startswith("220")]
        assert 5 < len(served) < 60
        began, used = time.monotonic(), cpu_seconds(server.worker)
        until(lambda: time.monotonic() - began > 1, "a second")
        assert cpu_seconds(server.worker) - used < 0.5
        for client in clients:
            client.socket.close()
        until(lambda: _banner(server.connect()).startswith("220"), "accepting goes on")


def test_as_many_connections_as_descriptors_allow(tmp_path: Path) -> None:
    """standards.md D: `max_connections` is less if RLIMIT_NOFILE says so; E7: full is said in SMTP."""
    arguments = f"{shlex.join(SERVE)} --store=discard: --hostname=mx.example --listen=127.0.0.1:0 --workers=1"
    with starting(tmp_path, ["sh", "-c", f"ulimit -n 64; exec {arguments}"]) as server:
        server.wait_until_ready()
        codes = {_banner(server.connect())[:9] for _ in range(100)}
        assert codes == {"220 mx.ex", "421 4.3.2"}


def _banner(client: Client) -> str:
    """What the server says first; nothing if it closes, or does not accept us."""
    client.socket.settimeout(0.3)
    try:
        return client.reply()
    except (TimeoutError, EOFError, ConnectionResetError):
        return ""
