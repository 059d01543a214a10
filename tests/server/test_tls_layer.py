"""The TLS layer: between a fake transport and a client in memory, segment by segment; then over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar, cast

import pytest
import trustme
import uvloop

from fastsmtp.server.tls import TLSLayer

T = TypeVar("T")
TLS_1_2: Final = ssl.TLSVersion.TLSv1_2
TLS_1_3: Final = ssl.TLSVersion.TLSv1_3
DEADLINE: Final = 30.0  # seconds
BIG: Final = random.Random(1).randbytes(2 << 20)
CLOSE_NOTIFY: Final = object()  # what a client reads behind the last octet

versions = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = TLS_1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    authority.issue_cert("mx.example").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@contextlib.contextmanager
def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> Iterator[ssl.SSLContext]:
    context.maximum_version = version
    try:
        yield context
    finally:
        context.maximum_version = TLS_1_3


def on_uvloop(main: Callable[[], Awaitable[T]]) -> T:
    async def in_time() -> T:
        async with asyncio.timeout(DEADLINE):
            return await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(in_time())


# -- in memory --------------------------------------------------------------------------------------------------------


class Lower(asyncio.Transport):
    """A transport that keeps what is written, and reads what it is told to."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 25)})
        self.protocol: TLSLayer
        self.writes: list[bytes] = []
        self.events: list[str] = []
        self._paused = False

    def receive(self, octets: bytes) -> None:
        """As a socket's transport does: nothing while paused, or when closed."""
        assert not self.is_paused()
        if not self.is_closing():
            view = self.protocol.get_buffer(-1)
            view[: len(octets)] = octets
            self.protocol.buffer_updated(len(octets))
            view[: len(octets)] = b"\xa5" * len(octets)  # another connection reads into it

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.events, f"written after {self.events}"
        self.writes.append(bytes(data))

    def take(self) -> bytes:
        octets = b"".join(self.writes)
        self.writes.clear()
        return octets

    def write_eof(self) -> None:
        self.events.append("write_eof")

    def close(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.events or "abort" in self.events

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False

    def is_paused(self) -> bool:
        return self._paused

    def get_write_buffer_size(self) -> int:
        return 12345


class Upper(asyncio.BufferedProtocol):
    """A protocol that notes what it is told.

    Args:
        room: of its buffer.
        keep_open: its answer to the end of input.
    """

    def __init__(self, room: int = 65536, keep_open: bool = True) -> None:
        self.transport: asyncio.Transport
        self.buffer = memoryview(bytearray(room))
        self.keep_open = keep_open
        self.segments: list[bytes] = []
        self.events: list[str] = []
        self.on_segment: Callable[[bytes], None] = lambda octets: None
        self.busy = False

    @property
    def received(self) -> bytes:
        return b"".join(self.segments)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, length: int) -> None:
        assert not self.busy, "called from within its own call"
        assert not self.events, f"octets after {self.events}"
        self.busy = True
        self.segments.append(bytes(self.buffer[:length]))
        self.on_segment(self.segments[-1])
        self.busy = False

    def eof_received(self) -> bool:
        assert not self.busy
        self.events.append("eof")
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {exc}")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


