"""The names of the compose network, answered where Docker's own resolver is: 127.0.0.11."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

RESOLVER = "127.0.0.11"


class Names(threading.Thread):
    """Answers questions for addresses until the process ends.

    Args:
        addresses: of each name; may be changed.
    """

    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        super().__init__(daemon=True)
        self.addresses = dict(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((RESOLVER, 53))

    def run(self) -> None:
        while True:
            octets, client = self._socket.recvfrom(4096)
            question = dns.message.from_wire(octets)
            self._socket.sendto(self.answer(question).to_wire(), client)

    def answer(self, question: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        (asked,) = question.question
        addresses = self.addresses.get(asked.name.to_text(omit_final_dot=True).lower(), ())
        if asked.rdtype == dns.rdatatype.A and addresses:
            answer.answer.append(dns.rrset.from_text_list(asked.name, 5, "IN", "A", addresses))
        return answer
