"""When a message is tried again, when its sender hears of a delay, and when it is given up (RFC 5321 4.5.4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from fastsmtp.protocol.envelope import Sender


@dataclass(frozen=True, slots=True)
class Schedule:
    """The times of a delivery; all in seconds.

    Attributes:
        first: the wait behind the first failure; each further one is twice as long.
        longest: no wait is longer.
        jitter: the part of a wait by which it is longer or shorter at random, so that what failed together does not
            come back together.
        expiry: the age at which a message is given up.
        notice: the age at which the sender hears of the delay, once.
    """

    first: float = 300.0
    longest: float = 4 * 3600.0
    jitter: float = 0.2
    expiry: float = 5 * 86400.0
    notice: float = 4 * 3600.0

    def next(self, attempts: int, now: float, expires: float, chance: float) -> float:
        """When to try again.

        The last attempt is at the very end: nothing is given up without one.

        Args:
            attempts: how many there were, this one included.
            now: Unix seconds, as all points in time here.
            expires: see `expires`.
            chance: a random number of 0 to 1.
        """
        wait = min(self.first * 2.0 ** min(attempts - 1, 60), self.longest)
        return min(now + wait * (1 + self.jitter * (2 * chance - 1)), max(expires, now + 1.0))

    def expires(self, accepted_at: float, sender: Sender) -> float:
        """When a message is given up: at its age, or earlier if the sender wants it back by then (RFC 2852 4)."""
        end = accepted_at + self.expiry
        by = sender.deliver_by
        return min(end, accepted_at + by.seconds) if by and by.mode == "R" else end

    def notice_due(self, accepted_at: float, sender: Sender) -> float:
        """When the sender is to hear of the delay: at its age, or late by mode N of DELIVERBY (RFC 2852 4)."""
        due = accepted_at + self.notice
        by = sender.deliver_by
        return min(due, accepted_at + max(by.seconds, 0)) if by and by.mode == "N" else due
