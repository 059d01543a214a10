"""Store URLs: which scheme stands for which store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .discard import Discard
from .maildir import Maildir
from .queue import PostgreSQLQueue, SQLiteQueue

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from .contract import Store


class _StoreClass(Protocol):
    """What the table below needs of a store's class."""

    def __call__(self, location: str, slot: int) -> AbstractAsyncContextManager[Store]: ...

    def check(self, location: str) -> None: ...

    def describe(self, location: str) -> str: ...


_SCHEMES: dict[str, _StoreClass] = {
    "maildir": Maildir,
    "queue": SQLiteQueue,
    "postgresql": PostgreSQLQueue,
    "postgres": PostgreSQLQueue,
    "discard": Discard,
}


def open_store(url: str, slot: int) -> AbstractAsyncContextManager[Store]:
    """The store that a URL names; entering it opens it, leaving it waits for what is being written.

    Args:
        url: ``maildir:PATH``, ``queue:PATH`` or ``discard:``.
        slot: the worker's slot, for stores that keep one file per worker.

    Raises:
        ValueError: the URL names no store. Entering raises `StoreError` if the store cannot be used.
    """
    store_class, location = _resolve(url)
    store_class.check(location)
    return store_class(location, slot)


def check_url(url: str) -> None:
    """Validates a store URL without touching the disk: the master does so before it forks.

    Raises:
        ValueError: the scheme is unknown or its location malformed; the text says what is allowed.
    """
    store_class, location = _resolve(url)
    store_class.check(location)


def describe(url: str) -> str:
    """What a store URL means, for the start-up line: ``Maildir ./mail``."""
    store_class, location = _resolve(url)
    return store_class.describe(location)


def _resolve(url: str) -> tuple[_StoreClass, str]:
    scheme, colon, location = url.partition(":")
    store_class = _SCHEMES.get(scheme.lower()) if colon else None
    if store_class is None:
        allowed = ", ".join(f"{name}:" for name in _SCHEMES)
        raise ValueError(f"store {url!r}: must begin with one of {allowed} for example maildir:./mail")
    return store_class, location
