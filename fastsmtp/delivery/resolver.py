"""What delivery asks DNS: the exchangers of a domain and the addresses of a host. dnspython does the asking."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

if TYPE_CHECKING:
    from dns.rdtypes.ANY.MX import MX

_LIFETIME: Final = 30.0  # seconds for one question, all servers and repetitions together
_CACHED: Final = 10_000  # answers, kept for their TTL


class NoSuchDomainError(Exception):
    """DNS says that the domain does not exist, or it cannot be one."""


class LookupFailedError(Exception):
    """DNS does not say: no answer, or SERVFAIL."""


class Exchanger(NamedTuple):
    """One MX record.

    Attributes:
        preference: lower is better.
        host: in lower case, without the final dot; empty for ``.``, which takes no mail (RFC 7505).
    """

    preference: int
    host: str


class Resolver:
    """Asks the system's name servers, or one that is named. It belongs to one event loop.

    Args:
        server: address and port of a name server; None: those in /etc/resolv.conf.
    """

    def __init__(self, server: tuple[str, int] | None = None) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=server is None)
        if server:
            self._resolver.nameservers = [server[0]]
            self._resolver.port = server[1]
        self._resolver.lifetime = _LIFETIME
        self._resolver.cache = dns.resolver.LRUCache(_CACHED)

    async def exchangers(self, domain: str) -> list[Exchanger]:
        """The MX records of a domain, or the domain itself where it has none (RFC 5321 5.1, "implicit MX").

        Aliases are followed. An answer that is not there is told from one that is missing: only if DNS says that there
        is no MX record is the domain's own address used.

        Raises:
            NoSuchDomainError: there is no such domain.
            LookupFailedError: DNS does not say.
        """
        records = await self._ask(domain, dns.rdatatype.MX)
        if not records:
            return [Exchanger(0, domain)]
        return [_exchanger(record) for record in records]  # type: ignore[arg-type]  # they are what was asked for

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host, IPv6 first; none if it has none, or does not exist.

        Name servers that are broken for one kind have the other one: what there is counts (RFC 4074 4.2, 4.3).

        Raises:
            LookupFailedError: DNS does not say.
        """
        kinds = dns.rdatatype.AAAA, dns.rdatatype.A
        answers = await asyncio.gather(*(self._ask(host, kind) for kind in kinds), return_exceptions=True)
        found: list[str] = []
        failures: list[BaseException] = []
        for answer in answers:
            if not isinstance(answer, BaseException):
                found += [record.to_text() for record in answer]
            elif not isinstance(answer, NoSuchDomainError):
                failures.append(answer)
        if failures and not found:
            raise failures[0]
        return found

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType) -> list[dns.rdata.Rdata]:
        try:
            answer = await self._resolver.resolve(_absolute(name), kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            raise NoSuchDomainError(name) from None
        except dns.resolver.YXDOMAIN:
            raise NoSuchDomainError(name) from None
        except (dns.exception.DNSException, OSError) as error:
            raise LookupFailedError(f"{name}: {type(error).__name__}") from None
        return list(answer.rrset or ())


def _absolute(name: str) -> dns.name.Name:
    try:
        return dns.name.from_text(name.encode("idna").decode("ascii") if not name.isascii() else name)
    except (dns.exception.DNSException, UnicodeError):
        raise NoSuchDomainError(name) from None


def _exchanger(record: MX) -> Exchanger:
    return Exchanger(record.preference, record.exchange.to_text(omit_final_dot=True).lower().removesuffix("."))
