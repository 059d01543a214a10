"""A real proxy in front of a real server, and what a proxied listener does when it is full or about to leave."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.server.callers import standing
from tests.server.client import Client
from tests.server.proxied import haproxy, proxied, v1, v2
from tests.server.running import Server, running
from tests.server.secured import issue, octets_until_the_end, shake_hands
from tests.server.waiting import until

PROXY = "127.0.0.1:0 proxy_protocol proxy_networks=127.0.0.0/8"
APP = "tests.server.callers:Callers"
CLIENT = "127.0.0.77"  # whoever it is, not the proxy


def _complaints(server: Server) -> list[str]:
    return re.findall(r"^.* (?:WARNING|ERROR|CRITICAL) .*$|^Traceback.*$", server.log, re.MULTILINE)


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2"])
def test_haproxy(tmp_path: Path, require_program: Callable[[str], str], words: str) -> None:
    with (
        running(tmp_path, APP, "--store=discard:", listen=(PROXY,)) as server,
        haproxy(tmp_path, require_program, server.host_and_port[1], words) as front,
    ):
        for count in range(1, 4):
            with Client(front, source=CLIENT) as client:
                client.greet()
                client.ask("NOOP", f"250 2.0.0 {standing(f'{CLIENT}:{client.port}', f'127.0.0.1:{front[1]}')}")
                client.deliver()
                peer = f"peer={CLIENT}:{client.port} "
                client.quit()
            assert peer in server.wait_for_access(count, "event=message")[-1]
        assert len(server.access_log) == 3
        assert _complaints(server) == []


def test_tls_through_haproxy(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    certificate = f"--tls-certfile={issue(tmp_path, trustme.CA(), 'mx.example')}"
    with (
        running(tmp_path, APP, "--store=discard:", certificate, listen=(f"{PROXY} implicit_tls",)) as server,
        haproxy(tmp_path, require_program, server.host_and_port[1], "send-proxy-v2-ssl-cn") as front,
        Client(front, source=CLIENT) as client,
    ):
        shake_hands(client)
        client.greet()
        at = standing(f"{CLIENT}:{client.port}", f"127.0.0.1:{front[1]}", "TLSv1.3")
        client.ask("NOOP", f"250 2.0.0 {at}")
        client.deliver()
        client.quit()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("option tcp-check\n    tcp-check expect rstring ^220", ""),
        ("option smtpchk EHLO check.example", "check.example"),
    ],
    ids=["banner", "smtpchk"],
)
@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2"])
def test_health_checks_of_haproxy(
    tmp_path: Path, require_program: Callable[[str], str], words: str, option: str, says: str
) -> None:
    """A check is a session that brings no mail: one line at most, with the proxy's own address, and no complaint."""
    words += " check check-send-proxy inter 50"
    with (
        running(tmp_path, APP, "--store=discard:", listen=(PROXY,)) as server,
        haproxy(tmp_path, require_program, server.host_and_port[1], words, option) as front,
    ):
        until(lambda: len(server.access_log) >= 3, "some health checks")
        with Client(front, source=CLIENT) as client:
            client.greet().deliver()
            client.quit()
        until(lambda: any(" event=message " in line for line in server.access_log), "the message")
        checks = [line for line in server.access_log if " event=message " not in line]
        for line in checks:
            assert re.search(rf" event=session id=\S+ peer=127\.0\.0\.1:\d+ helo={says} errors=0 ", line), line
        assert len(set(re.findall(r" peer=(\S+) ", "".join(checks)))) == len(checks)
        assert _complaints(server) == []


def test_a_full_server_says_so_through_haproxy(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    flags = (APP, "--store=discard:", "--max-connections=1", "--hostname=mx.example")
    with (
        running(tmp_path, *flags, listen=(PROXY,)) as server,
        haproxy(tmp_path, require_program, server.host_and_port[1], "send-proxy-v2") as front,
        Client(front, source=CLIENT) as first,
    ):
        first.greet()
        for _ in range(20):
            with Client(front, source=CLIENT) as second:
                second.expect("421 4.3.2 mx.example too busy")
                second.expect_end()
        first.deliver()
        assert f" peer={CLIENT}:" in server.wait_for_access(20, 'reply="421 4.3.2"')[-1]


@pytest.mark.parametrize("listener", [PROXY, f"{PROXY} implicit_tls", "127.0.0.1:0 implicit_tls"])
def test_the_last_place_can_be_taken(tmp_path: Path, listener: str) -> None:
    """One connection is one, in whatever room it is: it must not turn itself away."""
    certificate = f"--tls-certfile={issue(tmp_path, trustme.CA(), 'mx.example')}"

    def enter(server: Server) -> Client:
        client = proxied(server, v1("192.0.2.1") if "proxy" in listener else b"")
        if "implicit_tls" in listener:
            shake_hands(client)
        return client

    with running(tmp_path, APP, "--store=discard:", "--max-connections=2", certificate, listen=(listener,)) as server:
        with enter(server) as first, enter(server) as second:
            first.expect("220")
            second.expect("220")
            with proxied(server, v2("192.0.2.3", 3) if "proxy" in listener else b"") as third:
                said = octets_until_the_end(third.socket)
            assert said[:9] == (b"" if "implicit_tls" in listener else b"421 4.3.2")
            server.wait_for_access(1)
            first.ask("EHLO client.example", "250")
            first.deliver()

        def is_admitted() -> bool:
            try:
                with enter(server) as client:
                    return client.reply().startswith("220")
            except OSError:
                return False

        until(is_admitted, "places are free again")


def test_a_stop_while_a_header_is_awaited(tmp_path: Path) -> None:
    """What has still to become a session is told like one."""
    with running(tmp_path, APP, "--store=discard:", listen=(PROXY,)) as server, server.connect() as client:
        client.send(v1("192.0.2.1")[:9])
        with proxied(server, v1("192.0.2.2")) as other:  # accepted behind it
            other.expect("220")
        server.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        client.send(v1("192.0.2.1")[9:])
        assert client.rest().splitlines()[-1].startswith(b"421 4.3.2")
        assert server.wait() == 0


SWAKS = [
    ("1", "TCP4", "192.0.2.1", "192.0.2.2"),
    ("1", "TCP6", "2001:db8::1", "2001:db8::2"),
    ("2", "AF_INET", "192.0.2.1", "192.0.2.2"),
    ("2", "AF_INET6", "2001:db8::1", "2001:db8::2"),
]


def test_swaks(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    with running(tmp_path, APP, "--store=discard:", listen=(PROXY,)) as server:
        host, port = server.host_and_port
        for count, (version, family, source, destination) in enumerate(SWAKS, 1):
            flags = [f"--proxy-version={version}", f"--proxy-family={family}", f"--proxy-source={source}"]
            flags += ["--proxy-source-port=1234", f"--proxy-dest={destination}", "--proxy-dest-port=25"]
            command = [require_program("swaks"), "--server", host, "--port", str(port), *flags]
            command += ["--from", "me@example.com", "--to", "you@example.com", "--timeout", "10"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stdout + done.stderr
            peer = f"[{source}]:1234" if ":" in source else f"{source}:1234"
            assert f" peer={peer} " in server.wait_for_access(count, "event=message")[-1]
