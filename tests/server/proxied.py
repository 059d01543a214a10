"""PROXY headers for a test, and HAProxy, which writes real ones."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.server.client import Client
from tests.server.running import Server

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL: Final = SIGNATURE + b"\x20\0\0\0"
UNKNOWN: Final = b"PROXY UNKNOWN\r\n"
TO: Final = "198.51.100.1"
TO_IPV6: Final = "2001:db8:1::1"
TLV: Final = b"\x04\0\x03abc"  # PP2_TYPE_NOOP


def _family(source: str) -> tuple[socket.AddressFamily, str]:
    return (socket.AF_INET6, TO_IPV6) if ":" in source else (socket.AF_INET, TO)


def v1(source: str, port: int = 1234) -> bytes:
    """A line that says so; the destination is `TO` or `TO_IPV6`, port 25."""
    family, to = _family(source)
    return f"PROXY TCP{6 if family == socket.AF_INET6 else 4} {source} {to} {port} 25\r\n".encode()


def v2(source: str, port: int = 1234) -> bytes:
    """The same in version 2, with a TLV behind it."""
    family, to = _family(source)
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, to)
    block = addresses + struct.pack("!HH", port, 25) + TLV
    kind = b"\x21" if family == socket.AF_INET6 else b"\x11"
    return SIGNATURE + b"\x21" + kind + struct.pack("!H", len(block)) + block


def proxied(server: Server, header: bytes, at: int = 0) -> Client:
    """A connection that begins with this header."""
    client = server.connect(at=at)
    client.send(header)
    return client


HAPROXY: Final = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend clients
    bind fd@{descriptor}
    default_backend mail
backend mail
    {option}
    server mx 127.0.0.1:{port} {words}
"""


@contextmanager
def haproxy(
    directory: Path, require_program: Callable[[str], str], port: int, words: str, option: str = ""
) -> Iterator[tuple[str, int]]:
    """HAProxy in front of a server.

    Args:
        directory: for its configuration and its log.
        require_program: the fixture.
        port: of the server.
        words: what stands behind the server's address.
        option: a line of the backend.

    Yields:
        Where it listens: a socket of ours, so that nobody has to guess a free port.
    """
    program = require_program("haproxy")
    with socket.create_server(("127.0.0.1", 0)) as listening, open(directory / "haproxy.log", "wb") as log:
        file = directory / "haproxy.cfg"
        descriptor = listening.fileno()
        file.write_text(HAPROXY.format(descriptor=descriptor, option=option, port=port, words=words))
        process = subprocess.Popen(
            [program, "-db", "-f", str(file)], pass_fds=[descriptor], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield listening.getsockname()
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
