"""What a run must keep to; else Locust's exit code is 1 and the log says what was missed.

The latencies are those of whole messages. A generator that has no CPU left measures itself, not the server: so its
CPU is a threshold, too. In a distributed run the master judges, over all workers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Args:
        messages: that were sent, failed ones included.
        failed_steps: failures in any row but that of the message, which would count them twice.
        p95_ms: of messages, in milliseconds.
        p99_ms: the same.
        messages_per_second: that were taken, over the whole run.
        generator_cpu: the highest of any generator process, in per cent of a core; 0 if it was not looked at.
    """

    messages: int
    failed_steps: int
    p95_ms: float
    p99_ms: float
    messages_per_second: float
    generator_cpu: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits; None for no limit.

    Args:
        p95_ms: of whole messages, in milliseconds.
        p99_ms: the same.
        failed_share: failed steps for each message.
        messages_per_second: at least so many.
        generator_cpu: in per cent of a core.
    """

    p95_ms: float | None = None
    p99_ms: float | None = None
    failed_share: float | None = 0.0
    messages_per_second: float | None = None
    generator_cpu: float | None = None

    def missed_by(self, outcome: Outcome) -> list[str]:
        """What was missed, a line each; no message at all always is."""
        if outcome.messages == 0:
            return ["no message was sent"]
        share = outcome.failed_steps / outcome.messages
        upper = [
            ("p95 of messages", outcome.p95_ms, self.p95_ms, " ms"),
            ("p99 of messages", outcome.p99_ms, self.p99_ms, " ms"),
            ("failed steps for each message", share, self.failed_share, ""),
            ("CPU of a generator", outcome.generator_cpu, self.generator_cpu, " %"),
        ]
        missed = [f"{name}: {got:g}{unit}, at most {most:g}" for name, got, most, unit in upper if _over(got, most)]
        if self.messages_per_second is not None and outcome.messages_per_second < self.messages_per_second:
            missed.append(f"messages/s: {outcome.messages_per_second:g}, at least {self.messages_per_second:g}")
        return missed


def _over(got: float, most: float | None) -> bool:
    return most is not None and got > most
