"""SMTP and LMTP from the other side: fastsmtp as a client of the next hop.

It is a client of our own because no library does what passing mail on asks for: contents that are streamed and not
copied, LMTP's answer for each recipient, PIPELINING and CHUNKING, and line ends made safe before dots are stuffed.
"""

from __future__ import annotations

from .connection import Connection
from .dialogue import Patience
from .errors import HopError, TransferError
from .hop import Hop, parse_hop
from .outgoing import Outgoing
from .pool import Pool, Sent
from .responses import Response

__all__ = [
    "Connection",
    "Hop",
    "HopError",
    "Outgoing",
    "Patience",
    "Pool",
    "Response",
    "Sent",
    "TransferError",
    "parse_hop",
]
