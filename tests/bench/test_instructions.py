"""The gate against getting slower: counts repeat, a slower server is caught, an unknown interpreter is no success."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from loadtest.bench.instructions import (
    EXIT_NO_BASELINE,
    EXIT_SLOWER,
    ROOT,
    build_of_interpreter,
    compare,
    read_baseline,
    write_baseline,
)
from tests.server.running import environment

_SCENARIO: Final = "pipelined"


def _gate(baseline: Path, *flags: str, source: Path = ROOT) -> tuple[int, str]:
    """Run the gate on some source; returns its exit code and what it said."""
    command = [sys.executable, "-m", "loadtest.bench.instructions", "--only", _SCENARIO, "--baseline", str(baseline)]
    environ = environment({"PYTHONPATH": str(source)})
    done = subprocess.run([*command, *flags], cwd=source, env=environ, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def baseline(require_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("valgrind", "cc"):
        require_program(program)
    path = tmp_path_factory.mktemp("gate") / "baseline.json"
    assert _gate(path, "--write")[0] == 0
    assert read_baseline(path)[build_of_interpreter()][_SCENARIO] > 10_000
    return path


def test_the_same_code_takes_the_same_number_of_instructions(baseline: Path) -> None:
    code, said = _gate(baseline, "--tolerance=0.01")
    assert code == 0, said


def test_a_slower_server_is_caught(baseline: Path, tmp_path: Path) -> None:
    for name in ("fastsmtp", "loadtest"):
        shutil.copytree(ROOT / name, tmp_path / name)
    session = tmp_path / "fastsmtp" / "protocol" / "session.py"
    here = "    def receive(self, octets: bytes) -> None:\n"
    text = session.read_text()
    assert text.count(here) == 1
    session.write_text(text.replace(here, f"{here}        sum(range(400))\n"))
    code, said = _gate(baseline, source=tmp_path)
    assert code == EXIT_SLOWER
    assert "over the baseline" in said


def test_an_interpreter_without_a_baseline_is_no_success(tmp_path: Path) -> None:
    assert _gate(tmp_path / "none.json")[0] == EXIT_NO_BASELINE


def test_what_is_over_the_tolerance_is_over_the_baseline() -> None:
    assert compare({"a": 50, "b": 102}, {"a": 100, "b": 100}) == []
    assert compare({"a": 104, "b": 102, "new": 9}, {"a": 100, "b": 100}) == ["a"]


def test_a_baseline_keeps_those_of_other_interpreters(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text('{"another": {"a": 1}}')
    write_baseline({"a": 2}, path)
    write_baseline({"b": 3}, path)
    assert read_baseline(path) == {"another": {"a": 1}, build_of_interpreter(): {"a": 2, "b": 3}}
