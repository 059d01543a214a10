"""Which hosts take the mail of a domain: one relay for all, or the domain's exchangers (RFC 5321 5)."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final, Protocol

from fastsmtp.client import Hop, Response
from fastsmtp.client.responses import local_response

from .resolver import Exchanger, LookupFailedError, NoSuchDomainError, Resolver

_MAX_HOSTS: Final = 10  # addresses that one attempt tries; RFC 5321 5.1 asks for at least two
NO_SUCH_DOMAIN: Final = local_response(550, "5.1.2", "there is no such domain")
NULL_MX: Final = local_response(556, "5.1.10", "the domain takes no mail (null MX)")  # RFC 7505 4
NO_HOST: Final = local_response(550, "5.4.4", "no host takes mail for the domain")
LOOP: Final = local_response(554, "5.4.6", "the mail exchanger of the domain is this host: a loop")
BAD_LITERAL: Final = local_response(550, "5.1.2", "the address literal is of no use")


class NoRouteError(Exception):
    """There is nowhere to go.

    Attributes:
        response: what is said of all recipients of the domain.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(str(response))
        self.response = response


class Routes(Protocol):
    """Finds the way to a domain."""

    async def hops(self, domain: str) -> Sequence[Hop]:
        """The hosts to try, in this order; at least one.

        Raises:
            NoRouteError: there is none, or nobody knows at the moment.
        """
        ...


@dataclass(frozen=True, slots=True)
class Relay:
    """Everything goes to one host."""

    hop: Hop

    async def hops(self, domain: str) -> Sequence[Hop]:
        return (self.hop,)


@dataclass(frozen=True, slots=True)
class Exchangers:
    """Each domain's mail goes to its own hosts, as DNS names them.

    Attributes:
        resolver: asks DNS.
        pattern: port, TLS and the like for all hosts.
        own_name: our own name: a host of this name is us, and mail that goes there would come back.
    """

    resolver: Resolver
    pattern: Hop
    own_name: str

    async def hops(self, domain: str) -> Sequence[Hop]:
        if domain.startswith("["):
            return [self._hop(domain, _literal(domain))]
        if not domain:  # <postmaster>: only a relay knows whose
            raise NoRouteError(NO_SUCH_DOMAIN)
        try:
            exchangers = self._usable(await self.resolver.exchangers(domain))
            hops = await self._addresses(exchangers)
        except NoSuchDomainError:
            raise NoRouteError(NO_SUCH_DOMAIN) from None
        except LookupFailedError as error:
            raise NoRouteError(local_response(451, "4.4.3", f"DNS does not answer: {error}")) from None
        return hops[:_MAX_HOSTS]

    def _usable(self, exchangers: Sequence[Exchanger]) -> list[Exchanger]:
        """In order of preference, those of the same one at random; cut where we are one ourselves (RFC 5321 5.1)."""
        if [each.host for each in exchangers] == [""]:
            raise NoRouteError(NULL_MX)
        found = sorted((each for each in exchangers if each.host), key=lambda each: each.preference)
        ours = [each.preference for each in found if each.host == self.own_name.lower()]
        if ours:
            found = [each for each in found if each.preference < min(ours)]
            if not found:
                raise NoRouteError(LOOP)
        shuffled: list[Exchanger] = []
        for _, group in groupby(found, key=lambda each: each.preference):
            equals = list(group)
            random.shuffle(equals)
            shuffled += equals
        return shuffled

    async def _addresses(self, exchangers: Sequence[Exchanger]) -> list[Hop]:
        """A hop for each address. A host that cannot be found keeps nobody from the next one."""
        hops: list[Hop] = []
        failure: LookupFailedError | None = None
        for exchanger in exchangers:
            try:
                addresses = await self.resolver.addresses(exchanger.host)
            except LookupFailedError as error:
                failure = error
                continue
            hops += [self._hop(exchanger.host, address) for address in addresses]
            if len(hops) >= _MAX_HOSTS:
                break
        if not hops:
            if failure:
                raise failure
            raise NoRouteError(NO_HOST)
        return hops

    def _hop(self, host: str, address: str) -> Hop:
        return replace(self.pattern, host=host.strip("[]"), address=address)


def _literal(domain: str) -> str:
    """The address that an address literal stands for (RFC 5321 4.1.3)."""
    text = domain[1:-1]
    text = text[5:] if text[:5].lower() == "ipv6:" else text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise NoRouteError(BAD_LITERAL) from None
