"""A tiny SMTP client that says exactly what it is told, and never waits for ever."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

Address = tuple[str, int] | str
"""A TCP address, or the path of a unix socket."""

DEADLINE = 8.0  # seconds for whatever a test waits for


class Client:
    """One connection.

    Args:
        address: where to connect.
        receive_buffer: octets of the kernel's receive buffer; 0 leaves it as it is.
        seconds: how long to wait for a reply.
        source: the address to connect from, such as 127.0.0.2; empty leaves it to the kernel.
    """

    def __init__(self, address: Address, receive_buffer: int = 0, seconds: float = DEADLINE, source: str = "") -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
        else:
            self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.socket.settimeout(seconds)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._read = b""
        try:
            if source:
                self.socket.bind((source, 0))
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    @property
    def port(self) -> int:
        """Our own port: it names the session on the server's side."""
        port: int = self.socket.getsockname()[1]
        return port

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def line(self) -> str:
        """One line of a reply.

        Raises:
            EOFError: the server has closed.
            TimeoutError: nothing came.
        """
        while b"\r\n" not in self._read:
            octets = self.socket.recv(65536)
            if not octets:
                raise EOFError(f"closed by the server, behind {self._read!r}")
            self._read += octets
        line, _, self._read = self._read.partition(b"\r\n")
        return line.decode("ascii")

    def reply(self) -> str:
        """One whole reply; its lines are joined by LF."""
        lines = [self.line()]
        while lines[-1][3:4] == "-":
            lines.append(self.line())
        return "\n".join(lines)

    def expect(self, start: str) -> str:
        """One reply, which must begin like this."""
        reply = self.reply()
        assert reply.startswith(start), f"expected {start}, got {reply!r}"
        return reply

    def ask(self, line: str, start: str) -> str:
        """Say a command and take its reply, which must begin like this."""
        self.send(line.encode() + b"\r\n")
        return self.expect(start)

    def greet(self, name: str = "client.example") -> Client:
        """Take the banner, and say EHLO."""
        self.expect("220 ")
        self.ask(f"EHLO {name}", "250")
        return self

    def begin_data(self, sender: str = "a@a.example", recipient: str = "b@b.example") -> None:
        """Go as far as the 354."""
        self.ask(f"MAIL FROM:<{sender}>", "250")
        self.ask(f"RCPT TO:<{recipient}>", "250")
        self.ask("DATA", "354")

    def deliver(self, body: bytes = b"Subject: x\r\n\r\nx\r\n") -> str:
        """Bring a whole message; returns its 250."""
        self.begin_data()
        self.send(body + b".\r\n")
        return self.expect("250 ")

    def quit(self) -> None:
        self.ask("QUIT", "221")
        self.expect_end()

    def shut(self) -> None:
        """Half-close: we send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def rest(self) -> bytes:
        """Everything until the server closes in good order; a reset raises ConnectionResetError."""
        while octets := self.socket.recv(65536):
            self._read += octets
        rest, self._read = self._read, b""
        return rest

    def expect_end(self) -> None:
        """The server closes, and has no more to say."""
        rest = self.rest()
        assert rest == b"", f"expected the end, got {rest!r}"
