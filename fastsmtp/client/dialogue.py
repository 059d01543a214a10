"""Commands and answers over one stream, each wait with an end. Whatever breaks it is a `TransferError`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from .errors import HandshakeError, TransferError
from .responses import Response, ResponseParser
from .stream import Stream


class Patience(NamedTuple):
    """Seconds to wait for the next hop; the defaults are those of RFC 5321 4.5.3.2, but for connecting."""

    connect: float = 30.0
    command: float = 300.0
    block: float = 180.0  # for the hop to take a block of content
    end: float = 600.0  # for the answer to the end of the content


class Dialogue:
    """The octets of one connection to a next hop.

    Args:
        stream: to the hop; `abort` and `quit` end it.
        patience: how long to wait.
    """

    def __init__(self, stream: Stream, patience: Patience) -> None:
        self.patience: Final = patience
        self._stream = stream
        self._parser = ResponseParser()

    @property
    def is_over(self) -> bool:
        """Whether the hop has hung up, or has said what nobody asked for: that is a goodbye."""
        return self._stream.is_closed or self._stream.has_octets or not self._parser.is_empty

    async def ask(self, command: bytes, seconds: float | None = None) -> Response:
        """One command, without its CR LF, and its answer."""
        await self.write(command + b"\r\n")
        return await self.response(self.patience.command if seconds is None else seconds)

    async def write(self, octets: bytes | bytearray) -> None:
        """Returns when the hop has taken so much that there is room for more."""
        try:
            if self._stream.write(octets):
                return
        except OSError as error:
            raise _broken(error) from None
        async with _ending_in(self.patience.block, "takes no more octets"):
            await self._stream.drain()

    async def response(self, seconds: float) -> Response:
        """The next answer."""
        if said := self._parser.next():
            return said
        async with _ending_in(seconds, "gives no answer"):
            while (response := self._parser.next()) is None:
                octets = await self._stream.read()
                if not octets:
                    raise TransferError("the next hop has closed the connection")
                self._parser.feed(octets)
        return response

    def last_word(self) -> Response | None:
        """What was said and not heard yet, on a connection that has broken."""
        self._parser.feed(self._stream.take())
        return self._parser.next()

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """The handshake behind an accepted STARTTLS.

        What the hop said in clear text behind its answer must not be taken for something said inside TLS: somebody in
        between can have put it there.

        Raises:
            HandshakeError: it failed.
        """
        if self._stream.has_octets or not self._parser.is_empty:
            raise TransferError("the next hop talked on behind its answer to STARTTLS")
        try:
            await self._stream.start_tls(context, host, self.patience.connect)
        except OSError as error:  # ssl.SSLError is one
            raise HandshakeError(f"TLS: {str(error) or type(error).__name__}") from None

    def abort(self) -> None:
        self._stream.abort()

    async def quit(self) -> None:
        """Says goodbye and does not wait long for the answer."""
        with contextlib.suppress(TransferError):
            await self.ask(b"QUIT", min(2.0, self.patience.command))
        self._stream.abort()


@contextlib.asynccontextmanager
async def _ending_in(seconds: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TransferError(f"the next hop {what}, not within {seconds:g} s") from None
    except OSError as error:
        raise _broken(error) from None


def _broken(error: OSError) -> TransferError:
    return TransferError(f"the connection to the next hop broke: {error}")
