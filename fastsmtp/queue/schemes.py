"""Queue URLs: which scheme stands for which engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from . import postgresql_urls
from .sqlite_backend import SQLiteBackend

if TYPE_CHECKING:
    from .shard import Backend


class _Engine(Protocol):
    """What the table below needs of an engine."""

    def __call__(self, location: str, slot: int | None, create: bool) -> Backend: ...

    def check(self, location: str) -> None: ...

    def describe(self, location: str) -> str: ...


class _PostgreSQL:
    """The engine in PostgreSQL, whose library is an extra: imported only where it is used."""

    def __call__(self, location: str, slot: int | None, create: bool) -> Backend:
        self.check(location)
        from .postgresql_backend import PostgreSQLBackend

        return PostgreSQLBackend(location, slot)

    def check(self, location: str) -> None:
        postgresql_urls.check(location)

    def describe(self, location: str) -> str:
        return postgresql_urls.describe(location)


SCHEMES: dict[str, _Engine] = {
    "queue": SQLiteBackend,
    "postgresql": _PostgreSQL(),
    "postgres": _PostgreSQL(),
}


def make_backend(url: str, slot: int | None, create: bool) -> Backend:
    """The backend that a URL names, not entered yet.

    Raises:
        ValueError: it names none, or its location is malformed.
    """
    engine, location = _resolve(url)
    engine.check(location)
    return engine(location, slot, create)


def check_url(url: str) -> None:
    """Validates a queue URL without touching disk or network.

    Raises:
        ValueError: it names no queue, or its location is malformed; the text says what is allowed.
    """
    engine, location = _resolve(url)
    engine.check(location)


def is_queue(url: str) -> bool:
    """Whether a store's URL is one of a queue."""
    return url.partition(":")[0].lower() in SCHEMES


def describe(url: str) -> str:
    """What a queue URL means, for people; without passwords."""
    engine, location = _resolve(url)
    return engine.describe(location)


def _resolve(url: str) -> tuple[_Engine, str]:
    scheme, _, location = url.partition(":")
    engine = SCHEMES.get(scheme.lower())
    if engine is None:
        raise ValueError(f"queue {url!r}: must begin with one of {', '.join(f'{name}:' for name in SCHEMES)}")
    return engine, location