class Pair:
    """A layer between fakes, and the client that it talks to."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, upper: Upper | None = None) -> None:
        self.lower, self.upper = Lower(), upper or Upper()
        self.established = 0
        self.failures: list[str] = []
        self.on_established: Callable[[], None] = lambda: None
        self.layer = TLSLayer(server, memoryview(bytearray(65536)), self._established, self.failures.append)
        self.lower.protocol = self.layer
        self.layer.start(self.lower)
        self._to_client, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self._to_client, self._to_server, server_hostname="mx.example")

    def _established(self, layer: TLSLayer) -> None:
        assert layer is self.layer
        self.established += 1
        layer.set_protocol(self.upper)
        self.upper.connection_made(layer)
        self.on_established()

    def shake_client(self) -> bool:
        """One step of the client's side; whether it is done."""
        self._to_client.write(self.lower.take())
        try:
            self.client.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def shake(self) -> None:
        while not self.shake_client():
            self.lower.receive(self.flight())
        self.lower.receive(self.flight())  # TLS 1.3: the client has finished, the server not yet
        assert self.established == 1

    def flight(self, *messages: bytes) -> bytes:
        """What the client sends, with further records behind it."""
        for message in messages:
            self.client.write(message)
        return self._to_server.read()

    def say(self, *messages: bytes) -> None:
        self.lower.receive(self.flight(*messages))

    def hear(self) -> list[object]:
        """The clear text, and the end, that has arrived at the client."""
        self._to_client.write(self.lower.take())
        heard: list[object] = []
        try:
            while octets := self.client.read(1 << 24):
                heard.append(octets)
            heard.append(CLOSE_NOTIFY)
        except ssl.SSLZeroReturnError:  # as above, if the client has sent its own
            heard.append(CLOSE_NOTIFY)
        except ssl.SSLWantReadError:
            pass
        return heard

    def hear_octets(self) -> bytes:
        return b"".join(cast(list[bytes], self.hear()))

    def end_client(self) -> bytes:
        """The client's close_notify."""
        with contextlib.suppress(ssl.SSLError):
            self.client.unwrap()
        return self._to_server.read()


