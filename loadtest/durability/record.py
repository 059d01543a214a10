"""The consumer of the proofs: writes down the number of each message that it gets. Run by ``fastsmtp consume``."""

from __future__ import annotations

import os
import re

from fastsmtp.queue import Item

_NUMBER = re.compile(rb"^Number: (\d+)\r\n", re.MULTILINE)
_FILE = os.open(os.environ.get("RECORD", "record"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def record(item: Item) -> None:
    """One line for each item, in one write: processes that append at once do not mix them."""
    found = _NUMBER.search(bytes(item.content[:4096]))
    assert found, item.id
    os.write(_FILE, found[1] + b"\n")
