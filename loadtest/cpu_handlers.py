"""Handlers that need CPU, as gateways and filters do: how they scale is in docs/scaling.md.

fastsmtp serve loadtest.cpu_handlers:burn_5 --workers 2 --threads 2
"""

from __future__ import annotations

import email
import email.policy
import html.parser
import os
import time
from email.message import EmailMessage

import dkim

from fastsmtp import Handler, Message, Reply, Session


class Burn(Handler):
    """Burns CPU time for each message, in pure Python: it holds the GIL, except when a switch is due.

    Args:
        milliseconds: of this thread's CPU time, so that a busy machine does not shorten the work.
    """

    def __init__(self, milliseconds: float) -> None:
        self._seconds = milliseconds / 1000

    def data(self, session: Session, message: Message) -> None:
        until = time.thread_time() + self._seconds
        number = 1
        while time.thread_time() < until:
            for _ in range(200):
                number = number * 1103515245 % 2147483647


burn_1, burn_5, burn_20 = (Burn(milliseconds) for milliseconds in (1, 5, 20))


class _Text(html.parser.HTMLParser):
    """The words of an HTML part."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words += data.split()


class Filter(Handler):
    """What a content filter does: parse MIME, take the text out of HTML, check the DKIM signature.

    A message without text, or with a signature that does not hold, is refused. The key is taken from the handler, not
    from DNS: what is measured is CPU, and the answer of a resolver would come from its cache.

    Args:
        key: the value of the TXT record that every selector has.
    """

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def data(self, session: Session, message: Message) -> Reply | None:
        octets = bytes(message.content)
        words = words_of(email.message_from_bytes(octets, policy=email.policy.default))
        if not words:
            return Reply(550, "5.6.0", "a message without a word")
        if not dkim.verify(octets, dnsfunc=lambda name, timeout=5: self._key):
            return Reply(550, "5.7.20", "no valid DKIM signature")
        return None


content_filter = Filter(os.environ.get("LOADTEST_DKIM_RECORD", ""))


def words_of(message: EmailMessage) -> list[str]:
    """The words of all text parts."""
    words: list[str] = []
    for part in message.walk():
        if part.get_content_type() == "text/plain":
            words += part.get_content().split()
        elif part.get_content_type() == "text/html":
            text = _Text()
            text.feed(part.get_content())
            words += text.words
    return words
