"""A line for each recipient and attempt on standard output, and counts of them all."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from fastsmtp.queue import Item

    from .fate import Fate

_STDOUT: Final = 1
_log = logging.getLogger("fastsmtp.delivery")


class DeliveryLog:
    """Notes what became of recipients.

    Args:
        format: ``text`` (``key=value``) or ``json``, one object a line.
        descriptor: where the lines go.

    Attributes:
        counts: recipients by result, and reports that were sent.
    """

    def __init__(self, format: Literal["text", "json"], descriptor: int = _STDOUT) -> None:
        self.counts: Counter[str] = Counter()
        self._line = _json if format == "json" else _text
        self._descriptor = descriptor

    def attempt(self, item: Item, fates: list[Fate], seconds: float) -> None:
        """Notes an attempt; `seconds` is how long it took."""
        lines = [self._line(self._fields(item, fate, seconds)) for fate in fates]
        with suppress(OSError):  # a log that cannot be written must not stop the mail
            os.write(self._descriptor, "".join(lines).encode())

    def tell_counts(self) -> None:
        """Says in the server's own log how much there was since it began."""
        if self.counts:
            _log.info("%s", ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items())))

    def _fields(self, item: Item, fate: Fate, seconds: float) -> dict[str, object]:
        status = "sent" if fate.is_done else "failed" if fate.is_failed else "deferred"
        self.counts[status] += 1
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": "delivery",
            "message": item.message_id,
            "item": item.id,
            "from": f"<{item.sender.address}>",
            "to": f"<{fate.recipient.address}>",
            "hop": str(fate.hop) if fate.hop else "-",
            "tls": "yes" if fate.is_tls else "no",
            "status": status,
            "code": fate.response.status,
            "reply": fate.explanation,
            "attempt": item.attempts + 1,
            "age": round(time.time() - item.accepted_at, 3),
            "seconds": round(seconds, 3),
        }


def _json(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":")) + "\n"


def _text(fields: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_word(str(value))}" for name, value in fields.items()) + "\n"


def _word(text: str) -> str:
    """A text as one word: with JSON's escapes, in quotes, where it holds anything odd."""
    plain = text.isascii() and text.isprintable() and not set(text) & {" ", '"', "\\"}
    return text if plain and text else json.dumps(text)
