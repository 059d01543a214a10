"""Passing mail straight on: the 250 waits for the next hop's 250.

What it guarantees: None for a message means that the next hop has accepted it for all its recipients, and with it the
responsibility. An LMTP client hears what the hop says of each. An SMTP client has one reply for all: if the hop refuses
one of them it hears that refusal and nothing was sent, unless the hop said so only behind the content (LMTP): then
those it took have the message, and a client that tries again brings them a second copy. If the connection breaks
between content and answer, the client gets 451: a duplicate, never a loss.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from fastsmtp.client import HopError, Outgoing, Patience, Pool, Response, TransferError, parse_hop
from fastsmtp.client.secrets import read_secret
from fastsmtp.protocol.replies import TEMPORARY_FAILURE, Reply

from .contract import StoreError
from .trace import received

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastsmtp.protocol.envelope import Message

_UNKNOWN: Final = Reply(451, "4.4.2", "the next hop did not answer, try again later")
# Less than `data_hook_timeout`, so that it is us who say what happened.
_PATIENCE: Final = Patience(connect=15, command=60, block=60, end=240)


class Forward:
    """Sends each message to one next hop, over connections that are kept.

    Args:
        location: the hop: ``smtp://HOST[:PORT]``, ``smtps://``, ``lmtp://HOST:PORT`` or ``lmtp://unix:/PATH``; see
            `fastsmtp.client.parse_hop`.
        slot: the worker's slot, of no use here.
    """

    # One slow message shall not hold up those that came with it, nor those behind it. As many as a batch holds.
    parallel_batches = 256

    def __init__(self, location: str, slot: int) -> None:
        self._hop = parse_hop(location)
        self._pool = Pool(self._hop, _PATIENCE)

    @staticmethod
    def check(location: str) -> None:
        """Raises ValueError unless the location is a next hop."""
        parse_hop(location)

    @staticmethod
    def describe(location: str) -> str:
        return f"the next hop, {parse_hop(location)}"

    async def __aenter__(self) -> Forward:
        """Looks whether there is a password if one is needed. The hop may be down: that is for each message to find.

        Raises:
            StoreError: there is none.
        """
        if self._hop.password:
            try:
                read_secret(self._hop.password)
            except ValueError as error:
                raise StoreError(TEMPORARY_FAILURE, f"store forward:{self._hop}: {error}") from None
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pool.close()

    async def store(self, batch: Sequence[Message]) -> Sequence[StoreError | None]:
        """Sends the messages side by side; see `Store.store`."""
        if len(batch) == 1:
            return [await self._send(batch[0])]
        return await asyncio.gather(*map(self._send, batch))

    def free_bytes(self) -> None:
        """The next hop says at each message whether it has room."""

    async def _send(self, message: Message) -> StoreError | None:
        try:
            header = received(message, time.time())
            all_or_none = not message.session.is_lmtp
            outgoing = Outgoing(message.sender, message.recipients, message.content, header, all_or_none=all_or_none)
            answers = (await self._pool.send(outgoing, message.session.server_name)).answers
        except (HopError, TransferError, ValueError) as error:
            reply = error.response.reply() if isinstance(error, HopError) else _UNKNOWN
            return StoreError(reply, f"message {message.id}: {error}")
        refusal = _worst(answers)
        if refusal is None:
            return None
        replies = [None if answer.is_ok else answer.reply() for answer in answers]
        return StoreError(refusal.reply(), f"message {message.id}: {self._hop} refused it: {refusal}", replies)


def _worst(answers: Sequence[Response]) -> Response | None:
    """What the client is told if not all is well.

    A temporary refusal counts for more than a permanent one: what is tried again is lost for nobody, while a 550 ends
    it for those too who could have had it later.
    """
    refusals = [answer for answer in answers if not answer.is_ok]
    return min(refusals, key=lambda answer: answer.is_permanent, default=None)
