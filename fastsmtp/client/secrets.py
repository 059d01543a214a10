"""Where a URL says that its secret is: never in itself, for URLs end up in logs and process lists."""

from __future__ import annotations

import os
from pathlib import Path


def check_secret(source: str) -> None:
    """Validates ``file:PATH`` or ``env:NAME`` without looking.

    Raises:
        ValueError: it is neither.
    """
    kind, _, name = source.partition(":")
    if kind not in ("file", "env") or not name:
        raise ValueError("a secret is written file:PATH or env:NAME, never out")


def read_secret(source: str) -> str:
    """The secret: the first line of a file, or an environment variable.

    Raises:
        ValueError: there is none; the text names the place, not the secret.
    """
    check_secret(source)
    kind, _, name = source.partition(":")
    secret = _first_line(name) if kind == "file" else os.environ.get(name, "")
    if not secret:
        raise ValueError(f"{source}: there is no secret")
    return secret


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, ValueError) as error:
        raise ValueError(f"file {path}: cannot be read: {error}") from None
