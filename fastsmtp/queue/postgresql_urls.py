"""The URLs of databases: ``postgresql://USER@HOST/DATABASE``, several of them separated by commas."""

from __future__ import annotations

import importlib.util
import re
from typing import Final
from urllib.parse import urlsplit

# A comma within a URL separates the hosts of one database, as in libpq.
_SEPARATOR: Final = re.compile(r",(?=postgres(?:ql)?://)")


def split(location: str) -> list[str]:
    """The URLs in a store's location, which begins behind the first ``postgresql:``."""
    return _SEPARATOR.split(f"postgresql:{location}")


def check(location: str) -> None:
    """Validates a location without touching the network.

    Raises:
        ValueError: it is no URL, or the library for it is not installed. The text never has the password.
    """
    for dsn in split(location):
        parts = urlsplit(dsn)
        if not dsn.partition(":")[2].startswith("//") or not parts.path.strip("/"):
            raise ValueError("store postgresql: write postgresql://USER@HOST/DATABASE")
    if importlib.util.find_spec("asyncpg") is None:
        raise ValueError("store postgresql: needs asyncpg: pip install 'fastsmtp[postgresql]'")


def describe(location: str) -> str:
    """What a location means, for people."""
    return "queue in " + ", ".join(map(title, split(location)))


def title(dsn: str) -> str:
    """A database's name for people: its host and name, never the password."""
    parts = urlsplit(dsn)
    return f"PostgreSQL {parts.netloc.rpartition('@')[2] or 'on this machine'}{parts.path}"
