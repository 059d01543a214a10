"""What the function of ``fastsmtp consume`` may raise to say that an item is not done."""

from __future__ import annotations


class Retry(Exception):  # noqa: N818  # a verdict, as StopIteration is one
    """The item is to be tried again.

    Args:
        reason: why, for people.
        at: when, in Unix seconds.
        delay: in how many seconds; without it and `at` the delay grows with the number of attempts.
    """

    def __init__(self, reason: str = "to be retried", *, at: float | None = None, delay: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at
        self.delay = delay


class Reject(Exception):  # noqa: N818
    """The item is given up, and goes to the dead letters.

    Args:
        reason: why, for people.
    """

    def __init__(self, reason: str = "rejected") -> None:
        super().__init__(reason)
        self.reason = reason
