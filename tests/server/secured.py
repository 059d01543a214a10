"""TLS for a test: certificates in files, and a client that speaks SMTP inside TLS."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

import trustme

from tests.server.client import Client
from tests.server.running import Server

TLS_1_2: Final = ssl.TLSVersion.TLSv1_2
TLS_1_3: Final = ssl.TLSVersion.TLSv1_3


def issue(directory: Path, authority: trustme.CA, *names: str, file: str = "") -> str:
    """A certificate, its chain and its key in one file, which replaces another one as a whole; returns its path."""
    path = directory / f"{file or names[0]}.pem"
    new = path.with_suffix(".new")
    new.write_bytes(authority.issue_cert(*names).private_key_and_cert_chain_pem.bytes())
    os.replace(new, path)
    return str(path)


def trusting(
    authority: trustme.CA | None = None, certificate: str | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """A client's context.

    Args:
        authority: whose certificates are believed; None: everybody's.
        certificate: a file with the client's own.
        version: the only version; None: any.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority:
        authority.configure_trust(context)
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


ANYBODY: Final = trusting()


def shake_hands(client: Client, context: ssl.SSLContext = ANYBODY, name: str | None = None) -> ssl.SSLSocket:
    """The client's side of a handshake. From now on it speaks inside TLS, and takes only close_notify for an end."""
    tls = context.wrap_socket(client.socket, server_hostname=name, suppress_ragged_eofs=False)
    client.socket = tls
    return tls


def start_tls(client: Client, context: ssl.SSLContext = ANYBODY, name: str | None = None) -> ssl.SSLSocket:
    """STARTTLS and the handshake."""
    client.ask("STARTTLS", "220 2.0.0 ")
    return shake_hands(client, context, name)


def secure(server: Server, context: ssl.SSLContext = ANYBODY, name: str | None = None) -> Client:
    """A client that has said EHLO inside TLS, by STARTTLS."""
    client = server.greeted()
    start_tls(client, context, name)
    client.ask("EHLO client.example", "250")
    return client


def connect_inside(server: Server, context: ssl.SSLContext = ANYBODY, name: str | None = None) -> Client:
    """A client inside TLS from the first octet on, that has said nothing yet."""
    client = server.connect()
    shake_hands(client, context, name)
    return client


def octets_until_the_end(connection: socket.socket) -> bytes:
    """What comes in clear text, until the connection is closed or reset."""
    received = b""
    try:
        while octets := connection.recv(65536):
            received += octets
    except ConnectionResetError:
        pass
    return received


def everything_is_read(server_port: int, client_port: int) -> bool:
    """Whether a server on 127.0.0.1 has read all that a client has sent: from /proc/net/tcp (proc(5))."""
    ends = {(client_port, server_port), (server_port, client_port)}
    queued = []  # sent and not acknowledged, arrived and not read
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        ports = int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)
        if ports in ends:
            unacknowledged, unread = (int(queue, 16) for queue in queues.split(":"))
            queued.append(unacknowledged if ports[0] == client_port else unread)
    assert len(queued) == 2, f"no connection from port {client_port} to port {server_port}"
    return queued == [0, 0]


class Pipe:
    """TLS in the client's own hands, for what `ssl.SSLSocket` does not do: half-closes, records cut and joined."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext = ANYBODY, name: str | None = None) -> None:
        self.socket = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    @property
    def hello(self) -> bytes:
        """The client's first octets, to be sent by the caller; `shake_hands` does the rest."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def shake_hands(self, keep_the_last: bool = False) -> bytes:
        """The handshake; returns its last octets if they are to be kept, and not sent."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self._receive()
            else:
                break
        if keep_the_last:
            return self._outgoing.read()
        self.flush()
        return b""

    def record(self, octets: bytes) -> bytes:
        """The ciphertext of some octets, one record if there are at most 16384."""
        self.tls.write(octets)
        return self._outgoing.read()

    def send(self, octets: bytes) -> None:
        self.socket.sendall(self.record(octets))

    def flush(self) -> None:
        self.socket.sendall(self._outgoing.read())

    def say_goodbye(self) -> None:
        """Send close_notify; what comes from the server can still be read."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            self.flush()

    def _receive(self) -> None:
        octets = self.socket.recv(65536)
        if octets:
            self._incoming.write(octets)
        else:
            self._incoming.write_eof()

    def receive(self) -> bytes:
        """What one read from the socket brings; it may be a part of a record, which is nothing."""
        self._receive()
        received = b""
        with suppress(ssl.SSLWantReadError):
            while octets := self.tls.read(65536):
                received += octets
        return received

    def rest(self) -> bytes:
        """Everything until close_notify.

        Raises:
            ssl.SSLEOFError: the connection ended without it.
        """
        received = b""
        while True:
            try:
                octets = self.tls.read(65536)
            except ssl.SSLWantReadError:
                self._receive()
                continue
            except ssl.SSLZeroReturnError:
                return received
            if not octets:
                return received
            received += octets
