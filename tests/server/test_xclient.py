"""XCLIENT at a real server (standards.md Q, U17; Postfix XCLIENT_README): who may use it, and what it changes."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Iterator

import pytest
import trustme

from tests.server import journal
from tests.server.callers import PASSWORD, UNWANTED, standing
from tests.server.client import Client
from tests.server.running import Server, running
from tests.server.secured import issue, start_tls
from tests.server.waiting import until

STRANGER = "127.0.0.2"
KEYWORD = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
OPEN, GUARDED, LMTP = range(3)
LISTENER = "127.0.0.1:0 xclient_networks=127.0.0.1/32"
LISTENERS = (LISTENER, f"{LISTENER} require_auth", f"{LISTENER} lmtp")
FLAGS = (
    "tests.server.callers:Callers",
    "--store=discard:",
    "--hostname=mx.example",
    "--no-auth-requires-tls",
    "--auth-mechanisms=PLAIN",
    "--auth-failures-per-client=2",
    "--auth-failure-delay=0",
    "--exempt-networks=none",
    "--max-connections-per-client=3",
)
RIGHT, WRONG = (
    "AUTH PLAIN " + base64.b64encode(f"\0ann\0{password}".encode()).decode() for password in (PASSWORD, "guess")
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("xclient")
    certificate = f"--tls-certfile={issue(directory, trustme.CA(), 'mx.example')}"
    with running(directory, *FLAGS, certificate, listen=LISTENERS) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Client]:
    """A client that may XCLIENT, and has said EHLO."""
    with server.connect() as client:
        yield client.greet("proxy.example")


def _line(server: Server, *words: str) -> str:
    """The one line of the access log that has all these words."""

    def look() -> list[str]:
        return [line for line in server.access_log if all(f" {word}" in line for word in words)]

    (line,) = until(look, f"{words} in the access log")
    return line


def _socket(server: Server, client: Client) -> tuple[str, str]:
    """The addresses of both ends."""
    return f"127.0.0.1:{client.port}", f"127.0.0.1:{server.host_and_port[1]}"


def _is(client: Client, peer: str, local: str, tls: str = "none", user: str = "nobody") -> None:
    client.ask("NOOP", f"250 2.0.0 {standing(peer, local, tls, user)}")


# -- who may ----------------------------------------------------------------------------------------------------------


def test_a_stranger_may_not(server: Server) -> None:
    with server.connect(source=STRANGER) as client:
        client.expect("220")
        client.ask("XCLIENT ADDR=192.0.2.1", "550 5.7.0 not authorized")
        assert "XCLIENT" not in client.ask("EHLO client.example", "250")
        for argument in ("ADDR=192.0.2.1 LOGIN=root", "", "bogus"):
            client.ask(f"XCLIENT {argument}", "550 5.7.0 not authorized")
        peer = f"{STRANGER}:{client.port}"
        _is(client, peer, _socket(server, client)[1])
        client.ask("MAIL FROM:<a@a.example>", "250")
        client.ask("XCLIENT ADDR=192.0.2.1", "550 5.7.0 not authorized")
        client.ask("RCPT TO:<b@b.example>", "250")
        client.ask("RSET", "250")
    line = _line(server, "event=refused", f"peer={peer}", 'command="XCLIENT ADDR=192.0.2.1 LOGIN=root"')
    assert line.endswith(' reply="550 5.7.0 not authorized"')


def test_the_keyword_is_offered_to_who_may(server: Server) -> None:
    with server.connect() as client:
        client.expect("220")
        assert KEYWORD in client.ask("EHLO proxy.example", "250").replace("250-", "").replace("250 ", "").split("\n")


def test_before_ehlo_is_too_early(server: Server) -> None:
    with server.connect() as client:
        client.expect("220")
        client.ask("XCLIENT ADDR=192.0.2.1", "503 5.5.1")
        _is(client, *_socket(server, client))


def test_in_a_transaction_is_too_late(server: Server, proxy: Client) -> None:
    for command, reply in (("MAIL FROM:<a@a.example>", "250"), ("RCPT TO:<b@b.example>", "250")):
        proxy.ask(command, reply)
        proxy.ask("XCLIENT ADDR=192.0.2.1", "503 5.5.1")
        _is(proxy, *_socket(server, proxy))
    proxy.ask("DATA", "354")
    proxy.send(b"x\r\n.\r\n")
    proxy.expect("250 2.0.0 accepted")
    proxy.ask("XCLIENT ADDR=192.0.2.1", "220")


@pytest.mark.parametrize(
    "argument",
    [
        "",
        " ",
        "ADDR",
        "ADDR=",
        "ADDR=192.0.2.1 ADDR=192.0.2.2",
        "ADDR=192.0.2.256",
        "ADDR=2001:db8::1",
        "ADDR=client.example",
        "PORT=65536",
        "PROTO=LMTP",
        "NAME=a+0Ab",
        "NAME=a+0",
        "LOGIN=root+00",
        "FOO=bar",
        "ADDR=192.0.2.1 REVERSE_NAME=x",
    ],
)
def test_what_it_does_not_understand_changes_nothing(server: Server, proxy: Client, argument: str) -> None:
    proxy.ask(f"XCLIENT {argument}", "501 5.5.4")
    _is(proxy, *_socket(server, proxy))
    proxy.ask("MAIL FROM:<a@a.example>", "250")


# -- what changes -----------------------------------------------------------------------------------------------------


def test_everything_that_it_can_say(server: Server, proxy: Client) -> None:
    said = "NAME=c.example ADDR=192.0.2.1 PORT=1234 PROTO=ESMTP HELO=c LOGIN=tim+40c DESTADDR=198.51.100.1 DESTPORT=587"
    assert proxy.ask(f"XCLIENT {said}", "220") == "220 mx.example ESMTP"
    _is(proxy, "192.0.2.1:1234", "198.51.100.1:587", user="tim@c")
    proxy.ask("MAIL FROM:<a@a.example>", "503 5.5.1 ")  # it is somebody else now, who has not said EHLO
    proxy.ask("EHLO client.example", "250")
    proxy.deliver()
    line = _line(server, "event=message", "peer=192.0.2.1:1234", "helo=client.example", "user=tim@c")
    assert " proto=ESMTPA " in line


@pytest.mark.parametrize(
    ("said", "peer", "local"),
    [
        ("ADDR=192.0.2.1", "192.0.2.1:0", ""),
        ("addr=ipv6:2001:DB8::1 port=25", "[2001:db8::1]:25", ""),
        ("PORT=9", "127.0.0.1:9", ""),
        ("DESTADDR=198.51.100.1", "", "198.51.100.1:0"),
        ("DESTPORT=587", "", "127.0.0.1:587"),
        ("ADDR=[UNAVAILABLE] PORT=[TEMPUNAVAIL]", "", ""),
        ("ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL] LOGIN=[UNAVAILABLE] DESTADDR=[UNAVAILABLE]", "", ""),
        ("NAME=client.example HELO=there PROTO=SMTP", "", ""),
    ],
)
def test_what_it_does_not_say_stays(server: Server, proxy: Client, said: str, peer: str, local: str) -> None:
    own_peer, own_local = _socket(server, proxy)
    proxy.ask(f"XCLIENT {said}", "220")
    _is(proxy, peer or own_peer, local or own_local)


def test_one_behind_the_other(server: Server, proxy: Client) -> None:
    proxy.ask("XCLIENT ADDR=192.0.2.1 PORT=1", "220")
    proxy.ask("XCLIENT ADDR=192.0.2.2", "503 5.5.1")
    proxy.ask("EHLO proxy.example", "250")
    proxy.ask("XCLIENT PORT=2 LOGIN=tim", "220")
    _is(proxy, "192.0.2.1:2", _socket(server, proxy)[1], user="tim")
    proxy.ask("EHLO proxy.example", "250")
    proxy.ask("XCLIENT PORT=3", "220")
    _is(proxy, "192.0.2.1:3", _socket(server, proxy)[1])


def test_octets_behind_it_are_kept(server: Server, proxy: Client) -> None:
    proxy.send(
        b"XCLIENT ADDR=192.0.2.1\r\nEHLO client.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"
        b"DATA\r\nx\r\n.\r\nQUIT\r\n"
    )
    for start in ("220", "250-mx.example", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0 accepted", "221"):
        proxy.expect(start)
    proxy.expect_end()


def test_the_welcome_hook_is_asked_again(server: Server, proxy: Client) -> None:
    proxy.ask("XCLIENT ADDR=192.0.2.44 PORT=44", "220")
    assert journal.events(server.directory, event="welcome", told=True, peer="192.0.2.44:44")
    proxy.ask("EHLO proxy.example", "250")
    proxy.ask(f"XCLIENT ADDR={UNWANTED} PORT=66", "554 5.7.1 rejected by policy")
    for command in ("EHLO proxy.example", "NOOP", "MAIL FROM:<a@a.example>", "XCLIENT ADDR=192.0.2.1"):
        proxy.ask(command, "503 5.5.1 ")
    proxy.quit()
    assert ' end="quit"' in _line(server, "event=session", f"peer={UNWANTED}:66")


def test_tls_stays(server: Server, proxy: Client) -> None:
    start_tls(proxy)
    proxy.ask("EHLO proxy.example", "250")
    proxy.ask("XCLIENT ADDR=192.0.2.1", "220")
    _is(proxy, "192.0.2.1:0", _socket(server, proxy)[1], "TLSv1.3")
    assert "STARTTLS" not in proxy.ask("EHLO client.example", "250")
    proxy.ask("STARTTLS", "503 5.5.1")


def test_what_it_said_is_forgotten_by_starttls(server: Server, proxy: Client) -> None:
    """RFC 3207 4.2: what was known before TLS may not be true; the address is the connection's, as told."""
    proxy.ask("XCLIENT ADDR=192.0.2.1 LOGIN=tim", "220")
    proxy.ask("EHLO client.example", "250")
    start_tls(proxy)
    _is(proxy, "192.0.2.1:0", _socket(server, proxy)[1], "TLSv1.3")


