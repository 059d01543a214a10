"""CPU time of a session with STARTTLS, against the same handshakes done by ``openssl s_server``.

Both have the same certificate, the same version and the same key exchange, and one client at a time that resumes
nothing. `s_server` is given the bare handshake: no greeting, no EHLO, no STARTTLS before it.
"""

from __future__ import annotations

import socket
import ssl
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from loadtest.bench.peers import Peer, Running, fastsmtp
from loadtest.bench.processes import Server, free_port
from loadtest.bench.programs import found
from loadtest.bench.throughput import Row

KEYS: Final = {
    "P-256": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "RSA 2048": ("-newkey", "rsa:2048"),
}
HANDSHAKES: Final = 800
_PATIENCE: Final = 20.0  # seconds


def measure(python: str, key: str, rounds: int, scale: float = 1.0) -> dict[str, Row]:
    """Measure both.

    Args:
        python: the interpreter of fastsmtp.
        key: one of `KEYS`.
        rounds: how often.
        scale: multiplies the number of handshakes.

    Returns:
        For each server cpu_us, per session, and x_openssl: the median of the rounds' ratios.
    """
    count = max(20, int(HANDSHAKES * scale))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate = _certificate(directory, key)
        flags = (f"--tls-certfile={certificate}", f"--tls-keyfile={certificate}")
        peer = Peer("fastsmtp", fastsmtp(python, "loadtest.bench_app:AsyncHooks", *flags), [], "")
        server = stack.enter_context(Running(peer))
        openssl = stack.enter_context(_openssl(certificate))
        pairs = []
        _run(server, _starttls_session, max(20, count // 10))
        _run(openssl, _handshake, max(20, count // 10))
        for _ in range(rounds):
            pairs.append((_run(server, _starttls_session, count), _run(openssl, _handshake, count)))
    ours, theirs = (statistics.median(pair[which] for pair in pairs) for which in (0, 1))
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return {
        "fastsmtp": {"cpu_us": ours, "x_openssl": ratio},
        "openssl s_server": {"cpu_us": theirs, "x_openssl": 1.0},
    }


def _certificate(directory: Path, key: str) -> Path:
    """A certificate of its own signature, with its key in the same file."""
    path = directory / "certificate.pem"
    command = ["openssl", "req", "-x509", "-nodes", *KEYS[key], "-subj", "/CN=mx.example", "-days", "2"]
    subprocess.run([*command, "-keyout", str(path), "-out", str(path) + ".crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(str(path) + ".crt").read_text())
    return path


def _openssl(certificate: Path) -> Server:
    port = free_port()
    program = found("openssl") or "openssl"
    command = [program, "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(certificate), "-quiet"]
    return Server("openssl s_server", command, port, banner=False)


def _run(server: Server, play: Callable[[int, ssl.SSLContext], None], count: int) -> float:
    """Microseconds of CPU for each of so many sessions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before = server.cpu_seconds()
    for _ in range(count):
        play(server.port, context)
    return (server.cpu_seconds() - before) * 1e6 / count


def _handshake(port: int, context: ssl.SSLContext) -> None:
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as plain, context.wrap_socket(plain) as client:
        client.sendall(b"QUIT\r\n")


def _starttls_session(port: int, context: ssl.SSLContext) -> None:
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as plain:
        plain.recv(512)
        _ask(plain, b"EHLO load.example\r\n", b"250")
        _ask(plain, b"STARTTLS\r\n", b"220")
        with context.wrap_socket(plain) as client:
            _ask(client, b"EHLO load.example\r\n", b"250")
            _ask(client, b"QUIT\r\n", b"221")


def _ask(client: socket.socket, command: bytes, code: bytes) -> None:
    client.sendall(command)
    reply = client.recv(4096)
    if not reply.startswith(code):
        raise RuntimeError(f"{command!r} got {reply!r}")
