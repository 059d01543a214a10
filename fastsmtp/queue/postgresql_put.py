"""Mails on their way into PostgreSQL: one statement, and so one transaction, for a whole batch."""

from __future__ import annotations

from typing import Any, Final

from .codec import Destinations, encode_sender
from .contract import Mail, State
from .postgresql_schema import BLOCK

# Octets of content in one statement: a batch of large messages would fill the memory of both ends.
MAX_STATEMENT: Final = 16 * 2**20


class Rows:
    """The parameters of one statement, column by column, and the messages that they are of.

    Attributes:
        places: of the messages in their batch.
        messages: columns of the table.
        items: columns of the table; the first has the keys.
        octets: of content.
    """

    def __init__(self) -> None:
        self.places: list[int] = []
        self.messages: tuple[list[Any], ...] = tuple([] for _ in range(6))
        self.items: tuple[list[Any], ...] = tuple([] for _ in range(8))
        self.octets = 0

    def add(self, place: int, mail: Mail, number: int, destinations: Destinations, now: float) -> None:
        """Adds a mail, whose message gets a number."""
        content = b"".join((mail.trace, mail.content))
        row = (number, len(destinations), mail.message_id, encode_sender(mail.sender), len(content), content)
        for column, value in zip(self.messages, row, strict=True):
            column.append(value)
        accepted_at = now if mail.accepted_at is None else mail.accepted_at
        due = now if mail.not_before is None else mail.not_before
        state = int(State.READY if due <= now else State.DEFERRED)
        rank = -(mail.sender.priority or 0)
        for offset, (domain, recipients) in enumerate(destinations):
            item = (number + offset, number, domain, recipients, state, rank, accepted_at, due)
            for column, value in zip(self.items, item, strict=True):
                column.append(value)
        self.places.append(place)
        self.octets += len(content)

    def split(self) -> list[Rows]:
        """Each message for itself."""
        result = []
        for index, place in enumerate(self.places):
            rows = Rows()
            rows.places = [place]
            rows.messages = tuple([column[index]] for column in self.messages)
            number = self.messages[0][index]
            chosen = [at for at, parent in enumerate(self.items[1]) if parent == number]
            rows.items = tuple([column[at] for at in chosen] for column in self.items)
            result.append(rows)
        return result


class Numbers:
    """The numbers that this process has taken from the sequence."""

    def __init__(self) -> None:
        self._next = self._end = 0

    def has(self, count: int) -> bool:
        return self._end - self._next >= count

    def refill(self, start: int) -> None:
        self._next, self._end = start, start + BLOCK

    def take(self, count: int) -> int:
        """The first of so many numbers in a row; there must be so many."""
        number = self._next
        self._next += count
        return number
