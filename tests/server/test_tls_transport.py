"""Inside TLS: large messages to the octet, half-closes, clients that do not read, and what a session costs."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.server import bare_tls
from tests.server.client import Client
from tests.server.processes import memory_of
from tests.server.running import Server, running
from tests.server.secured import (
    ANYBODY,
    TLS_1_2,
    TLS_1_3,
    Pipe,
    connect_inside,
    issue,
    secure,
    shake_hands,
    trusting,
)

SUBMISSIONS = "127.0.0.1:0 implicit_tls"
MEGABYTES = 5
ENVELOPE = b"EHLO client.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n"
LETTERS = bytes(range(32, 127)) * 2
versions = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return issue(tmp_path_factory.mktemp("certificate"), trustme.CA(), "mx.example")


@pytest.fixture
def server(tmp_path: Path, certificate: str) -> Iterator[Server]:
    flags = (f"--tls-certfile={certificate}", f"--spool-dir={tmp_path}", "--spool-threshold-bytes=1M", "--binarymime")
    with running(tmp_path, *flags, listen=["127.0.0.1:0", SUBMISSIONS], workers=2) as server:
        yield server


def text(seed: int) -> bytes:
    """Lines of all lengths, many of which begin with a dot."""
    chance = random.Random(seed)
    lines = [b"Subject: large", b""]
    size = 0
    while size < MEGABYTES << 20:
        line = LETTERS[: chance.choice((0, 1, 5, 70, 150))] * chance.choice((1, 1, 6))
        lines.append(chance.choice((b"", b"", b".", b"..")) + line)
        size += len(lines[-1]) + 2
    return b"\r\n".join([*lines, b""])


def stuffed(content: bytes) -> bytes:
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def stored(server: Server) -> bytes:
    """The only message in the Maildir, without its trace fields."""
    (file,) = (server.directory / "mail" / "new").iterdir()
    octets = file.read_bytes()
    return octets[octets.index(b"Subject: large") :]


@versions
@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit"])
def test_a_large_message_by_data(server: Server, version: ssl.TLSVersion, implicit: bool) -> None:
    content, context = text(1), trusting(version=version)
    if implicit:
        client = server.connect(at=1)
        shake_hands(client, context)
        client.greet()
    else:
        client = secure(server, context)
    client.begin_data()
    client.send(stuffed(content) + b"NOOP\r\n")
    client.expect("250 2.0.0 accepted")
    client.expect("250 2.0.0 ok")
    assert stored(server) == content
    client.quit()


@versions
def test_a_large_message_by_bdat(server: Server, version: ssl.TLSVersion) -> None:
    chance = random.Random(2)
    content = b"Subject: large\r\n\r\n" + chance.randbytes(MEGABYTES << 20)
    with secure(server, trusting(version=version)) as client:
        client.ask("MAIL FROM:<a@a.example> BODY=BINARYMIME", "250")
        client.ask("RCPT TO:<b@b.example>", "250")
        rest, flight, chunks = content, b"", 0
        while rest:
            size = chance.choice((0, 1, 100, 16384, 70000, 1000000))
            chunk, rest = rest[:size], rest[size:]
            flight += b"BDAT %d\r\n" % len(chunk) + chunk
            chunks += 1
        client.send(flight + b"BDAT 0 LAST\r\nNOOP\r\n")
        for _ in range(chunks):
            client.expect("250 2.0.0 ")
        client.expect("250 2.0.0 accepted")
        client.expect("250 2.0.0 ok")
        assert stored(server) == content


def test_large_messages_at_the_same_time(tmp_path: Path, certificate: str) -> None:
    """All share one buffer for what is to be decrypted."""
    contents = {f"{number}": text(number) for number in range(8)}
    failures: list[BaseException] = []
    with running(tmp_path, f"--tls-certfile={certificate}", listen=[SUBMISSIONS]) as server:
        clients = [connect_inside(server).greet() for _ in contents]

        def deliver(client: Client, name: str) -> None:
            try:
                client.begin_data(recipient=f"{name}@b.example")
                client.send(stuffed(contents[name]))
                client.expect("250 2.0.0 accepted")
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=deliver, args=pair) for pair in zip(clients, contents, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
    files = list((tmp_path / "mail" / "new").iterdir())
    found = [file.read_bytes().partition(b"Subject: large")[2] for file in files]
    assert sorted(b"Subject: large" + each for each in found) == sorted(contents.values())


@pytest.mark.parametrize("way", ["close_notify", "FIN"])
def test_a_half_close_behind_a_message(server: Server, way: str) -> None:
    """standards.md I: what was received completely is answered, then the server closes."""
    with server.connect(at=1) as client:
        pipe = Pipe(client.socket)
        pipe.shake_hands()
        pipe.send(ENVELOPE + b"Subject: large\r\n.\r\n")
        if way == "close_notify":
            pipe.say_goodbye()
        else:
            client.shut()
        replies = pipe.rest()
        assert [line[:3] for line in replies.splitlines() if line[3:4] == b" "] == [
            b"220",
            *[b"250"] * 3,
            b"354",
            b"250",
        ]
        assert stored(server) == b"Subject: large\r\n"


@pytest.mark.parametrize("way", ["close_notify", "FIN", "RST"])
def test_an_end_inside_data(server: Server, way: str) -> None:
    with server.connect(at=1) as client:
        pipe = Pipe(client.socket)
        pipe.shake_hands()
        pipe.send(ENVELOPE + b"x\r\n.")
        if way == "RST":
            client.reset()
        else:
            pipe.say_goodbye() if way == "close_notify" else client.shut()
            assert pipe.rest().splitlines()[-1].startswith(b"354")
    server.wait_for_access(1, "event=session")
    assert list((server.directory / "mail" / "new").iterdir()) == []


def test_a_damaged_record_ends_the_session(server: Server) -> None:
    """Nothing behind it runs, and there is no reply in clear text."""
    with server.connect(at=1) as client:
        pipe = Pipe(client.socket)
        pipe.shake_hands()
        sound, damaged = pipe.record(b"EHLO client.example\r\n"), bytearray(pipe.record(b"QUIT\r\n"))
        damaged[-1] ^= 1
        client.send(sound + bytes(damaged))
        with pytest.raises(ssl.SSLError):
            pipe.rest()
    (line,) = server.wait_for_access(1, "event=session")
    assert " helo=client.example " in line
    assert "ERROR" not in server.log


def test_a_client_that_never_reads(tmp_path: Path, certificate: str) -> None:
    """standards.md T04, inside TLS."""
    flags = ("--store=discard:", "--write-timeout=1", "--max-junk-commands=2000000000")
    with (
        running(tmp_path, *flags, f"--tls-certfile={certificate}", listen=[SUBMISSIONS]) as server,
        server.connect(receive_buffer=4096) as client,
        connect_inside(server) as other,
    ):
        other.greet()
        before = memory_of(server.worker)
        pipe = Pipe(client.socket)
        pipe.shake_hands()
        client.socket.setblocking(False)
        sent, closed, end, flight = 0, False, time.monotonic() + 15, memoryview(b"")
        while not closed and time.monotonic() < end:
            flight = flight or memoryview(pipe.record(b"HELP\r\n" * 2000))
            try:
                done = client.socket.send(flight)
                sent, flight = sent + done, flight[done:]
            except BlockingIOError:
                other.ask("NOOP", "250")  # it does not hold up the others; and it lets the server's seconds pass
            except (ConnectionResetError, BrokenPipeError):
                closed = True
        assert closed
        assert sent < 64 << 20
        # The allocator keeps up to 12 MB of the first such client, and no more of further ones.
        assert memory_of(server.worker) - before < 20 << 20
        server.wait_for_access(1, "event=session")


def test_a_client_that_reads_late_gets_every_reply(tmp_path: Path, certificate: str) -> None:
    flags = ("--store=discard:", "--max-junk-commands=2000000000", f"--tls-certfile={certificate}")
    count = 60000
    with (
        running(tmp_path, *flags, listen=[SUBMISSIONS]) as server,
        server.connect(receive_buffer=4096) as client,
    ):
        pipe = Pipe(client.socket)
        pipe.shake_hands()
        ciphertext = memoryview(pipe.record(b"EHLO client.example\r\n" + b"NOOP\r\n" * count + b"QUIT\r\n"))
        replies = b""
        client.socket.setblocking(False)
        while ciphertext:
            try:
                ciphertext = ciphertext[client.socket.send(ciphertext) :]
            except BlockingIOError:
                client.socket.settimeout(8)
                replies += pipe.receive()
                client.socket.setblocking(False)
        client.socket.settimeout(8)
        replies += pipe.rest()
        assert replies.count(b"250 2.0.0 ok\r\n") == count
        assert replies.splitlines()[-1].startswith(b"221 ")


def test_idle_sessions_cost_little(tmp_path: Path, certificate: str) -> None:
    """architecture.md 3: 4 KB a session, and what OpenSSL needs; as much again is for chance."""
    with running(tmp_path, "--store=discard:", f"--tls-certfile={certificate}", listen=[SUBMISSIONS]) as server:
        for _ in range(3):
            with connect_inside(server).greet() as client:
                client.deliver()
        before = memory_of(server.worker)
        for _ in range(200):
            connect_inside(server, ANYBODY).greet()
        cost = (memory_of(server.worker) - before) / 200
    assert cost < bare_tls.octets_of_one(certificate, 200) + 8192
