"""A database for each test, and the queue on either engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest.durability.postgresql import PostgreSQL

_numbers = itertools.count()


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
