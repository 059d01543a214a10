"""The next hop of the proofs: writes down the number of each message that it takes. Run by ``fastsmtp serve``."""

from __future__ import annotations

import os
import re

from fastsmtp import Handler, Message, Session, inline

_NUMBER = re.compile(rb"^Number: (\d+)\r\n", re.MULTILINE)
_FILE = os.open(os.environ.get("RECORD", "record"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


class NextHop(Handler):
    @inline
    def data(self, session: Session, message: Message) -> None:
        """One line for each message, in one write: processes that append at once do not mix them."""
        found = _NUMBER.search(bytes(message.content[:4096]))
        assert found, message.id
        os.write(_FILE, found[1] + b"\n")
