"""What fastsmtp wants to reach, and whether a run did: ratios within one run, so they carry over to other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Results = Mapping[str, Any]
"""What `loadtest.bench.__main__.measure` returns."""

ASYNC: Final = "fastsmtp async"
THREADS: Final = "fastsmtp threads"
ONE_CPU: Final = "fastsmtp threads, one CPU"
_SINK: Final = "smtp-sink"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for one figure.

    Attributes:
        about: what is bounded.
        figure: finds it in the results; KeyError where it was not measured.
        bound: what it is to be at most, or at least.
        at_most: which of the two.
        form: how both are written.
    """

    about: str
    figure: Callable[[Results], float]
    bound: float
    at_most: bool = True
    form: str = "{:.2f}"

    def is_met(self, value: float) -> bool:
        """Whether a figure is within the bound."""
        return value <= self.bound if self.at_most else value >= self.bound


def _against(scenario: str, ours: str, theirs: str = _SINK) -> Callable[[Results], float]:
    """Our CPU time as a multiple of theirs."""

    def figure(results: Results) -> float:
        rows = results["scenarios"][scenario]
        return float(rows[ours]["cpu_us"] / rows[theirs]["cpu_us"])

    return figure


def _against_best(scenario: str) -> Callable[[Results], float]:
    """Our CPU time as a multiple of the best peer's."""

    def figure(results: Results) -> float:
        rows = results["scenarios"][scenario]
        peers = [row["cpu_us"] for name, row in rows.items() if name not in ("floor", ASYNC, THREADS, ONE_CPU)]
        return float(rows[ASYNC]["cpu_us"] / min(peers)) if peers else float("nan")

    return figure


def _chunked(scenario: str, other: str) -> Callable[[Results], float]:
    """Our CPU time with BDAT as a multiple of that with DATA."""

    def figure(results: Results) -> float:
        scenarios = results["scenarios"]
        return float(scenarios[scenario][ASYNC]["cpu_us"] / scenarios[other][ASYNC]["cpu_us"])

    return figure


def _durable(store: str) -> Callable[[Results], float]:
    """Postfix's CPU time as a multiple of ours."""

    def figure(results: Results) -> float:
        rows = results["durable"]
        return float(rows["Postfix smtpd"]["cpu_us"] / rows[f"fastsmtp {store}"]["cpu_us"])

    return figure


def _idle(results: Results) -> float:
    """Of the largest number of sessions."""
    rows = results["idle"][max(results["idle"], key=int)]
    return float(rows[ASYNC]["bytes_per_session"])


TARGETS: Final = (
    Target("session, async hooks, x smtp-sink", _against("session", ASYNC), 0.95),
    Target("session, hooks in threads, x smtp-sink", _against("session", THREADS), 1.35),
    Target("session, hooks in threads, `cpu_affinity`, x smtp-sink", _against("session", ONE_CPU), 1.35),
    Target("session, hooks in threads, x floor", _against("session", THREADS, "floor"), 2.2),
    Target("session, hooks in threads, `cpu_affinity`, x floor", _against("session", ONE_CPU, "floor"), 2.2),
    Target("stream, async hooks, x smtp-sink", _against("stream", ASYNC), 0.80),
    Target("stream, hooks in threads, x smtp-sink", _against("stream", THREADS), 1.15),
    Target("stream, hooks in threads, `cpu_affinity`, x smtp-sink", _against("stream", ONE_CPU), 1.15),
    Target("pipelined, async hooks, x smtp-sink", _against("pipelined", ASYNC), 0.90),
    Target("pipelined, hooks in threads, x smtp-sink", _against("pipelined", THREADS), 1.15),
    Target("pipelined, hooks in threads, `cpu_affinity`, x smtp-sink", _against("pipelined", ONE_CPU), 1.15),
    Target("large, async hooks, x floor", _against("large", ASYNC, "floor"), 2.0),
    Target("large, hooks in threads, x floor", _against("large", THREADS, "floor"), 2.3),
    Target("large, hooks in threads, `cpu_affinity`, x floor", _against("large", ONE_CPU, "floor"), 2.3),
    Target("20 recipients, x the best peer", _against_best("recipients"), 1.0),
    Target("BDAT, x DATA, 5 KB", _chunked("bdat", "stream"), 1.0),
    Target("BDAT, x DATA, 1 MB", _chunked("large-bdat", "large"), 1.0),
    Target("octets per idle session", _idle, 4096, form="{:,.0f}"),
    Target("STARTTLS, P-256, x openssl", lambda r: float(r["starttls"]["P-256"]["fastsmtp"]["x_openssl"]), 1.15),
    Target("STARTTLS, RSA 2048, x openssl", lambda r: float(r["starttls"]["RSA 2048"]["fastsmtp"]["x_openssl"]), 1.15),
    Target("Postfix, x maildir:", _durable("maildir:"), 2.0, at_most=False),
    Target("Postfix, x queue:", _durable("queue:"), 8.0, at_most=False),
    Target("CPU-bound hook, 2 workers, x 1", lambda r: float(r["busy"]["2 workers"]["x_first"]), 1.9, at_most=False),
)


def reached(results: Results) -> Iterator[tuple[Target, float]]:
    """Each target whose figure was measured, with the figure."""
    for target in TARGETS:
        try:
            yield target, target.figure(results)
        except KeyError:
            continue


def table(results: Results) -> str:
    """Markdown: what was to be reached, what was, and whether that is enough."""
    lines = ["| | wanted | measured | |", "|---|--:|--:|---|"]
    for target, value in reached(results):
        bound = ("<= " if target.at_most else ">= ") + target.form.format(target.bound)
        verdict = "met" if target.is_met(value) else "not met"
        lines.append(f"| {target.about} | {bound} | {target.form.format(value)} | {verdict} |")
    return "\n".join(lines) + "\n"
