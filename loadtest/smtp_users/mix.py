"""What is sent: sizes and numbers of recipients from distributions, and a share of recipients to be refused."""

from __future__ import annotations

import itertools
import random
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field

from .payloads import Payload

KB, MB = 1024, 1024 * 1024

# Size in octets, and its weight: a rough model of what a mailbox provider's MX takes in. Most messages are
# notifications of some ten KB of HTML; a few per cent carry attachments, and bring most of the octets.
REALISTIC_SIZES = {2 * KB: 15, 8 * KB: 25, 24 * KB: 30, 60 * KB: 18, 150 * KB: 8, 500 * KB: 3, 2 * MB: 1}
# Recipients of one transaction, and the weight: nearly all mail between servers has one.
REALISTIC_RECIPIENTS = {1: 92, 2: 5, 5: 2, 20: 1}


@dataclass(frozen=True, slots=True)
class Plan:
    """One message that is to be sent.

    Args:
        octets: its size.
        recipients: how many that are to be accepted.
        refused: whether one more recipient is named, which the server is to refuse.
    """

    octets: int
    recipients: int
    refused: bool


class Weighted:
    """Draws values by their weights: one random number and a bisection, ~0.3 us.

    Args:
        weights: the weight of each value; they need not add up to anything.
    """

    __slots__ = ("_bounds", "_values")

    def __init__(self, weights: Mapping[int, float]) -> None:
        if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ValueError(f"no distribution: {dict(weights)}")
        self._values = list(weights)
        total = sum(weights.values())
        self._bounds = [bound / total for bound in itertools.accumulate(weights.values())][:-1]

    def draw(self, random_number: float) -> int:
        """The value for a number of the range [0, 1)."""
        return self._values[bisect(self._bounds, random_number)]


@dataclass(frozen=True)
class Mix:
    """What a user sends.

    Args:
        sizes: octets of a message, with weights.
        recipients: recipients of a message that are to be accepted, with weights.
        refused_share: share of messages, 0 to 1, that name one more recipient, `refused_recipient`.
        sender: the address behind MAIL FROM.
        recipient: the address behind RCPT TO; a `{}` in it becomes the number of the recipient within its message.
        refused_recipient: an address that the server refuses.
        refused_code: the code of that refusal.
        payload: one message that is always sent, instead of made up ones of the sizes.
        seed: of the random numbers; None for a new one with each run.
    """

    sizes: Mapping[int, float] = field(default_factory=lambda: REALISTIC_SIZES)
    recipients: Mapping[int, float] = field(default_factory=lambda: REALISTIC_RECIPIENTS)
    refused_share: float = 0.0
    sender: str = "load@sender.example"
    recipient: str = "user{}@recipient.example"
    refused_recipient: str = "nobody@refused.example"
    refused_code: int = 550
    payload: Payload | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.refused_share <= 1:
            raise ValueError(f"refused_share is {self.refused_share}, not within 0 and 1")

    @classmethod
    def fixed(cls, octets: int, recipients: int = 1, refused_share: float = 0.0) -> Mix:
        """Every message of one size and with so many recipients."""
        return cls({octets: 1}, {recipients: 1}, refused_share)

    def plans(self) -> Plans:
        """Draws from this mix, for one user."""
        return Plans(self)


class Plans:
    """Draws messages from a mix, without end; each user has its own.

    Args:
        mix: to draw from.
    """

    def __init__(self, mix: Mix) -> None:
        self._random = random.Random(mix.seed).random
        self._sizes = Weighted(mix.sizes)
        self._recipients = Weighted(mix.recipients)
        self._refused_share = mix.refused_share
        self._drawn: dict[tuple[int, int, bool], Plan] = {}

    def draw(self) -> Plan:
        """The next message."""
        octets = self._sizes.draw(self._random())
        recipients = self._recipients.draw(self._random())
        refused = self._refused_share > 0 and self._random() < self._refused_share
        key = octets, recipients, refused
        plan = self._drawn.get(key)  # few differ, so that users may keep what they make of one
        if plan is None:
            plan = self._drawn[key] = Plan(*key)
        return plan
