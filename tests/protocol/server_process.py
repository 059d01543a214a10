"""A real server in a process of its own, on a free port, and a client that talks to it over a socket."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, TypeVar

from tests.protocol.application import RECORD, Delivered, read_note
from tests.protocol.driver import HOSTNAME
from tests.protocol.transcript import MECHANISMS

ROOT: Final = Path(__file__).parents[2]
DEADLINE: Final = 20.0  # seconds to start and to stop; ten times what it takes
REPLY_DEADLINE: Final = 5.0  # seconds for a reply; a thousand times what it takes
_Result = TypeVar("_Result")
_LISTENING: Final = re.compile(r"listening on 127\.0\.0\.1:(\d+)")


class ServerProcess:
    """``fastsmtp serve`` with one worker.

    Args:
        handler: of `tests.protocol.application`.
        settings: by name, as on the command line.
        record: the file that the handler notes messages in.
    """

    def __init__(self, handler: str, settings: Mapping[str, str], record: Path) -> None:
        record.touch()
        self._record = record
        self._read = 0  # octets of the record
        self.log: list[str] = []
        flags = [_flag(name, value) for name, value in settings.items()]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "fastsmtp", "serve", f"tests.protocol.application:{handler}"),
                *(
                    "--listen=127.0.0.1:0",
                    "--workers=1",
                    f"--hostname={HOSTNAME}",
                    "--linger-timeout=1",
                    "--error-delay=0",
                ),
                *("--auth-failure-delay=0", f"--auth-mechanisms={','.join(MECHANISMS)}", *flags),
            ],
            cwd=ROOT,
            env={**_environment(), RECORD: str(record)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._ports: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        stderr = self._process.stderr
        assert stderr is not None
        # It reads to the end, so that the server never waits for room in the pipe.
        self._reader = threading.Thread(target=self._read_log, args=(stderr,), daemon=True)
        self._reader.start()
        self._port: int | None = None

    def _read_log(self, stderr: IO[str]) -> None:
        for line in stderr:
            self.log.append(line)
            if match := _LISTENING.search(line):
                self._ports.put(int(match[1]))
        self._ports.put(None)

    @property
    def port(self) -> int:
        """Where it listens; waits until it does."""
        if self._port is None:
            self._port = self._ports.get(timeout=DEADLINE)
        assert self._port is not None, "".join(self.log)
        return self._port

    def new_messages(self) -> list[Delivered]:
        """The messages that were noted since the last call."""
        octets = self._record.read_bytes()
        notes, self._read = octets[self._read :], len(octets)
        return [read_note(line) for line in notes.splitlines()]

    def stop(self) -> int:
        """End it as an operator does; returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join(DEADLINE)
        if self._process.stderr:
            self._process.stderr.close()
        return code


def _flag(name: str, value: str) -> str:
    flag = name.replace("_", "-")
    if value in ("true", "false"):
        return f"--{flag}" if value == "true" else f"--no-{flag}"
    return f"--{flag}={value}"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FASTSMTP_")}


class _TLS:
    """The client's side of TLS, with half-closes, which `ssl.SSLSocket` has not; nobody cares who the server is."""

    def __init__(self, connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._socket = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._until_done(self._tls.do_handshake)
        self._flush()

    def _until_done(self, step: Callable[[], _Result]) -> _Result:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                if octets := self._socket.recv(65536):
                    self._incoming.write(octets)
                else:
                    self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.sendall(self._outgoing.read())

    def send(self, octets: bytes) -> None:
        """Send all."""
        if octets:
            self._tls.write(octets)
            self._flush()

    def end(self) -> None:
        """Send close_notify; what comes from the server can still be read."""
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def receive(self) -> bytes:
        """What comes next; nothing if that is close_notify."""
        try:
            return self._until_done(lambda: self._tls.read(65536))
        except ssl.SSLZeroReturnError:
            return b""


class Client:
    """One connection; every wait has the deadline."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_DEADLINE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls: _TLS | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, octets: bytes) -> None:
        """Send all."""
        if self._tls:
            self._tls.send(octets)
        else:
            self._socket.sendall(octets)

    def start_tls(self) -> None:
        """The handshake."""
        self._tls = _TLS(self._socket)

    def end(self) -> None:
        """Half-close: nothing more will be sent."""
        if self._tls:
            self._tls.end()
        self._socket.shutdown(socket.SHUT_WR)

    def _receive(self) -> bytes:
        return self._tls.receive() if self._tls else self._socket.recv(65536)

    def read_lines(self, count: int) -> bytes:
        """Exactly so many lines, or what came before the server closed; more is an error only if it came with them."""
        octets = b""
        while octets.count(b"\r\n") < count:
            received = self._receive()
            if not received:
                break
            octets += received
        return octets

    def read_to_the_end(self) -> bytes:
        """Everything until the server closes."""
        return b"".join(iter(self._receive, b""))