# -- login ------------------------------------------------------------------------------------------------------------


def test_the_login_is_forgotten_unless_it_names_one(server: Server, proxy: Client) -> None:
    """standards.md U17."""
    peer, local = _socket(server, proxy)
    proxy.ask(RIGHT, "235")
    _is(proxy, peer, local, user="ann")
    proxy.ask("XCLIENT ADDR=192.0.2.1", "220")
    _is(proxy, "192.0.2.1:0", local)
    proxy.ask("EHLO client.example", "250")
    proxy.ask(RIGHT, "235")
    proxy.ask("XCLIENT LOGIN=[UNAVAILABLE]", "220")
    _is(proxy, "192.0.2.1:0", local)


def test_a_login_that_it_names_is_one(server: Server) -> None:
    with server.connect(at=GUARDED) as client:
        client.greet().ask("MAIL FROM:<a@a.example>", "530 5.7.0 authentication required")
        client.ask("XCLIENT LOGIN=tim", "220")
        client.ask("EHLO client.example", "250")
        client.ask(RIGHT, "503 5.5.1")
        client.ask("MAIL FROM:<a@a.example>", "250")
        client.ask("RSET", "250")
        client.ask("XCLIENT ADDR=192.0.2.1", "220")
        client.ask("EHLO client.example", "250")
        client.ask("MAIL FROM:<a@a.example>", "530 5.7.0 authentication required")


