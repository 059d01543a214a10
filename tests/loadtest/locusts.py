"""Locust, run as people run it: a program in the environment that `make test` has made for it."""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-loadtest" / "bin" / "python"
_DEADLINE = 90.0  # seconds


def require_locust() -> str:
    """Python with Locust; without it the test is skipped, or fails under FASTSMTP_REQUIRE_ALL=1."""
    if PYTHON.exists():
        return str(PYTHON)
    reason = "Locust is not installed (make .venv-loadtest/.installed)"
    if os.environ.get("FASTSMTP_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def environment() -> dict[str, str]:
    """Without settings of this process: Locust and fastsmtp take them from there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FASTSMTP_", "LOCUST_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Run:
    """A run that is over.

    Args:
        code: exit code.
        output: what it wrote.
        rows: of the report, by name.
        failures: texts of the failures, with their numbers.
    """

    code: int
    output: str
    rows: dict[str, dict[str, str]]
    failures: dict[str, int]

    def count(self, row: str) -> int:
        """Steps of a row, failed ones included."""
        return int(self.rows[row]["Request Count"])


def run_program(*arguments: str) -> tuple[int, str]:
    """Run a module of the load tests' environment; returns its exit code and what it wrote."""
    command = [require_locust(), "-m", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=_DEADLINE, check=False
    )
    return done.returncode, done.stdout + done.stderr


def locust_arguments(folder: Path, host: str, user: str, *arguments: str) -> Sequence[str]:
    """The command line of a headless run, without python -m."""
    return (
        *("locust", "-f", "loadtest/locustfile.py", "--headless", "--only-summary", "--host", host),
        *("--csv", str(folder / "figures"), "--stop-timeout", "20", *arguments, user),
    )


def result(folder: Path, code: int, output: str) -> Run:
    """Read what a run has left in a folder."""
    with open(folder / "figures_stats.csv", newline="") as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    with open(folder / "figures_failures.csv", newline="") as file:
        failures = {f"{row['Name']}: {row['Error']}": int(row["Occurrences"]) for row in csv.DictReader(file)}
    return Run(code, output, rows, failures)


def locust(folder: Path, host: str, user: str, *arguments: str) -> Run:
    """A headless run."""
    return result(folder, *run_program(*locust_arguments(folder, host, user, *arguments)))
