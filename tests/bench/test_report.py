"""The page of figures says what the committed data says, and a target is met only within its bound."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from loadtest.bench.measurements import DATA
from loadtest.bench.page import PAGE, page
from loadtest.bench.tables import overview, table
from loadtest.bench.targets import ASYNC, TARGETS, reached


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(json.loads(DATA.read_text())), "run make bench-page"


def test_the_page_shows_every_picture_and_has_no_other() -> None:
    shown = set(re.findall(r"\]\(benchmarks/([^)]+\.svg)\)", PAGE.read_text()))
    assert shown == {path.name for path in PAGE.with_suffix("").iterdir()}


def test_a_table_has_what_was_measured() -> None:
    lines = table({"a": {"cpu_us": 1234.5, "x_floor": 2.0}, "b": {"cpu_us": 1.0}}).splitlines()
    assert lines == ["|  | x floor | us of CPU |", "| --- | --: | --: |", "| a | 2.00 | 1,234.5 |", "| b |  | 1.0 |"]


def test_the_overview_leaves_a_hole_where_a_server_failed() -> None:
    lines = overview({"x": {"a": {"x_floor": 1.0}}, "y": {"b": {"x_floor": 3.0}}}, ["x", "y"]).splitlines()
    assert lines[2:] == ["| a | 1.00 |  |", "| b |  | 3.00 |"]


@pytest.mark.parametrize(("ours", "met"), [(94.0, True), (96.0, False)])
def test_a_target_is_met_within_its_bound(ours: float, met: bool) -> None:
    results: dict[str, Any] = {
        "scenarios": {"session": {ASYNC: {"cpu_us": ours}, "smtp-sink": {"cpu_us": 100.0}, "floor": {"cpu_us": 40.0}}}
    }
    ((target, value),) = reached(results)
    assert target is TARGETS[0]
    assert value == ours / 100
    assert target.is_met(value) is met
