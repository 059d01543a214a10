"""Loops: a message that has passed through too many hands (RFC 5321 6.3)."""

from __future__ import annotations

import re
from typing import Final

_MAX_HEADER: Final = 2**18  # octets; the default of `max_header_bytes`
_RECEIVED: Final = re.compile(rb"^received[ \t]*:", re.I | re.M)


def count_received(content: memoryview) -> int:
    """How many Received fields the header section has."""
    section, _, _ = bytes(content[:_MAX_HEADER]).partition(b"\r\n\r\n")
    return len(_RECEIVED.findall(section))
