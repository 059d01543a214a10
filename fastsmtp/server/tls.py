"""TLS between a socket's transport and our protocol.

Guarantees: nothing but the octets of TLS leaves the server, whatever the client sends; the protocol above sees
segments, pauses, an end and a loss as it would on a plain transport, in the same order, and nothing from within its
own calls; ciphertext waits for a paused protocol for one read at most; TLS that breaks ends the connection, and is
never an exception of the loop. After the connection is lost, nothing here refers to anything above.

Assumes: a transport that reads nothing while paused; one thread, that of the loop; a protocol above that does not
read into `cipher_view`.

Why not the event loop's own TLS: STARTTLS needs to know where clear text ends, and an idle connection costs 18 KiB of
memory here, 47 KiB with uvloop's; one that has received 200 kB costs 39 KiB here, some 165 KiB with uvloop's (500
clients, anonymous RSS, TLS 1.3, OpenSSL 3.0; TLS 1.2: 1 KiB less). 16 of the 18 are OpenSSL's own; OpenSSL 3.5 takes
34 itself, 8 of them for the post-quantum key exchange that it prefers.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

# Octets that are given to OpenSSL at a time. A memory BIO never shrinks again; with whole reads of 64 KiB, a connection
# that has received 200 kB kept 81 KiB instead of 39. Decrypting takes a fifth more time: 1.7 GB/s instead of 2.2.
_PIECE: Final = 16384
_RECORD: Final = 16384  # octets of clear text in a record at most (RFC 8446 5.1)
_NO_OCTETS: Final = memoryview(b"")


class TLSLayer(asyncio.BufferedProtocol, asyncio.Transport):
    """To the socket's transport a protocol; to the protocol above it a transport.

    The handshake has no deadline here: whoever set one calls `abort`.

    Args:
        context: of the server.
        cipher_view: where ciphertext is read into. All connections of a loop may share it: what is in it is used up,
            or copied, before the next read.
        established: called once, when the handshake is done and before the first octet of clear text is delivered;
            it installs the protocol above with `set_protocol`.
        failed: called once, with a reason for the log, if there never will be a connection to speak of: the
            handshake failed, or the connection was lost before its end, also by `abort`.
    """

    __slots__ = (
        "_broken",
        "_cipher_view",
        "_ciphertext",
        "_closing",
        "_dry",
        "_ended",
        "_established",
        "_failed",
        "_incoming",
        "_notified",
        "_outgoing",
        "_paused",
        "_scheduled",
        "_tls",
        "_told_end",
        "_transport",
        "_upper",
        "_write_ended",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        cipher_view: memoryview,
        established: Callable[[TLSLayer], None],
        failed: Callable[[str], None],
    ) -> None:
        # per process
        self._cipher_view = cipher_view
        # per connection
        self._transport: asyncio.Transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._upper: asyncio.BufferedProtocol | None = None
        # until the handshake is done
        self._established: Callable[[TLSLayer], None] | None = established
        self._failed: Callable[[str], None] | None = failed
        # reading
        self._ciphertext = _NO_OCTETS  # read, and not yet given to OpenSSL
        self._paused = False  # by the protocol above
        self._scheduled = False  # decrypting goes on in a moment
        self._dry = False  # close_notify was read: there is nothing behind it
        self._ended = False  # nothing more comes from the client
        self._told_end = False  # and the protocol above knows it
        # the way out
        self._write_ended = False  # by the protocol above
        self._notified = False  # close_notify is sent
        self._broken = False  # OpenSSL can go on no more
        self._closing = False

    # -- to the transport below ---------------------------------------------------------------------------------------

    def start(self, transport: asyncio.Transport) -> None:
        """Take over a transport, whose protocol the caller makes this."""
        self._transport = transport

    def feed(self, octets: bytes) -> None:
        """Take ciphertext that somebody has read before."""
        self._receive(memoryview(octets))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._cipher_view

    def buffer_updated(self, length: int) -> None:
        self._receive(self._cipher_view[:length])

    def eof_received(self) -> bool:
        """The client's end, or that of who cuts its connection off.

        An end without close_notify is no danger here: the end of an SMTP message is explicit, and so is a command's.
        """
        self._ended = True
        if self._established is not None:
            self._fail("connection lost")
        elif not (self._paused or self._scheduled):
            self._tell_end()
        return True  # we close by ourselves if the protocol above wants that

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        upper, failed = self._upper, self._failed
        try:
            if failed is not None:
                failed("connection lost")
            elif upper is not None:
                upper.connection_lost(exc)
        finally:
            self._let_go()

    def pause_writing(self) -> None:
        # Without a protocol above nobody needs to know: by the end of a handshake, the client has read what we wrote.
        if self._upper is not None:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        if self._upper is not None:
            self._upper.resume_writing()

    def _let_go(self) -> None:
        """Keep nobody alive; a cycle would wait for the collector with all its memory."""
        self._tls = self._upper = self._established = self._failed = None
        self._ciphertext = _NO_OCTETS
        del self._incoming, self._outgoing

    # -- handshake ----------------------------------------------------------------------------------------------------

    def _receive(self, ciphertext: memoryview) -> None:
        if self._closing:
            return
        if self._ciphertext:  # only if `feed` comes in a pause
            ciphertext = memoryview(bytes(self._ciphertext) + bytes(ciphertext))
        self._ciphertext = ciphertext
        if self._established is not None:
            self._shake_hands()
        self._decrypt()
        if self._ciphertext:  # until the protocol above resumes; the buffer is somebody else's by then
            self._ciphertext = memoryview(bytes(self._ciphertext))

    def _shake_hands(self) -> None:
        tls = self._tls
        assert tls is not None
        while self._established is not None and self._ciphertext:
            self._supply()
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError as error:
                self._fail(_explain(error))
            else:
                self._flush()
                self._finish_handshake()

    def _finish_handshake(self) -> None:
        established = self._established
        assert established is not None
        self._established = self._failed = None
        established(self)

    def _fail(self, reason: str) -> None:
        """There is no way back to clear text: an alert, if OpenSSL knows one, and out."""
        failed = self._failed
        self._established = self._failed = None
        self._ciphertext = _NO_OCTETS
        self._broken = True
        self._flush()
        if failed is not None:
            failed(reason)
        self.close()

    # -- decrypting ---------------------------------------------------------------------------------------------------

    def _decrypt(self) -> None:
        """Deliver what has come, until the protocol above pauses."""
        while not (self._paused or self._closing) and self._has_ciphertext():
            self._deliver()
        if self._paused or self._closing:
            return
        if self._write_ended:
            self._notify()
        if self._ended:
            self._tell_end()

    def _deliver(self) -> None:
        """Fill the buffer of the protocol above as far as it goes, as a read from a socket would."""
        upper = self._upper
        if upper is None:  # forgotten by `established`: nobody would ever read this
            self.abort()
            return
        view = memoryview(upper.get_buffer(-1))
        if not view:
            raise RuntimeError("get_buffer() returned an empty buffer")
        filled = self._fill(view)
        self._flush()  # an answer to a key update, a refusal to renegotiate, an alert
        if filled:
            upper.buffer_updated(filled)
        if self._broken:
            self.close()

    def _fill(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view) and self._has_ciphertext():
            filled += self._read(view[filled:])
        return filled

    def _has_ciphertext(self) -> bool:
        """Whether reading may bring something. An exception that says so costs three times the check."""
        if self._dry or self._broken:
            return False
        tls = self._tls
        if self._incoming.pending or (tls is not None and tls.pending()):
            return True
        return bool(self._ciphertext) and self._supply()

    def _supply(self) -> bool:
        self._incoming.write(self._ciphertext[:_PIECE])
        self._ciphertext = self._ciphertext[_PIECE:]
        return True

    def _read(self, view: memoryview) -> int:
        tls = self._tls
        assert tls is not None
        try:
            # Any writable buffer will do, and with one it returns a number, whatever the annotations say.
            octets = cast(int, tls.read(len(view), cast(bytearray, view)))
        except ssl.SSLWantReadError:  # a part of a record
            return 0
        except ssl.SSLZeroReturnError:  # close_notify, and we have sent ours
            octets = 0
        except ssl.SSLError:
            self._broken = True
            return 0
        if not octets:
            self._dry = self._ended = True
        return octets

    def _tell_end(self) -> None:
        if self._told_end or self._closing or self._upper is None:
            return
        self._told_end = True
        if not self._upper.eof_received():
            self.close()

    def _go_on(self) -> None:
        """The protocol above has resumed, in an earlier call of the loop."""
        self._scheduled = False
        if self._paused or self._closing:
            return
        try:
            self._decrypt()
        except BaseException:
            self.abort()  # as the loop does with a transport whose protocol raises
            raise
        if not (self._paused or self._closing):
            self._transport.resume_reading()

    # -- to the protocol above: reading -------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Make a protocol, an asyncio.BufferedProtocol, the one above from now on."""
        self._upper = cast(asyncio.BufferedProtocol, protocol)

    def pause_reading(self) -> None:
        """Deliver nothing, and read nothing, until `resume_reading`."""
        if not (self._paused or self._closing):
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Deliver what waits, in another call of the loop, then read on."""
        if not self._paused or self._closing:
            return
        self._paused = False
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._go_on)

    # -- to the protocol above: writing -------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send. Nothing happens after `close`; after `write_eof` it is a mistake."""
        tls = self._tls
        if self._closing or self._broken or tls is None:
            return
        if self._write_ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        try:
            if len(data) <= _RECORD:
                self._write_record(tls, data)
            else:
                self._write_records(tls, memoryview(data))
        except ssl.SSLError:
            self._broken = True
            self.close()

    def _write_record(self, tls: ssl.SSLObject, data: bytes | bytearray | memoryview) -> None:
        if data:
            tls.write(data)
            self._flush()

    def _write_records(self, tls: ssl.SSLObject, view: memoryview) -> None:
        """One by one, because a memory BIO keeps the size of what was in it."""
        for start in range(0, len(view), _RECORD):
            self._write_record(tls, view[start : start + _RECORD])

    def _flush(self) -> None:
        if self._outgoing.pending:
            octets = self._outgoing.read()
            if not self._notified:  # behind close_notify nothing may follow
                self._transport.write(octets)

    def get_write_buffer_size(self) -> int:
        """Octets of ciphertext that the transport below has not sent."""
        return self._transport.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Say that nothing more will be written: close_notify, and the end of the stream. Reading goes on."""
        if self._write_ended or self._closing or self._broken or self._tls is None:
            return
        self._write_ended = True
        # OpenSSL would refuse to read what it has not yet decrypted when close_notify is sent ("application data
        # after close notify"); then it is sent behind that.
        if not (self._incoming.pending or self._tls.pending()):
            self._notify()

    def _notify(self) -> None:
        if not self._notified:
            self._send_close_notify()
            self._transport.write_eof()

    def _send_close_notify(self) -> None:
        tls = self._tls
        if tls is None or self._notified or self._broken:
            return
        with suppress(ssl.SSLError):  # it is in the BIO all the same; what OpenSSL misses is the client's
            tls.unwrap()
        self._flush()
        self._notified = True

    # -- to the protocol above: the way out ---------------------------------------------------------------------------

    def close(self) -> None:
        """Send close_notify behind what was written, and close without waiting for the client's (RFC 8446 6.1)."""
        if self._closing:
            return
        self._closing = True
        if self._established is None:
            self._send_close_notify()
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection, at any time: in the handshake, and after `close`."""
        self._closing = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def get_extra_info(self, name: str, default: object = None) -> Any:  # as asyncio has it
        """What the transport below knows, and the `ssl.SSLObject` by the name `ssl_object`."""
        return self._tls if name == "ssl_object" else self._transport.get_extra_info(name, default)


def _explain(error: ssl.SSLError) -> str:
    """OpenSSL's reason, in words; it has no octet of the client's."""
    reason = (error.reason or "TLS error").replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{reason}: {error.verify_message}"
    return reason