@pytest.fixture
def pair(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> Pair:
    pair = Pair(server_context, client_context)
    pair.shake()
    return pair


# -- handshake --------------------------------------------------------------------------------------------------------


@versions
def test_a_handshake_octet_by_octet(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    with only(client_context, version):
        pair = Pair(server_context, client_context)
    done = False
    while not (done and pair.established):
        done = pair.shake_client()
        for octet in pair.flight():
            pair.lower.receive(bytes([octet]))
    for octet in pair.flight(b"EHLO client.example\r\n"):
        pair.lower.receive(bytes([octet]))
    pair.layer.write(b"250 mx.example\r\n")
    assert (pair.established, pair.failures) == (1, [])
    assert pair.client.version() == {TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}[version]
    assert pair.upper.received == b"EHLO client.example\r\n"
    assert pair.hear_octets() == b"250 mx.example\r\n"


@versions
def test_the_end_of_the_handshake_and_the_first_octets_in_one_segment(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    """In TLS 1.2 a client can do so if it knows the server's session (RFC 5246 7.3), in TLS 1.3 always."""
    with only(client_context, version):
        first = Pair(server_context, client_context)
        first.shake()
        first.hear()  # takes the tickets
        pair = Pair(server_context, client_context)
        pair.client.session = first.client.session
    assert not pair.shake_client()
    pair.lower.receive(pair.flight())
    assert pair.shake_client()
    assert pair.established == 0
    pair.on_established = lambda: pair.upper.segments.append(b"established, ")
    pair.say(b"EHLO a\r\n", b"MAIL FROM:<>\r\n")
    assert pair.upper.segments == [b"established, ", b"EHLO a\r\nMAIL FROM:<>\r\n"]


def test_ciphertext_that_somebody_else_has_read(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    pair = Pair(server_context, client_context)
    pair.shake_client()
    pair.layer.feed(pair.flight())
    pair.shake_client()
    pair.layer.feed(pair.flight(b"NOOP\r\n"))
    assert pair.upper.segments == [b"NOOP\r\n"]


@versions
def test_all_of_a_step_leaves_in_one_write(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    with only(client_context, version):
        pair = Pair(server_context, client_context)
    pair.shake_client()
    pair.lower.receive(pair.flight())
    assert len(pair.lower.writes) == 1
    pair.shake_client()
    pair.lower.receive(pair.flight())
    assert len(pair.lower.writes) == 1  # TLS 1.3: the session tickets


@pytest.mark.parametrize(
    "octets",
    [b"EHLO x\r\n", b"EHLO client.example\r\nMAIL FROM:<a@a.example>\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(64)],
    ids=["EHLO", "pipelined", "HTTP", "zeros"],
)
def test_clear_text_gets_no_reply(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, octets: bytes
) -> None:
    """standards.md U18."""
    pair = Pair(server_context, client_context)
    pair.lower.receive(octets)
    assert pair.lower.events == ["close"]
    assert pair.lower.writes == []
    assert (pair.established, len(pair.failures)) == (0, 1)
    pair.layer.connection_lost(None)
    assert (pair.established, len(pair.failures), pair.upper.events) == (0, 1, [])


def test_tls_1_1_is_refused_with_an_alert(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    """standards.md U19."""
    hello = b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x02\xc0\x13" + b"\x01\x00"  # ECDHE-RSA-AES128-SHA
    message = b"\x01" + len(hello).to_bytes(3) + hello
    pair = Pair(server_context, client_context)
    pair.lower.receive(b"\x16\x03\x01" + len(message).to_bytes(2) + message)
    [alert] = pair.lower.writes
    assert (alert[0], alert[-2:]) == (21, bytes([2, 70]))  # fatal, protocol_version
    assert pair.failures == ["unsupported protocol"]
    assert pair.lower.events == ["close"]


@versions
def test_a_client_that_must_show_a_certificate_and_does_not(
    authority: trustme.CA, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mx.example").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    with only(client_context, version):
        pair = Pair(server, client_context)
    while not pair.failures:
        pair.shake_client()
        pair.lower.receive(pair.flight())
    assert pair.failures == ["peer did not return a certificate"]
    assert pair.lower.events == ["close"]
    assert pair.established == 0
    with pytest.raises(ssl.SSLError, match="ALERT"):
        pair.shake_client() and pair.hear()


def test_a_certificate_of_an_unknown_authority(authority: trustme.CA) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mx.example").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_OPTIONAL
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    trustme.CA().issue_cert("client.example").configure_cert(client)
    pair = Pair(server, client)
    pair.shake_client()
    pair.lower.receive(pair.flight())
    pair.shake_client()
    pair.lower.receive(pair.flight())
    [failure] = pair.failures
    assert failure.startswith("certificate verify failed: ")
    assert pair.lower.events == ["close"]


@pytest.mark.parametrize("ending", ["eof", "lost", "abort"])
def test_a_connection_that_ends_in_the_handshake(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, ending: str
) -> None:
    pair = Pair(server_context, client_context)
    pair.shake_client()
    pair.lower.receive(pair.flight()[:100])
    if ending == "eof":
        assert pair.layer.eof_received()
        assert pair.lower.events == ["close"]
    elif ending == "abort":
        pair.layer.abort()
        assert pair.lower.events == ["abort"]
    pair.layer.connection_lost(None)
    assert pair.failures == ["connection lost"]
    assert pair.upper.events == []


def test_aborted_by_who_is_told_of_the_handshake(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    pair = Pair(server_context, client_context)
    pair.on_established = pair.layer.abort
    pair.shake_client()
    pair.lower.receive(pair.flight())
    pair.shake_client()
    pair.say(b"NOOP\r\n")
    assert pair.lower.events == ["abort"]
    assert pair.upper.segments == []


# -- reading ----------------------------------------------------------------------------------------------------------


def test_records_of_one_segment_are_one_segment_above(pair: Pair) -> None:
    pair.say(b"MAIL FROM:<>\r\n", b"RCPT TO:<b@b.example>\r\n", b"DATA\r\n")
    assert pair.upper.segments == [b"MAIL FROM:<>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n"]


@pytest.mark.parametrize("room", [1, 1000, 16384, 65536])
@pytest.mark.parametrize("segment", [1000, 16384, 65536])
def test_a_transfer_is_exact_whatever_the_segments_and_buffers(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, room: int, segment: int
) -> None:
    pair = Pair(server_context, client_context, Upper(room))
    pair.shake()
    sent = BIG if room > 1 else BIG[:100_000]
    flight = pair.flight(sent)
    for start in range(0, len(flight), segment):
        pair.lower.receive(flight[start : start + segment])
    assert pair.upper.received == sent


def test_nothing_is_delivered_while_paused(pair: Pair) -> None:
    async def main() -> None:
        pair.upper.on_segment = lambda octets: pair.layer.pause_reading()
        pair.upper.buffer = pair.upper.buffer[:10]  # so that a record is cut, too
        pair.say(b"0123456789abcde", b"fghij", b"KLMNOPQRST")
        assert pair.upper.segments == [b"0123456789"]
        assert pair.lower.is_paused()
        for expected in (b"abcdefghij", b"KLMNOPQRST"):
            await asyncio.sleep(0)
            pair.layer.resume_reading()
            assert pair.upper.segments[-1] != expected  # not from within the call
            await asyncio.sleep(0)
            assert pair.upper.segments[-1] == expected
            assert pair.lower.is_paused()
        pair.layer.resume_reading()
        await asyncio.sleep(0)
        assert len(pair.upper.segments) == 3
        assert not pair.lower.is_paused()
        pair.say(b"more")
        assert pair.upper.segments[-1] == b"more"

    on_uvloop(main)


def test_a_large_read_waits_whole_for_a_paused_protocol(pair: Pair) -> None:
    """The buffer that all connections share is somebody else's by the time the protocol resumes."""

    async def main() -> None:
        pair.upper.on_segment = lambda octets: pair.layer.pause_reading()
        pair.upper.buffer = pair.upper.buffer[:10000]
        flight = pair.flight(BIG)
        for start in range(0, len(flight), 65536):
            pair.lower.receive(flight[start : start + 65536])
            while pair.lower.is_paused():
                pair.layer.resume_reading()
                await asyncio.sleep(0)
        assert pair.upper.received == BIG

    on_uvloop(main)


def test_what_is_fed_to_a_paused_protocol_waits_behind_the_rest(pair: Pair) -> None:
    async def main() -> None:
        pair.upper.on_segment = lambda octets: pair.layer.pause_reading()
        pair.upper.buffer = pair.upper.buffer[:10000]
        flight = pair.flight(BIG[:200000])
        pair.lower.receive(flight[:65536])
        pair.layer.feed(flight[65536:])
        while pair.lower.is_paused():
            pair.layer.resume_reading()
            await asyncio.sleep(0)
        assert pair.upper.received == BIG[:200000]

    on_uvloop(main)


def test_paused_and_resumed_in_one_call(pair: Pair) -> None:
    async def main() -> None:
        def wink(octets: bytes) -> None:
            pair.layer.pause_reading()
            pair.layer.resume_reading()

        pair.upper.on_segment = wink
        pair.upper.buffer = pair.upper.buffer[:4]
        pair.say(b"NOOPRSETQUIT")
        await asyncio.sleep(0)
        assert pair.upper.segments == [b"NOOP", b"RSET", b"QUIT"]
        assert not pair.lower.is_paused()

    on_uvloop(main)


def test_resumed_and_paused_again_before_anything_is_delivered(pair: Pair) -> None:
    async def main() -> None:
        pair.upper.on_segment = lambda octets: pair.layer.pause_reading()
        pair.upper.buffer = pair.upper.buffer[:4]
        pair.say(b"NOOPRSET")
        pair.layer.resume_reading()
        pair.layer.pause_reading()
        await asyncio.sleep(0)
        assert pair.upper.segments == [b"NOOP"]
        assert pair.lower.is_paused()
        pair.layer.resume_reading()
        await asyncio.sleep(0)
        assert pair.upper.segments == [b"NOOP", b"RSET"]

    on_uvloop(main)


def test_lost_while_something_waits(pair: Pair) -> None:
    async def main() -> None:
        pair.upper.on_segment = lambda octets: pair.layer.pause_reading()
        pair.upper.buffer = pair.upper.buffer[:4]
        pair.say(b"NOOPRSET")
        pair.layer.resume_reading()
        pair.layer.connection_lost(ConnectionResetError("reset"))
        await asyncio.sleep(0)
        assert pair.upper.segments == [b"NOOP"]
        assert pair.upper.events == ["lost reset"]

    on_uvloop(main)


@pytest.mark.parametrize("way_out", ["close", "abort"])
def test_nothing_is_delivered_behind_the_way_out(pair: Pair, way_out: str) -> None:
    pair.upper.buffer = pair.upper.buffer[:4]
    pair.upper.on_segment = lambda octets: getattr(pair.layer, way_out)()
    pair.say(b"QUITNOOP")
    assert pair.upper.segments == [b"QUIT"]
    assert pair.lower.events == [way_out]


def test_a_damaged_record_ends_the_connection_behind_the_good_ones(pair: Pair) -> None:
    flight = bytearray(pair.flight(b"NOOP\r\n", b"RSET\r\n"))
    flight[-1] ^= 1
    pair.lower.receive(bytes(flight))
    assert pair.upper.segments == [b"NOOP\r\n"]
    assert pair.lower.events == ["close"]
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        pair.hear()
    pair.layer.write(b"250 OK\r\n")
    pair.layer.write_eof()
    pair.layer.close()
    assert (pair.lower.writes, pair.lower.events) == ([], ["close"])
    pair.layer.connection_lost(None)
    assert pair.upper.events == ["lost None"]


def test_clear_text_behind_the_handshake_is_a_damaged_record(pair: Pair) -> None:
    pair.lower.receive(b"NOOP\r\nNOOP\r\n")
    assert pair.upper.segments == []
    assert pair.lower.events == ["close"]
    assert b"".join(pair.lower.writes)[:1] in (b"\x17", b"\x15", b"")  # an alert at most


def test_a_bug_above_is_raised_as_from_a_plain_transport(pair: Pair) -> None:
    def fail(octets: bytes) -> None:
        raise ZeroDivisionError

    pair.upper.on_segment = fail
    with pytest.raises(ZeroDivisionError):
        pair.say(b"NOOP\r\n")


def test_a_bug_above_behind_a_pause_ends_the_connection_too(pair: Pair) -> None:
    def fail(octets: bytes) -> None:
        raise ZeroDivisionError

    async def main() -> list[object]:
        raised: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: raised.append(type(context["exception"])))
        pair.layer.pause_reading()
        pair.layer.feed(pair.flight(b"NOOP\r\n"))
        pair.upper.on_segment = fail
        pair.layer.resume_reading()
        await asyncio.sleep(0)
        return raised

    assert on_uvloop(main) == [ZeroDivisionError]
    assert pair.lower.events == ["abort"]


def test_an_empty_buffer_is_a_bug(pair: Pair) -> None:
    pair.upper.buffer = memoryview(b"")
    with pytest.raises(RuntimeError, match="empty buffer"):
        pair.say(b"NOOP\r\n")


# -- the client's end -------------------------------------------------------------------------------------------------


def test_close_notify_is_the_end_of_input_once(pair: Pair) -> None:
    pair.lower.receive(pair.flight(b"QUIT\r\n") + pair.end_client())
    assert pair.upper.segments == [b"QUIT\r\n"]
    assert pair.upper.events == ["eof"]
    assert pair.layer.eof_received()
    assert pair.upper.events == ["eof"]
    assert pair.lower.events == []
    pair.layer.write(b"221 Bye\r\n")
    pair.layer.close()
    assert pair.hear() == [b"221 Bye\r\n", CLOSE_NOTIFY]


def test_what_comes_behind_close_notify_is_not_read(pair: Pair) -> None:
    pair.lower.receive(pair.end_client() + b"NOOP\r\n" * 9000)
    pair.lower.receive(b"NOOP\r\n")
    assert pair.upper.segments == []
    assert pair.upper.events == ["eof"]


def test_an_end_without_close_notify(pair: Pair) -> None:
    pair.say(b"DATA\r\nhalf a mess")
    assert pair.layer.eof_received()
    assert pair.upper.received == b"DATA\r\nhalf a mess"
    assert pair.upper.events == ["eof"]
    pair.layer.write(b"421 x\r\n")
    assert pair.hear() == [b"421 x\r\n"]


@pytest.mark.parametrize("notified", [False, True])
def test_a_protocol_that_wants_no_half_open_connection(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, notified: bool
) -> None:
    pair = Pair(server_context, client_context, Upper(keep_open=False))
    pair.shake()
    if notified:
        pair.lower.receive(pair.end_client())
    else:
        pair.layer.eof_received()
    assert pair.lower.events == ["close"]
    assert pair.hear() == [CLOSE_NOTIFY]


def test_the_end_comes_behind_what_waited(pair: Pair) -> None:
    async def main() -> None:
        pair.upper.on_segment = lambda octets: pair.layer.pause_reading()
        pair.upper.buffer = pair.upper.buffer[:4]
        pair.lower.receive(pair.flight(b"NOOPQUIT") + pair.end_client())
        pair.layer.resume_reading()
        pair.layer.eof_received()
        assert pair.upper.events == []
        await asyncio.sleep(0)
        assert pair.upper.segments == [b"NOOP", b"QUIT"]
        assert pair.upper.events == []
        pair.layer.resume_reading()
        await asyncio.sleep(0)
        assert pair.upper.events == ["eof"]

    on_uvloop(main)


# -- writing ----------------------------------------------------------------------------------------------------------


def test_a_reply_is_one_write(pair: Pair) -> None:
    pair.hear()
    pair.layer.write(b"250-mx.example\r\n250 PIPELINING\r\n")
    assert len(pair.lower.writes) == 1
    assert pair.hear_octets() == b"250-mx.example\r\n250 PIPELINING\r\n"


def test_a_large_write_is_exact(pair: Pair) -> None:
    pair.layer.write(BIG)
    pair.layer.write(b"")
    pair.layer.write(bytearray(b"end"))
    assert pair.hear_octets() == BIG + b"end"


def test_flow_control_is_passed_on(pair: Pair) -> None:
    pair.layer.pause_writing()
    pair.layer.resume_writing()
    assert pair.upper.events == ["pause", "resume"]
    assert pair.layer.get_write_buffer_size() == 12345


def test_flow_control_before_there_is_a_protocol_above(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    pair = Pair(server_context, client_context)
    pair.layer.pause_writing()
    pair.layer.resume_writing()
    pair.shake()
    assert pair.upper.events == []


def test_what_can_be_known_of_the_connection(pair: Pair) -> None:
    tls = pair.layer.get_extra_info("ssl_object")
    assert isinstance(tls, ssl.SSLObject)
    assert tls.version() == "TLSv1.3"
    assert pair.layer.get_extra_info("peername") == ("192.0.2.1", 25)
    assert pair.layer.get_extra_info("nothing", "default") == "default"


# -- the way out ------------------------------------------------------------------------------------------------------


@versions
def test_close_says_so_behind_what_was_written(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    with only(client_context, version):
        pair = Pair(server_context, client_context)
    pair.shake()
    pair.layer.write(b"221 Bye\r\n")
    assert not pair.layer.is_closing()
    pair.layer.close()
    pair.layer.close()
    pair.layer.write(b"too late")
    assert pair.layer.is_closing()
    assert pair.lower.events == ["close"]
    assert pair.hear() == [b"221 Bye\r\n", CLOSE_NOTIFY]


@versions
@pytest.mark.parametrize("cut", [0, 10])
def test_reading_goes_on_behind_the_end_of_writing(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion, cut: int
) -> None:
    with only(client_context, version):
        pair = Pair(server_context, client_context)
    pair.shake()
    assert pair.layer.can_write_eof()
    flight = pair.flight(b"half a record")
    pair.lower.receive(flight[:cut])
    pair.layer.write(b"421 x\r\n")
    pair.layer.write_eof()
    pair.layer.write_eof()
    assert pair.lower.events == ["write_eof"]
    pair.lower.receive(flight[cut:])
    pair.say(b"still talking")
    assert pair.upper.received == b"half a recordstill talking"
    assert pair.hear() == [b"421 x\r\n", CLOSE_NOTIFY]
    pair.lower.receive(pair.end_client())
    assert pair.upper.events == ["eof"]
    with pytest.raises(RuntimeError):
        pair.layer.write(b"more")
    pair.layer.close()
    assert pair.lower.events == ["write_eof", "close"]


@versions
def test_the_end_of_writing_loses_nothing_that_was_received(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    """OpenSSL reads no application data that it has got before close_notify was sent, and not decrypted."""
    with only(client_context, version):
        pair = Pair(server_context, client_context, Upper(room=1000))
    pair.shake()
    pair.upper.on_segment = lambda octets: pair.layer.write_eof()
    pair.say(BIG[:16000], BIG[16000:40000])
    assert pair.upper.received == BIG[:40000]
    assert pair.lower.events == ["write_eof"]
    assert pair.hear() == [CLOSE_NOTIFY]


def test_the_end_of_writing_while_paused(pair: Pair) -> None:
    """As when a session that waits for a hook is closed, with a client that talks on."""

    async def main() -> None:
        pair.layer.pause_reading()
        pair.layer.feed(pair.flight(b"NOOP\r\n"))
        pair.layer.write_eof()
        pair.layer.resume_reading()
        await asyncio.sleep(0)
        assert pair.upper.segments == [b"NOOP\r\n"]
        assert pair.lower.events == ["write_eof"]
        assert pair.hear() == [CLOSE_NOTIFY]

    on_uvloop(main)


def test_closing_with_something_unread(pair: Pair) -> None:
    pair.layer.pause_reading()
    pair.layer.feed(pair.flight(b"NOOP\r\n", b"RSET\r\n"))
    pair.layer.write(b"421 x\r\n")
    pair.layer.close()
    assert pair.lower.events == ["close"]
    assert pair.hear() == [b"421 x\r\n", CLOSE_NOTIFY]


def test_a_damaged_record_behind_the_end_of_writing(pair: Pair) -> None:
    pair.layer.write_eof()
    pair.lower.receive(b"NOOP\r\nNOOP\r\n")
    assert pair.lower.events == ["write_eof", "close"]


def test_everything_may_be_called_when_all_is_over(pair: Pair) -> None:
    pair.layer.connection_lost(None)
    pair.layer.write(b"x")
    pair.layer.write_eof()
    pair.layer.pause_reading()
    pair.layer.resume_reading()
    pair.layer.pause_writing()
    pair.layer.resume_writing()
    pair.layer.eof_received()
    pair.layer.feed(b"x")
    pair.layer.close()
    pair.layer.abort()
    assert pair.layer.get_extra_info("ssl_object") is None
    assert pair.layer.is_closing()
    assert pair.upper.events == ["lost None"]


# -- over real sockets ------------------------------------------------------------------------------------------------


class Served(Upper):
    """Echoes, within its transport's limits; QUIT ends it."""

    def __init__(self) -> None:
        super().__init__(keep_open=False)
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(b"220 mx.example\r\n")

    def buffer_updated(self, length: int) -> None:
        super().buffer_updated(length)
        octets = self.segments.pop()
        self.transport.write(octets)
        if octets.endswith(b"QUIT\r\n"):
            self.transport.close()

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


class Entrance(asyncio.BufferedProtocol):
    """Puts a layer on each new connection."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        lower, server = cast(asyncio.Transport, transport), self.server
        layer = TLSLayer(server.context, server.cipher_view, server.established, server.failures.put_nowait)
        lower.set_protocol(layer)
        layer.start(lower)


class Server:
    """Echo over TLS on a loop-back address."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.cipher_view = memoryview(bytearray(65536))
        self.failures: asyncio.Queue[str] = asyncio.Queue()
        self.connections: asyncio.Queue[Served] = asyncio.Queue()
        self.port = 0

    def established(self, layer: TLSLayer) -> None:
        upper = Served()
        layer.set_protocol(upper)
        upper.connection_made(layer)
        self.connections.put_nowait(upper)


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[Server]:
    server = Server(context)
    listener = await asyncio.get_running_loop().create_server(lambda: Entrance(server), "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server


def connect(
    server: Server, context: ssl.SSLContext | None
) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    name = None if context is None else "mx.example"
    return asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname=name)


@versions
def test_two_megabytes_both_ways(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        async with serving(server_context) as server:
            with only(client_context, version):
                reader, writer = await connect(server, client_context)
            assert await reader.readline() == b"220 mx.example\r\n"
            writer.write(BIG)  # the client reads only what comes back behind all of it
            assert await reader.readexactly(len(BIG)) == BIG
            writer.write(b"QUIT\r\n")
            assert await reader.read() == b"QUIT\r\n"
            upper = await server.connections.get()
            assert await upper.lost is None
            writer.close()
            await writer.wait_closed()

    on_uvloop(main)


def test_many_connections_share_one_buffer(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async def talk(server: Server, number: int) -> None:
        sent = random.Random(number).randbytes(200_000)
        reader, writer = await connect(server, client_context)
        await reader.readline()
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async with serving(server_context) as server, asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(talk(server, number))

    on_uvloop(main)


@pytest.mark.parametrize("octets", [b"EHLO x\r\n", b"EHLO x\r\nQUIT\r\n", b"HEAD / HTTP/1.0\r\n\r\n"])
def test_clear_text_over_a_socket_gets_a_close_and_no_octet(server_context: ssl.SSLContext, octets: bytes) -> None:
    """standards.md U18."""

    async def main() -> bytes:
        async with serving(server_context) as server:
            reader, writer = await connect(server, None)
            writer.write(octets)
            got = await reader.read()
            await server.failures.get()
            writer.close()
            await writer.wait_closed()
            return got

    assert on_uvloop(main) == b""


def test_a_client_that_leaves_in_the_handshake(server_context: ssl.SSLContext) -> None:
    async def main() -> str:
        async with serving(server_context) as server:
            _, writer = await connect(server, None)
            writer.write(b"\x16\x03\x01")
            writer.close()
            await writer.wait_closed()
            return await server.failures.get()

    assert on_uvloop(main) == "connection lost"


def test_a_client_that_is_gone_without_close_notify(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with serving(server_context) as server:
            reader, writer = await connect(server, client_context)
            await reader.readline()
            upper = await server.connections.get()
            writer.transport.abort()
            await upper.lost
            assert upper.events in (["eof"], [])  # FIN or RST, as the kernel likes

    on_uvloop(main)


def test_an_exception_above_closes_the_connection(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    def fail(octets: bytes) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        raised: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.append(context["exception"]))
        async with serving(server_context) as server:
            reader, writer = await connect(server, client_context)
            await reader.readline()
            upper = await server.connections.get()
            upper.on_segment = fail
            writer.write(b"NOOP\r\n")
            await upper.lost
            writer.transport.abort()
        assert [type(each) for each in raised] == [ZeroDivisionError]

    on_uvloop(main)


def test_nothing_is_left_for_the_collector(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    def layers() -> int:
        return sum(isinstance(each, TLSLayer) for each in gc.get_objects())

    async def main() -> None:
        async with serving(server_context) as server:
            reader, writer = await connect(server, client_context)
            await reader.readline()
            assert layers() == 1
            writer.write(b"QUIT\r\n")
            await reader.read()
            upper = await server.connections.get()
            await upper.lost
            writer.close()
            await writer.wait_closed()
            reader, clear = await connect(server, None)
            clear.write(b"EHLO x\r\n")
            await reader.read()
            clear.close()
            await clear.wait_closed()
            del upper  # refers to the layer, and the layer to nobody
            assert layers() == 0

    gc.collect()
    gc.disable()
    try:
        on_uvloop(main)
    finally:
        gc.enable()


def test_renegotiation_is_refused(server_context: ssl.SSLContext, require_program: Callable[[str], str]) -> None:
    """standards.md U19; CVE-2011-1473."""
    threads = set(threading.enumerate())
    openssl = require_program("openssl")

    def renegotiate(port: int) -> subprocess.CompletedProcess[bytes]:
        command = [openssl, "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}"]
        return subprocess.run(command, input=b"R\n", capture_output=True, timeout=DEADLINE)

    async def main() -> subprocess.CompletedProcess[bytes]:
        async with serving(server_context) as server:
            result = await asyncio.to_thread(renegotiate, server.port)
            upper = await server.connections.get()
            await upper.lost
            return result

    result = on_uvloop(main)
    _, begun, behind = result.stderr.partition(b"RENEGOTIATING")
    assert begun
    # It gives up, with one of two errors: by what was on its way to it when its handshake began.
    assert result.returncode != 0
    assert b"no renegotiation" in behind or b"unexpected record" in behind
    assert b"depth=0" not in behind  # it saw no certificate: there was no second handshake
    assert set(threading.enumerate()) <= threads
