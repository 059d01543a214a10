"""A real PostgreSQL for the whole run, a database of it for each test, and the queue on either engine."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadtest.durability.postgresql import PostgreSQL, find_programs, running

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server that runs; where there is none to run, the test is skipped, or fails under FASTSMTP_REQUIRE_ALL=1."""
    programs = find_programs()
    if programs is None:
        reason = "PostgreSQL is not installed (make system-deps)"
        if os.environ.get("FASTSMTP_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with running(programs) as server:
        yield server


@pytest.fixture
def new_database(postgresql: PostgreSQL) -> Callable[[], str]:
    """A function that makes an empty database; returns its URL."""

    def make() -> str:
        name = f"test{next(_numbers)}"
        postgresql.sql(f"CREATE DATABASE {name}")
        return postgresql.url_of(name)

    return make


@pytest.fixture(params=["queue", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty queue, on each of the engines."""
    if request.param == "queue":
        return f"queue:{tmp_path}/queue"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    server.sql("DROP SCHEMA IF EXISTS fastsmtp CASCADE")
    return server.url
