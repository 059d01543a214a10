"""The alert rules name metrics, labels and values that the server has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastsmtp.server.columns import STAMP, State
from fastsmtp.server.metrics import Metrics
from fastsmtp.server.scoreboard import Scoreboard

RULES = (Path(__file__).parents[1] / "docs" / "prometheus-alerts.yml").read_text()
ALERTS = dict(re.findall(r"(?ms)^      - alert: (\w+)\n(.*?)(?=^      - alert|\Z)", RULES))
OF_THE_TARGET = {"instance", "job", "le"}  # that Prometheus gives, or every histogram has


def samples() -> dict[str, dict[str, set[str]]]:
    """Every name that a server tells, with its labels and their values."""
    scoreboard = Scoreboard(1)
    row = scoreboard.take(0)
    row.become(State.READY)
    row.cells[STAMP] = 1
    found: dict[str, dict[str, set[str]]] = {}
    for metric in Metrics(scoreboard, lambda: None).collect():
        for sample in metric.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


SAMPLES = samples()


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_a_rule_names_what_there_is(alert: str) -> None:
    rule = ALERTS[alert]
    (expression,) = re.findall(r"(?s)^        expr: (.*?)^        (?:for|labels):", rule, re.MULTILINE)
    named = re.findall(r"\b(fastsmtp_\w+|up)(?:\{([^}]*)\})?", expression)
    assert named
    for name, matchers in named:
        assert name == "up" or name in SAMPLES
        for label, value in re.findall(r'(\w+)="([^"]*)"', matchers):
            assert label in OF_THE_TARGET or value in SAMPLES[name][label]
    kept = {each.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for each in group.split(",")}
    used = set(re.findall(r"\$labels\.(\w+)", rule))
    for label in kept | used:
        assert label in OF_THE_TARGET or any(label in SAMPLES[name] for name, _ in named if name != "up")
    assert expression.count("(") == expression.count(")")
    assert 'summary: "' in rule
    assert "severity: " in rule


def test_every_rule_is_read() -> None:
    assert len(ALERTS) == RULES.count("alert:") > 10
