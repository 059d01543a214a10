"""The octets of a connection as a task reads and writes them.

asyncio's own streams would do, were it not for STARTTLS: in Python 3.11 a `StreamWriter` whose handshake fails is left
without its transport, and cannot even be closed.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, cast

_MAX_UNREAD: Final = 2**20  # octets; all the replies to a thousand recipients are a tenth of it


class Stream(asyncio.Protocol):
    """One connection; one task reads, one writes. It is ready once the event loop has connected it."""

    def __init__(self) -> None:
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # -- for its user -------------------------------------------------------------------------------------------------

    @property
    def has_octets(self) -> bool:
        """Whether something was received that nobody has read."""
        return bool(self._received)

    async def read(self) -> bytes:
        """What has come; empty at the end.

        Raises:
            OSError: the connection broke.
        """
        while not self._received:
            if self.is_closed:
                if self._error:
                    raise self._error
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self.take()

    def take(self) -> bytes:
        """What has come, without waiting."""
        octets = bytes(self._received)
        self._received.clear()
        return octets

    def write(self, octets: bytes | bytearray) -> bool:
        """Returns whether there is room for more; if not, wait with `drain`.

        Raises:
            OSError: the connection is closed.
        """
        if self.is_closed:
            raise self._error or ConnectionResetError("closed by the other side")
        self._open().write(octets)
        return self._writable.is_set()

    async def drain(self) -> None:
        """Returns when there is room for more; raises what `write` raises."""
        await self._writable.wait()
        if self.is_closed:
            raise self._error or ConnectionResetError("closed by the other side")

    async def start_tls(self, context: ssl.SSLContext, host: str, seconds: float) -> None:
        """Goes on inside TLS.

        Raises:
            OSError: no handshake, not in time, or a certificate that is not good.
        """
        secured = await asyncio.get_running_loop().start_tls(
            self._open(), self, context, server_hostname=host, ssl_handshake_timeout=seconds
        )
        if secured is None:
            raise ConnectionResetError("closed in the middle of the handshake")
        self._transport = secured

    def abort(self) -> None:
        """Closes it at once; what was written and is not sent yet is lost."""
        self.is_closed = True
        self._open().abort()

    # -- for the event loop -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > _MAX_UNREAD:  # while we send, nobody reads: it could fill our memory
            self._received.clear()
            self._error = ConnectionAbortedError(f"the other side said more than {_MAX_UNREAD} octets at a time")
            self._writable.set()
            self.abort()
        self._wake()

    def eof_received(self) -> None:
        self.is_closed = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._error = self._error or exc
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _wake(self) -> None:
        if self._reader and not self._reader.done():
            self._reader.set_result(None)

    def _open(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport
