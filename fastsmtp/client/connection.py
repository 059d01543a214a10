"""One connection to a next hop: greeting, TLS, login, then message after message.

What it guarantees: `send` returns an answer for each recipient, or raises. An exception that says `before_content`
means that the hop cannot have the message; without it the hop may have it, and a second try may be a second copy.

What it assumes: one task uses it at a time, on one event loop.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from typing import Final

from fastsmtp.protocol.envelope import Recipient, Sender

from .dialogue import Dialogue, Patience
from .errors import HandshakeError, HopError, TransferError
from .extensions import Extensions, read_extensions
from .hop import Hop
from .login import MECHANISMS, lines_of
from .outgoing import Outgoing
from .responses import Response, local_response
from .secrets import read_secret
from .stream import Stream
from .tls import tls_context
from .transaction import Transaction

_NO_ANSWER: Final = local_response(451, "4.4.1", "no answer from the next hop")
_NO_TLS: Final = local_response(451, "4.7.5", "the next hop offers no TLS that will do")
_NO_LOGIN: Final = local_response(451, "4.7.0", "the next hop does not let us in")


class Connection:
    """A connection that is ready for messages. Made by `Connection.open`.

    Attributes:
        hop: who is at the other end.
        extensions: what it offers.
        messages: transactions begun over it.
        is_tls: TLS protects it.
    """

    def __init__(self, hop: Hop, dialogue: Dialogue, extensions: Extensions, is_tls: bool) -> None:
        self.hop = hop
        self.extensions = extensions
        self.messages = 0
        self.is_tls = is_tls
        self._dialogue = dialogue

    @classmethod
    async def open(cls, hop: Hop, name: str, patience: Patience) -> Connection:
        """Connects and goes as far as MAIL.

        Args:
            hop: where to.
            name: who we say we are in EHLO.
            patience: how long to wait.

        Raises:
            HopError: it cannot be used; the response may be said to others.
        """
        try:
            return await _Opening(hop, name, patience).run()
        except HandshakeError as error:
            if hop.security != "opportunistic":
                raise HopError(_NO_TLS, f"{hop}: {error}") from None
        # RFC 7435 3: some protection is better than none, and none is better than no mail.
        return await _Opening(replace(hop, security="off"), name, patience).run()

    @property
    def is_stale(self) -> bool:
        """Whether the hop has hung up in the meantime."""
        return self._dialogue.is_over

    async def send(self, outgoing: Outgoing) -> list[Response]:
        """One transaction.

        Returns:
            What became of each recipient, in their order. If `outgoing.all_or_none` and one of them was refused before
            the content, nothing was sent, and the answers of the others mean nothing.

        Raises:
            TransferError: nobody knows what became of it; the connection is closed.
        """
        self.messages += 1
        return await Transaction(self._dialogue, self.extensions, self.hop.lmtp, outgoing).run()

    async def verify(self, recipient: Recipient) -> list[Response]:
        """What it says to one recipient, without a message; raises what `send` raises."""
        probe = Outgoing(Sender("", ""), [recipient], memoryview(b""))
        return await Transaction(self._dialogue, self.extensions, self.hop.lmtp, probe).probe()

    async def quit(self) -> None:
        """Close it in good order."""
        await self._dialogue.quit()

    def abort(self) -> None:
        """Drop it."""
        self._dialogue.abort()


def _not_wanted(answer: Response) -> Response:
    """A server that does not talk to us at all says nothing of the message, so that is not refused for good."""
    return local_response(451, "4.3.2", f"the next hop does not talk to us: {answer}")


async def _connected(hop: Hop, context: ssl.SSLContext | None) -> Stream:
    loop = asyncio.get_running_loop()
    if hop.path:
        return (await loop.create_unix_connection(Stream, hop.path))[1]
    name = hop.host if context else None
    return (await loop.create_connection(Stream, hop.address or hop.host, hop.port, ssl=context, server_hostname=name))[
        1
    ]


class _Opening:
    """From no connection to one that is ready."""

    def __init__(self, hop: Hop, name: str, patience: Patience) -> None:
        self._hop = hop
        self._name = name.encode()
        self._patience = patience
        self._verify = hop.security == "required"

    async def run(self) -> Connection:
        dialogue = await self._connect()
        try:
            return await self._greet(dialogue)
        except TransferError as error:
            dialogue.abort()
            raise HopError(_NO_ANSWER, f"{self._hop}: {error.reason}") from None
        except BaseException:
            dialogue.abort()
            raise

    async def _connect(self) -> Dialogue:
        hop = self._hop
        context = self._context() if hop.implicit_tls else None
        try:
            async with asyncio.timeout(self._patience.connect):
                stream = await _connected(hop, context)
        except TimeoutError:
            raise HopError(_NO_ANSWER, f"{hop}: no connection within {self._patience.connect:g} s") from None
        except ssl.SSLError as error:
            raise HandshakeError(f"TLS: {error}") from None
        except OSError as error:
            raise HopError(_NO_ANSWER, f"{hop}: {error.strerror or error}") from None
        return Dialogue(stream, self._patience)

    async def _greet(self, dialogue: Dialogue) -> Connection:
        banner = await dialogue.response(self._patience.command)
        if not banner.is_ok:
            raise HopError(_not_wanted(banner), f"{self._hop}: does not want us: {banner}")
        is_tls = self._hop.implicit_tls
        extensions = await self._hello(dialogue, is_tls)
        if not is_tls and self._hop.security != "off":
            is_tls = await self._start_tls(dialogue, extensions)
            extensions = await self._hello(dialogue, is_tls) if is_tls else extensions  # RFC 3207 4.2: forget the rest
        if self._hop.user:
            await self._log_in(dialogue, extensions)
        return Connection(self._hop, dialogue, extensions, is_tls)

    async def _hello(self, dialogue: Dialogue, is_tls: bool) -> Extensions:
        hello = await dialogue.ask((b"LHLO " if self._hop.lmtp else b"EHLO ") + self._name)
        if hello.is_permanent and not self._hop.lmtp:  # RFC 5321 3.2: a server of old
            hello = await dialogue.ask(b"HELO " + self._name)
            hello = replace(hello, lines=hello.lines[:1])
        if not hello.is_ok:
            raise HopError(_not_wanted(hello), f"{self._hop}: does not take our greeting: {hello}")
        return read_extensions(hello, verified=is_tls and self._verify)

    async def _start_tls(self, dialogue: Dialogue, extensions: Extensions) -> bool:
        if "STARTTLS" in extensions:
            answer = await dialogue.ask(b"STARTTLS")
            if answer.is_ok:
                await dialogue.start_tls(self._context(), self._hop.host)
                return True
        if self._hop.security != "opportunistic":
            raise HopError(_NO_TLS, f"{self._hop}: STARTTLS is not offered, or refused")
        return False

    def _context(self) -> ssl.SSLContext:
        try:
            return tls_context(self._verify, self._hop.ca)
        except ssl.SSLError as error:
            raise HopError(_NO_TLS, f"{self._hop}: {self._hop.ca}: {error}") from None
        except OSError as error:
            raise HopError(_NO_TLS, f"{self._hop}: {self._hop.ca}: {error.strerror}") from None

    async def _log_in(self, dialogue: Dialogue, extensions: Extensions) -> None:
        offered = extensions.keywords.get("AUTH", "").upper().split()
        mechanism = next((each for each in MECHANISMS if each in offered), None)
        if mechanism is None:
            raise HopError(_NO_LOGIN, f"{self._hop}: offers none of AUTH {', '.join(MECHANISMS)}")
        try:
            password = read_secret(self._hop.password)
        except ValueError as error:
            raise HopError(_NO_LOGIN, f"{self._hop}: {error}") from None
        for line in lines_of(mechanism, self._hop.user, password):
            answer = await dialogue.ask(line)
            if answer.code not in (235, 334):
                raise HopError(_NO_LOGIN, f"{self._hop}: login as {self._hop.user}: {answer}")
        if answer.code != 235:
            raise HopError(_NO_LOGIN, f"{self._hop}: login as {self._hop.user}: {answer}")