def test_failed_logins_are_those_of_whom_it_names(server: Server) -> None:
    """Or everybody behind the proxy would be shut out by one."""

    def tries(address: str) -> str:
        with server.connect() as client:
            client.greet().ask(f"XCLIENT ADDR={address}", "220")
            client.ask("EHLO client.example", "250")
            return client.ask(WRONG, "")[:9]

    assert [tries("192.0.2.50") for _ in range(3)] == ["535 5.7.8", "535 5.7.8", "454 4.7.0"]
    assert tries("192.0.2.51") == "535 5.7.8"


def test_a_proxy_is_not_one_client(server: Server) -> None:
    """`max_connections_per_client` is 3 here, and nobody is exempt."""
    proxies = [server.greeted() for _ in range(5)]
    strangers = [server.connect(source=STRANGER) for _ in range(4)]
    assert [client.reply()[:9] for client in strangers] == ["220 mx.ex"] * 3 + ["421 4.7.0"]
    for client in (*proxies, *strangers):
        client.socket.close()


def test_lmtp(server: Server) -> None:
    with server.connect(at=LMTP) as client:
        client.expect("220")
        assert KEYWORD in client.ask("LHLO proxy.example", "250")
        client.ask("XCLIENT ADDR=192.0.2.1", "220")
        client.ask("EHLO client.example", "500 5.5.1")
        client.ask("LHLO client.example", "250")
        client.deliver()


def test_swaks(server: Server, require_program: Callable[[str], str]) -> None:
    host, port = server.host_and_port
    command = [require_program("swaks"), "--server", host, "--port", str(port), "--timeout", "10"]
    command += ["--from", "me@example.com", "--to", "you@example.com", "--ehlo", "swaks.example"]
    command += ["--xclient-addr", "IPV6:2001:db8::9", "--xclient-port", "9", "--xclient-name", "nine.example"]
    command += ["--xclient-login", "tim tester", "--xclient-helo", "nine", "--xclient-proto", "ESMTP"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ' user="tim tester"' in _line(server, "event=message", "peer=[2001:db8::9]:9", "helo=swaks.example")
