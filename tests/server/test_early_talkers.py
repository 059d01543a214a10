"""Clients that talk before the banner (standards.md B, I): `early_talker` and `greet_wait`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.server.client import Client
from tests.server.kernel import is_accepted
from tests.server.proxied import proxied, v1
from tests.server.running import Server, running
from tests.server.secured import issue, shake_hands
from tests.server.waiting import until

WAIT = 0.4  # seconds
EARLY = 0.05  # seconds that the clocks of two processes may differ, and a timer's resolution
LISTENERS = (
    "127.0.0.1:0 early_talker=reject",
    f"127.0.0.1:0 early_talker=reject greet_wait={WAIT}",
    f"127.0.0.1:0 early_talker=ignore greet_wait={WAIT}",
    "127.0.0.1:0 early_talker=reject implicit_tls",
    f"127.0.0.1:0 early_talker=reject implicit_tls greet_wait={WAIT}",
    f"127.0.0.1:0 early_talker=ignore implicit_tls greet_wait={WAIT}",
    "127.0.0.1:0 early_talker=reject proxy_protocol proxy_networks=127.0.0.0/8",
    f"127.0.0.1:0 early_talker=ignore proxy_protocol proxy_networks=127.0.0.0/8 greet_wait={WAIT}",
)
FLIGHT = b"EHLO x.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"
EVERYWHERE = pytest.mark.parametrize("at", range(len(LISTENERS)), ids=[text[12:] for text in LISTENERS])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("talkers")
    certificate = f"--tls-certfile={issue(directory, trustme.CA(), 'mx.example')}"
    flags = ("--store=discard:", "--hostname=mx.example", certificate)
    with running(directory, *flags, listen=LISTENERS) as server:
        yield server


def _enter(server: Server, at: int, early: bytes) -> Client:
    """A client that says something as soon as it can, for certain before the banner."""
    if "proxy" in LISTENERS[at]:
        return proxied(server, v1("192.0.2.1") + early, at)
    client = server.connect(at=at)
    if "implicit_tls" in LISTENERS[at]:
        shake_hands(client)
    client.send(early)
    return client


@EVERYWHERE
def test_who_waits_is_welcome(server: Server, at: int) -> None:
    began = time.monotonic()
    with _enter(server, at, b"") as client:
        client.expect("220 mx.example ESMTP")
        waited = time.monotonic() - began
        assert waited >= (WAIT if "greet_wait" in LISTENERS[at] else 0) - EARLY
        client.ask("EHLO client.example", "250")
        client.deliver()
        client.quit()


@EVERYWHERE
@pytest.mark.parametrize("early", [FLIGHT, b"E"], ids=["flight", "octet"])
def test_who_does_not_wait(server: Server, at: int, early: bytes) -> None:
    rejected = "reject" in LISTENERS[at]
    began = time.monotonic()
    with _enter(server, at, early) as client:
        local = client.port
        if rejected:
            client.expect("554 5.5.0 client talked before the banner, closing connection")
        else:
            client.expect("220 mx.example ESMTP")
        assert time.monotonic() - began >= (WAIT if "greet_wait" in LISTENERS[at] else 0) - EARLY
        if not rejected:
            client.send(FLIGHT[len(early) :])
            for start in ("250-mx.example", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0 accepted", "221"):
                client.expect(start)
        client.expect_end()
    if rejected and "proxy" not in LISTENERS[at]:
        lines = until(lambda: [line for line in server.access_log if f":{local} " in line], "the session's line")
        assert len(lines) == 1
        assert " event=session " in lines[0]
        assert ' reply="554 5.5.0"' in lines[0]


@pytest.mark.parametrize("at", [1, 2])
def test_who_leaves_before_the_banner(server: Server, at: int) -> None:
    with server.connect(at=at) as half:
        half.shut()  # a FIN is no talk
        half.expect("220")
        half.expect_end()
    with server.connect(at=at) as gone:
        port = gone.port
        until(lambda: is_accepted(gone), "the server knows of it")
        gone.reset()
    (line,) = until(lambda: [line for line in server.access_log if f":{port} " in line], "the session's line")
    assert ' end="closed by client"' in line
    assert "ERROR" not in server.log


def test_a_stop_before_the_banner(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", "--greet-wait=0.5") as server, server.connect() as client:
        with server.connect() as behind:  # by then the first one was accepted
            behind.expect("220")
        client.expect("220")
        with server.connect() as late, server.connect() as last:
            until(lambda: is_accepted(last), "it waits for its banner")
            server.send_signal(signal.SIGTERM)
            assert late.rest().splitlines()[-1].startswith(b"421 4.3.2")
        assert server.wait() == 0
