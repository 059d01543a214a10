"""A name server on loopback that says what a test wants. dnspython reads and writes the messages."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = Mapping[str, str]
"""From "NAME TYPE" to records, separated by commas; "SERVFAIL" or "SILENCE" stand for themselves."""


class NameServer:
    """Answers questions from a zone.

    Attributes:
        zone: names in lower case without the final dot; a name that is nowhere in it does not exist.
        asked: all questions, as "NAME TYPE".
    """

    def __init__(self, zone: Zone) -> None:
        self.zone = dict(zone)
        self.asked: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()
        return host, port

    def serve(self) -> None:
        while True:
            octets, client = self.socket.recvfrom(4096)
            if octets == b"stop":
                return
            answer = self.answer(dns.message.from_wire(octets))
            if answer:
                self.socket.sendto(answer.to_wire(), client)

    def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        (question,) = query.question
        name, kind = str(question.name).rstrip(".").lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {kind}")
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        found = self.zone.get(f"{name} {kind}")
        if alias := self.zone.get(f"{name} CNAME"):
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "CNAME", f"{alias}."))
            found = self.zone.get(f"{alias} {kind}")
            name = f"{alias}"
        if found == "SILENCE":
            return None
        if found == "SERVFAIL":
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif found:
            records = [record.strip() for record in found.split(",")]
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, *records))
        elif not any(key.partition(" ")[0] == name for key in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer


@contextmanager
def name_server(zone: Zone) -> Iterator[NameServer]:
    """A server that runs."""
    server = NameServer(zone)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.socket.sendto(b"stop", server.address)
        thread.join(10)
        server.socket.close()
