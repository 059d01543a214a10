"""One attempt at one item: host after host, until every recipient has an answer that counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fastsmtp.client import Hop, HopError, Outgoing, Response, Sent, TransferError
from fastsmtp.client.responses import local_response
from fastsmtp.protocol.envelope import DeliverBy, Sender

from .dkim import Signer, signatures
from .fate import Fate
from .pools import Pools
from .received import count_received
from .routes import NoRouteError, Routes

if TYPE_CHECKING:
    from fastsmtp.queue import Item

TOO_MANY_HOPS: Final = local_response(554, "5.4.6", "too many hops, the message is in a loop")
# RFC 5321 4.5.3.1.10: the others come with the next transaction, also where it is said with the older 552.
_TOO_MANY_RECIPIENTS: Final = ((452, "4.5.3"), (552, "5.5.3"))


class Attempts:
    """Makes attempts.

    Args:
        routes: find the hosts of a domain.
        pools: talk to them.
        signers: DKIM keys.
        max_received: Received fields from which on a message is in a loop (RFC 5321 6.3).
    """

    def __init__(self, routes: Routes, pools: Pools, signers: Sequence[Signer], max_received: int) -> None:
        self._routes = routes
        self._pools = pools
        self._signers = signers
        self._max_received = max_received

    async def make(self, item: Item) -> list[Fate]:
        """Tries each host of the destination as long as recipients are left; returns what became of each recipient."""
        if count_received(item.content) > self._max_received:
            return [Fate(recipient, TOO_MANY_HOPS) for recipient in item.recipients]
        try:
            hops = await self._routes.hops(item.destination)
        except NoRouteError as error:
            return [Fate(recipient, error.response) for recipient in item.recipients]
        # In a thread: a large message would hold up all others for as long as it is hashed.
        header = await asyncio.to_thread(_signatures, self._signers, item) if self._signers else b""
        journey = _Journey(item, self._pools, header)
        for hop in hops:
            await journey.stop_at(hop.secured() if item.sender.require_tls and not hop.path else hop)
            if journey.is_over:
                break
        return journey.fates


class _Journey:
    """An item on its way along the hosts of its destination."""

    def __init__(self, item: Item, pools: Pools, header: bytes) -> None:
        self._item = item
        self._pools = pools
        self._fates: dict[int, Fate] = {}  # by the recipient's place
        self._given_up = False
        self._header = header

    @property
    def fates(self) -> list[Fate]:
        return [self._fates[place] for place in range(len(self._item.recipients))]

    @property
    def is_over(self) -> bool:
        return self._given_up or not self._left

    @property
    def _left(self) -> list[int]:
        """The places of those that another host may still take: it may also offer what the last one lacked."""
        fates = self._fates
        return [
            place
            for place in range(len(self._item.recipients))
            if place not in fates
            or fates[place].is_deferred
            or (fates[place].is_failed and fates[place].response.local)
        ]

    async def stop_at(self, hop: Hop) -> None:
        """Offers a host what is left, again as long as it takes some and has had too many recipients for the rest."""
        left = self._left
        while left:
            taken = await self._offer(hop, left)
            crowd = [place for place in left if self._was_one_too_many(place)]
            left = crowd if taken else []

    async def _offer(self, hop: Hop, places: list[int]) -> bool:
        """One transaction; whether the host took somebody."""
        recipients = [self._item.recipients[place] for place in places]
        outgoing = Outgoing(_sender_for(hop, self._item), recipients, self._item.content, self._header)
        try:
            sent = await self._pools.send(hop, outgoing)
        except HopError as error:
            self._note_all(places, hop, error.response, error.reason)
            return False
        except TransferError as error:
            self._note_all(places, hop, local_response(451, "4.4.2", error.reason))
            # It may have the message: another host would be a second copy, so the others wait for the next attempt.
            self._given_up = not error.before_content
            return False
        return self._note(places, hop, sent)

    def _note(self, places: list[int], hop: Hop, sent: Sent) -> bool:
        for place, answer in zip(places, sent.answers, strict=True):
            recipient = self._item.recipients[place]
            self._fates[place] = Fate(recipient, answer, hop, sent.is_tls, sent.told_on)
        return any(answer.is_ok for answer in sent.answers)

    def _note_all(self, places: list[int], hop: Hop, response: Response, reason: str = "") -> None:
        for place in places:
            self._fates[place] = Fate(self._item.recipients[place], response, hop, reason=reason)

    def _was_one_too_many(self, place: int) -> bool:
        response = self._fates[place].response
        return (response.code, response.enhanced) in _TOO_MANY_RECIPIENTS


def _signatures(signers: Sequence[Signer], item: Item) -> bytes:
    """What goes in front of the message; made once for all hosts, as it takes a look at every octet."""
    outgoing = Outgoing(item.sender, item.recipients, item.content)
    return b"" if outgoing.is_binary else signatures(signers, outgoing.lines(), time.time())


def _sender_for(hop: Hop, item: Item) -> Sender:
    """The sender as this host is to hear of it: what is left of its time, and no REQUIRETLS within one machine."""
    sender = item.sender
    if sender.deliver_by:  # RFC 2852 4.1.4
        left = int(item.accepted_at + sender.deliver_by.seconds - time.time())
        mode = sender.deliver_by.mode
        sender = replace(sender, deliver_by=DeliverBy(max(left, 1) if mode == "R" else left, *sender.deliver_by[1:]))
    return replace(sender, require_tls=False) if sender.require_tls and hop.path else sender
