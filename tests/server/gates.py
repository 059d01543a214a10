"""Gates: a hook stands in front of one until the test opens it. A gate is open when its file exists."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

_INTERVAL = 0.005  # seconds between two looks


def _file(name: str) -> str:
    return f"gate-{name}"


def is_open(name: str) -> bool:
    return os.path.exists(_file(name))


def stand(name: str) -> None:
    """Block until the gate is open. In a hook."""
    while not is_open(name):
        time.sleep(_INTERVAL)


async def wait(name: str) -> None:
    """Wait until the gate is open. In an async hook."""
    while not is_open(name):  # noqa: ASYNC110  # what it waits for happens in another process
        await asyncio.sleep(_INTERVAL)


def open_gate(directory: Path, name: str) -> None:
    """In the test."""
    (directory / _file(name)).touch()
