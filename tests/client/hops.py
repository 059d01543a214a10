"""A next hop that says what a test wants it to say, and remembers what it was told. Each connection has a thread."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from fastsmtp.client import Hop, Outgoing
from fastsmtp.protocol.envelope import Recipient, Sender

CLOSE = "close"  # as an answer: hang up without a word
T = TypeVar("T")
EVERYTHING = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 1000000", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING")
PLAIN = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN")
CONTENT = b"Subject: test\r\n\r\nhello\r\n"


@dataclass
class FakeHop:
    """A server of SMTP or LMTP.

    Attributes:
        keywords: what EHLO offers.
        answers: for each verb, and for "." and "banner", answers to be said one after the other; then "250 ok".
        lmtp: an answer for each recipient behind the content.
        context: for STARTTLS.
        commands: all that was said to it, without content.
        contents: of messages, with dots unstuffed.
        connections: how many there were.
        reads_content: if not, it hangs up behind its answer to DATA.
        on_content: called when there is content, before the answer.
    """

    keywords: tuple[str, ...] = EVERYTHING
    answers: dict[str, list[str]] = field(default_factory=dict)
    lmtp: bool = False
    context: ssl.SSLContext | None = None
    commands: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    open: set[socket.socket] = field(default_factory=set)
    talks: list[threading.Thread] = field(default_factory=list)
    on_content: Callable[[], object] = bool
    reads_content: bool = True

    def __post_init__(self) -> None:
        self.answers = {key: list(answers) for key, answers in self.answers.items()}  # they are used up

    @property
    def hop(self) -> Hop:
        return Hop("127.0.0.1", self.port, lmtp=self.lmtp, security="opportunistic" if self.context else "off")

    @property
    def verbs(self) -> list[str]:
        return [command.partition(" ")[0] for command in self.commands]

    def hang_up(self) -> None:
        """Close every connection now."""
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Wait until every connection has ended."""
        for talk in self.talks:
            talk.join(10)
            assert not talk.is_alive()

    def accept(self, listener: socket.socket) -> None:
        """Takes connections until the listener is closed."""
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.connections += 1
                talk = threading.Thread(target=self.serve, args=(connection,))
                self.talks.append(talk)
                talk.start()

    def serve(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        self.open.add(connection)
        talk = _Talk(self, connection)
        with suppress(OSError, EOFError):
            talk.run()
        self.open.discard(connection)
        talk.close()


class _Talk:
    def __init__(self, hop: FakeHop, connection: socket.socket) -> None:
        self.hop, self.connection = hop, connection
        self.file = connection.makefile("rb")
        self.recipients = 0
        self.chunks = b""

    def run(self) -> None:
        self.say("banner", "220 hop.example ESMTP")
        while line := self.file.readline():
            command = line.decode().rstrip("\r\n")
            self.hop.commands.append(command)
            verb, _, argument = command.partition(" ")
            self.obey(verb.upper(), argument)

    def close(self) -> None:
        self.file.close()
        self.connection.close()

    def say(self, key: str, default: str) -> str:
        answers = self.hop.answers.get(key)
        answer = answers.pop(0) if answers else default
        if answer == CLOSE:
            raise EOFError
        self.connection.sendall(answer.encode() + b"\r\n")
        return answer

    def obey(self, verb: str, argument: str) -> None:
        if verb in ("EHLO", "LHLO"):
            lines = ["hop.example", *self.hop.keywords]
            self.say(verb, "\r\n".join(f"250{'-' if line != lines[-1] else ' '}{line}" for line in lines))
        elif verb == "RCPT":
            self.recipients += self.say(verb, "250 2.1.5 ok").startswith("2")
        elif verb == "DATA":
            if self.say(verb, "354 go on").startswith("3"):
                self.read_text()
        elif verb == "BDAT":
            self.read_chunk(argument)
        elif verb == "STARTTLS":
            self.start_tls()
        else:
            self.recipients = 0 if verb in ("MAIL", "RSET") else self.recipients
            self.say(verb, "250 2.0.0 ok")

    def read_text(self) -> None:
        if not self.hop.reads_content:
            self.connection.shutdown(socket.SHUT_WR)
            self.file.read()  # until the client has gone, lest a reset swallow what was said
            raise EOFError
        lines = []
        while (line := self.file.readline()) != b".\r\n":
            if not line:
                raise EOFError
            lines.append(line[1:] if line.startswith(b".") else line)
        self.finish(b"".join(lines))

    def read_chunk(self, argument: str) -> None:
        size, _, last = argument.partition(" ")
        self.chunks += self.file.read(int(size))
        if last:
            content, self.chunks = self.chunks, b""
            self.finish(content)
        else:
            self.say("BDAT", "250 2.0.0 go on")

    def finish(self, content: bytes) -> None:
        self.hop.contents.append(content)
        self.hop.on_content()
        for _ in range(self.recipients if self.hop.lmtp else 1):
            self.say(".", "250 2.0.0 taken")

    def start_tls(self) -> None:
        answer = self.say("STARTTLS", "220 2.0.0 go on")
        if answer.startswith("220") and self.hop.context:
            self.file.close()
            self.hop.open.discard(self.connection)
            self.connection = self.hop.context.wrap_socket(self.connection, server_side=True)
            self.hop.open.add(self.connection)
            self.file = self.connection.makefile("rb")


@contextmanager
def running_in_thread(hop: FakeHop) -> Iterator[FakeHop]:
    """A hop that listens on loopback, for clients in other processes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hop.port = listener.getsockname()[1]
        accepting = threading.Thread(target=hop.accept, args=(listener,))
        accepting.start()
        try:
            yield hop
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            hop.hang_up()
            accepting.join()
            hop.join()


@asynccontextmanager
async def running(hop: FakeHop) -> AsyncIterator[FakeHop]:
    """A hop that listens on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hop.port = listener.getsockname()[1]
        accepting = threading.Thread(target=hop.accept, args=(listener,))
        accepting.start()
        try:
            yield hop
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            hop.hang_up()
            await asyncio.to_thread(accepting.join)
            await asyncio.to_thread(hop.join)  # while the loop closes what the client has dropped
            hop.talks.clear()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a test's coroutine on the event loop that servers and deliverers have."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def to(*addresses: str) -> list[Recipient]:
    return [Recipient(local, domain) for local, _, domain in (address.partition("@") for address in addresses)]


def outgoing(
    *addresses: str,
    content: bytes = CONTENT,
    sender: Sender | None = None,
    header: bytes = b"",
    all_or_none: bool = False,
) -> Outgoing:
    recipients = to(*(addresses or ("bob@example.org",)))
    return Outgoing(sender or Sender("alice", "example.com"), recipients, memoryview(content), header, all_or_none)
