"""Do Locust and the server count the same messages? If not, one of them cannot be believed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.smtp_users.steps import MESSAGE

from .server import Sample

_TOLERANCE = 0.01  # of the messages: those that Locust cut off at its end may have arrived


@dataclass(frozen=True, slots=True)
class Agreement:
    """Messages that were taken.

    Args:
        by_locust: rows of whole messages without the failed ones.
        by_server: what `fastsmtp_messages_total` says, accepted ones.
    """

    by_locust: int
    by_server: int

    @classmethod
    def of(cls, figures: Path, samples: Sequence[Sample]) -> Agreement:
        """From the CSV file that Locust wrote, and the server's last sample."""
        with open(figures, newline="") as file:
            rows = {row["Name"]: row for row in csv.DictReader(file)}
        message = rows.get(MESSAGE, {"Request Count": "0", "Failure Count": "0"})
        by_locust = int(message["Request Count"]) - int(message["Failure Count"])
        return cls(by_locust, int(samples[-1].values.get("fastsmtp_messages_total{accepted}", 0)))

    @property
    def difference(self) -> float:
        """As a share of what the server says."""
        return abs(self.by_locust - self.by_server) / max(1, self.by_server)

    @property
    def holds(self) -> bool:
        return self.by_server > 0 and self.difference <= _TOLERANCE

    def __str__(self) -> str:
        return f"messages: {self.by_locust} by Locust, {self.by_server} by the server, {self.difference:.2%} apart"
