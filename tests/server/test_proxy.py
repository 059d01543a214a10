"""The PROXY protocol at a real server (standards.md P, T23, U20, U21): who is believed, and what others get."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.server import journal
from tests.server.callers import UNWANTED, standing
from tests.server.client import Client
from tests.server.proxied import LOCAL, SIGNATURE, TO, TO_IPV6, UNKNOWN, proxied, v1, v2
from tests.server.running import Server, running
from tests.server.secured import ANYBODY, issue, octets_until_the_end, shake_hands
from tests.server.waiting import until

PROXY = "127.0.0.1:0 proxy_protocol proxy_networks=127.0.0.0/8"
CLEAR, TLS, LMTP, UNLISTED, HASTY, TRUSTING, ORDINARY, ONLY_ONE = range(8)
LISTENERS = (
    f"{PROXY} xclient_networks=127.0.0.1,192.0.2.7",
    f"{PROXY} implicit_tls",
    f"{PROXY} lmtp",
    "127.0.0.1:0 proxy_protocol proxy_networks=192.0.2.0/24,10.0.0.0/8",
    f"{PROXY} proxy_timeout=1",
    f"{PROXY} proxy_trust_loopback xclient_networks=127.0.0.1 max_connections_per_client=1",
    "127.0.0.1:0",
    f"{PROXY} max_connections_per_client=1",
)
MESSAGE = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("proxy")
    certificate = f"--tls-certfile={issue(directory, trustme.CA(), 'mx.example')}"
    flags = ("tests.server.callers:Callers", "--store=discard:", certificate, "--hostname=mx.example")
    with running(directory, *flags, listen=LISTENERS) as server:
        yield server


def _line(server: Server, *words: str) -> str:
    """The one line of the access log that has all these words."""

    def look() -> list[str]:
        return [line for line in server.access_log if all(f" {word}" in line for word in words)]

    (line,) = until(look, f"{words} in the access log")
    return line


def _is_at(client: Client, peer: str, local: str, tls: str = "none") -> None:
    """The banner, and whom the server believes to talk to."""
    client.expect("220 mx.example ESMTP")
    client.ask("NOOP", f"250 2.0.0 {standing(peer, local, tls)}")


# -- headers that are believed ----------------------------------------------------------------------------------------

HEADERS = [
    (v1("192.0.2.1"), "192.0.2.1:1234", f"{TO}:25"),
    (v2("192.0.2.1"), "192.0.2.1:1234", f"{TO}:25"),
    (v1("2001:DB8::1"), "[2001:db8::1]:1234", f"[{TO_IPV6}]:25"),
    (v2("2001:db8::1"), "[2001:db8::1]:1234", f"[{TO_IPV6}]:25"),
]


@pytest.mark.parametrize(("header", "peer", "local"), HEADERS)
def test_handler_and_log_see_who_the_header_names(server: Server, header: bytes, peer: str, local: str) -> None:
    with proxied(server, header) as client:
        _is_at(client, peer, local)
        client.ask("EHLO whole.example", "250")
        client.deliver()
        client.quit()
    assert f" peer={peer} " in _line(server, "event=message", f"peer={peer}", "helo=whole.example")


@pytest.mark.parametrize(("header", "peer", "local"), HEADERS)
def test_a_header_octet_by_octet(server: Server, header: bytes, peer: str, local: str) -> None:
    with server.connect() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in header:
            client.send(bytes([octet]))
        _is_at(client, peer, local)


@pytest.mark.parametrize("header", [v1("192.0.2.3"), v2("192.0.2.3"), LOCAL, UNKNOWN])
@pytest.mark.parametrize("behind", [0, 7, 1000])
def test_smtp_in_the_segment_of_the_header(server: Server, header: bytes, behind: int) -> None:
    """What follows the header is SMTP, no octet lost, wherever it is cut."""
    octets = header + b"EHLO joined.example\r\n" + MESSAGE + b"QUIT\r\n"
    with server.connect() as client:
        client.send(octets[: len(header) + behind])
        client.send(octets[len(header) + behind :])
        for start in ("220", "250-mx.example", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0 accepted", "221 2.0.0"):
            client.expect(start)
        client.expect_end()


@pytest.mark.parametrize(
    "header", [LOCAL, UNKNOWN, b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", LOCAL[:-2] + b"\0\x03abc"]
)
def test_local_and_unknown_keep_the_address_of_the_socket(server: Server, header: bytes) -> None:
    with proxied(server, header) as client:
        _is_at(client, f"127.0.0.1:{client.port}", f"127.0.0.1:{server.addresses[CLEAR][1]}")
        client.ask("EHLO kept.example", "250")
        peer = f"peer=127.0.0.1:{client.port}"
        client.quit()
    assert ' end="quit"' in _line(server, "event=session", peer)


def test_the_welcome_hook_judges_whom_the_header_names(server: Server) -> None:
    with proxied(server, v2(UNWANTED, 6666)) as client:
        client.expect("554 5.7.1 rejected by policy")
        client.ask("EHLO x.example", "503")
        client.ask("QUIT", "221")
    _line(server, "event=refused", f"peer={UNWANTED}:6666", 'command="" reply="554 5.7.1')


def test_a_second_header_is_an_unknown_command(server: Server) -> None:
    with proxied(server, v1("192.0.2.1") * 2) as client:
        client.expect("220")
        client.expect("500 5.5.2 ")
        client.ask("NOOP", f"250 2.0.0 {standing('192.0.2.1:1234', f'{TO}:25')}")


def test_a_header_means_nothing_to_an_ordinary_listener(server: Server) -> None:
    """standards.md R: a PROXY line is an unknown command there, and never honoured."""
    local = f"127.0.0.1:{server.addresses[ORDINARY][1]}"
    with proxied(server, v1("192.0.2.1"), ORDINARY) as client:
        client.expect("220")
        client.expect("500 5.5.2 ")
        client.ask("NOOP", f"250 2.0.0 {standing(f'127.0.0.1:{client.port}', local)}")
    with proxied(server, v2("192.0.2.1"), ORDINARY) as client:
        client.expect("220")
        for _ in SIGNATURE.split(b"\r\n")[:-1]:
            client.expect("500 5.5.2 ")
        client.expect("521 5.5.2 ")
        client.expect_end()


# -- what everybody else gets -----------------------------------------------------------------------------------------

BLOCK = b"\xc0\0\2\1\xc6\x33\x64\1\4\xd2\0\x19"
HEAD = SIGNATURE + b"\x21\x11"
NO_HEADERS = [
    (b"EHLO client.example\r\n" + MESSAGE, "neither a PROXY line nor the signature of version 2"),
    (b"\x16\x03\x01\x02\x00\x01", "neither a PROXY line nor the signature of version 2"),
    (b"GET / HTTP/1.1\r\n\r\n", "neither a PROXY line nor the signature of version 2"),
    (b"x", "neither a PROXY line nor the signature of version 2"),
    (b"proxy TCP4 192.0.2.1 198.51.100.1 1 25\r\n", "neither a PROXY line nor the signature of version 2"),
    (b"POST / HTTP/1.1\r\n", "neither PROXY TCP4 nor PROXY TCP6 nor PROXY UNKNOWN"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 25\n", "not a port from 0 to 65535"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536", "not a port from 0 to 65535"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 01", "not a port from 0 to 65535"),
    (b"PROXY TCP4 2001:", "not an IPv4 address"),
    (b"PROXY TCP4  192.0.2.1", "not an IPv4 address"),
    (b"PROXY TCP6 192.0.2.1 198.51.100.1 1 25\r\n", "not an IPv6 address"),
    (b"PROXY UNKNOWN" + b" " * 95, "a line of more than 107 octets"),
    (b"PROXY UNKNOWN\rEHLO", "a CR without its LF"),
    (SIGNATURE + b"\x11", "not version 2, or neither LOCAL nor PROXY"),
    (SIGNATURE + b"\x22", "not version 2, or neither LOCAL nor PROXY"),
    (SIGNATURE + b"\x21\x12", "neither TCP over IPv4 or IPv6 nor UNSPEC nor UNIX"),
    (HEAD + b"\0\x0b", "too short for the addresses of its family"),
    (HEAD + b"\x10\x01", "more than 4096 octets of addresses and TLVs"),
    (HEAD + b"\0\x10" + BLOCK + b"\x04\0\x02a", "a TLV runs over the end of the header"),  # U21
]


@pytest.mark.parametrize("at", [CLEAR, TLS])
def test_what_is_no_header_is_closed_without_a_word(server: Server, at: int) -> None:
    """At the first octet that cannot belong to one: `proxy_timeout` would leave another line in the log."""
    ends = {}
    for octets, reason in NO_HEADERS:
        with proxied(server, octets, at) as client:
            ends[f"peer=127.0.0.1:{client.port}"] = reason
            assert octets_until_the_end(client.socket) == b"", octets
    for peer, reason in ends.items():
        assert f' event=turned-away {peer} reason="no PROXY header: {reason}' in _line(server, peer)


def test_who_is_not_listed_is_closed_without_a_word(server: Server) -> None:
    for octets in (b"", v1("192.0.2.1"), LOCAL):
        with proxied(server, octets, UNLISTED) as client:
            assert octets_until_the_end(client.socket) == b""
            line = _line(server, f"peer=127.0.0.1:{client.port}")
            assert " event=turned-away " in line
            assert line.endswith(' reason="proxy_networks does not name it"')


def test_a_header_that_does_not_come_in_time(server: Server) -> None:
    """standards.md T23: one deadline for the header, not one for each octet."""
    silent = [proxied(server, octets, HASTY) for octets in (b"", b"PROXY TCP4 192.0.2.1 ", SIGNATURE[:5])]
    with server.connect(at=HASTY) as slow:
        slow.socket.settimeout(0.1)
        _talk_until_closed(slow, b"PROXY UNKNOWN ".ljust(105))
        for client in (slow, *silent):
            client.socket.settimeout(5)
            assert octets_until_the_end(client.socket) == b""
            assert _line(server, f"peer=127.0.0.1:{client.port}").endswith(' reason="no PROXY header in time"')


def _talk_until_closed(client: Client, octets: bytes) -> None:
    """One octet after the other, ten a second."""
    for octet in octets:
        try:
            client.send(bytes([octet]))
            client.line()
        except TimeoutError:  # it paces us
            continue
        except (EOFError, ConnectionError):
            return
    raise AssertionError("the server has waited for all of it")


def test_a_proxy_that_goes_before_its_header_is_no_event(server: Server) -> None:
    """A load balancer that only looks whether the port is open, every two seconds."""
    log = server.log
    ports = []
    for octets in (b"", b"PROXY TCP4"):
        for end in (Client.shut, Client.reset):
            with proxied(server, octets) as client:
                ports.append(client.port)
                end(client)
                if end is Client.shut:
                    client.expect_end()
    with proxied(server, v1("192.0.2.99", 9)) as client:
        client.expect("220")
        client.ask("QUIT", "221")
    _line(server, "peer=192.0.2.99:9")
    assert not re.search(rf"127\.0\.0\.1:({'|'.join(map(str, ports))}) ", "\n".join(server.access_log))
    assert server.log == log


# -- together with TLS and LMTP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [v1("192.0.2.4"), v2("192.0.2.4")])
@pytest.mark.parametrize("joined", [False, True])
def test_implicit_tls_behind_the_header(server: Server, header: bytes, joined: bool) -> None:
    with server.connect(at=TLS) as client:
        # With the cork in, the header leaves in one segment with the ClientHello.
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, joined)
        client.send(header)
        shake_hands(client, ANYBODY)
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, False)
        _is_at(client, "192.0.2.4:1234", f"{TO}:25", "TLSv1.3")
        client.ask("EHLO tls.example", "250")
        client.deliver()
        client.quit()


def test_clear_text_behind_the_header_where_tls_comes_first(server: Server) -> None:
    """standards.md U18: no reply in clear."""
    with proxied(server, v1("192.0.2.5", 5) + b"EHLO client.example\r\n", TLS) as client:
        assert not re.search(rb"\d{3}[ -]", octets_until_the_end(client.socket))
    assert ' event=turned-away peer=192.0.2.5:5 reason="TLS handshake: ' in _line(server, "peer=192.0.2.5:5")


def test_tls_in_front_of_the_header_is_none(server: Server) -> None:
    with server.connect(at=TLS) as client, pytest.raises((ssl.SSLError, ConnectionResetError)):
        shake_hands(client, ANYBODY)


def test_lmtp_behind_the_header(server: Server) -> None:
    with proxied(server, v2("192.0.2.6") + b"LHLO client.example\r\n", LMTP) as client:
        client.expect("220")
        client.expect("250-mx.example")
        client.ask("EHLO client.example", "500 5.5.1")
        client.deliver()
        client.ask("NOOP", f"250 2.0.0 {standing('192.0.2.6:1234', f'{TO}:25')}")


# -- whom a header is worth trusting ----------------------------------------------------------------------------------

XCLIENT = "XCLIENT ADDR=192.0.2.200"


def _may_xclient(server: Server, header: bytes, at: int) -> bool:
    with proxied(server, header, at) as client:
        client.expect("220")
        offered = "XCLIENT" in client.ask("EHLO client.example", "250")
        taken = client.ask(XCLIENT, "").startswith("220")
        if not taken:
            client.ask("NOOP", "250")
    assert offered == taken
    return taken


def test_xclient_is_for_whom_the_header_names(server: Server) -> None:
    assert _may_xclient(server, v1("192.0.2.7"), CLEAR)
    assert _may_xclient(server, v2("192.0.2.7"), CLEAR)
    assert not _may_xclient(server, v1("192.0.2.8"), CLEAR)
    assert _may_xclient(server, LOCAL, CLEAR)  # the proxy itself, at 127.0.0.1
    assert _may_xclient(server, UNKNOWN, CLEAR)


def test_a_loopback_address_in_a_header_is_easily_faked(server: Server) -> None:
    """standards.md U20: no trust is derived from it, unless `proxy_trust_loopback` says so."""
    for header in (v1("127.0.0.1"), v2("127.0.0.1"), v1("::ffff:127.0.0.1")):
        assert not _may_xclient(server, header, CLEAR)
        assert _may_xclient(server, header, TRUSTING)


def test_limits_per_client_count_whom_the_header_names(server: Server) -> None:
    with proxied(server, v1("192.0.2.9"), ONLY_ONE) as first, proxied(server, v1("192.0.2.10"), ONLY_ONE) as other:
        for client in (first, other):
            client.expect("220")
        with proxied(server, v2("192.0.2.9", 99), ONLY_ONE) as second:
            second.expect("421 4.7.0 mx.example too many connections from your address")
            second.expect_end()
        assert ' reply="421 4.7.0"' in _line(server, "event=session", "peer=192.0.2.9:99")
        first.quit()

    def is_admitted() -> bool:
        with proxied(server, v2("192.0.2.9"), ONLY_ONE) as client:
            return client.reply().startswith("220")

    until(is_admitted, "the first one is gone")


def test_a_loopback_address_in_a_header_is_not_exempt(server: Server) -> None:
    with proxied(server, v1("127.0.0.9"), ONLY_ONE) as first, proxied(server, v1("127.0.0.9"), ONLY_ONE) as second:
        first.expect("220")
        second.expect("421 4.7.0")
    with proxied(server, v1("127.0.0.9"), TRUSTING) as first, proxied(server, v1("127.0.0.9"), TRUSTING) as second:
        first.expect("220")
        second.expect("220")
    with proxied(server, LOCAL, ONLY_ONE) as first, proxied(server, UNKNOWN, ONLY_ONE) as second:
        first.expect("220")
        second.expect("220")


def test_a_network_of_64_bits_is_one_client(server: Server) -> None:
    with (
        proxied(server, v1("2001:db8:2::1"), ONLY_ONE) as first,
        proxied(server, v2("2001:db8:2::2"), ONLY_ONE) as same,
    ):
        first.expect("220")
        same.expect("421 4.7.0")
        with proxied(server, v1("2001:db8:2:1::1"), ONLY_ONE) as other:
            other.expect("220")


def test_every_session_ends(server: Server) -> None:
    """Runs last: whatever was tried above, the handler's sessions are closed, and nothing went wrong."""
    server.close_clients()

    def left() -> list[str]:
        seen = [event["event"] for event in journal.events(server.directory) if not event.get("told")]
        return [] if seen.count("welcome") == seen.count("closed") else seen

    until(lambda: not left(), "all sessions are closed")
    assert not re.search(r" (WARNING|ERROR|CRITICAL) |Traceback", server.log)
