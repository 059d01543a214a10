"""What hooks tell a test: a line of JSON for each event, in a file of the server's working directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NAME = "journal"


def note(**event: object) -> None:
    """Write an event down. One write of an appended line: lines of several threads and processes do not mix."""
    descriptor = os.open(NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(event).encode() + b"\n")
    finally:
        os.close(descriptor)


def events(directory: Path, **wanted: object) -> list[dict[str, Any]]:
    """The events so far, in their order, that have these values."""
    try:
        lines = (directory / NAME).read_text().splitlines()
    except FileNotFoundError:
        return []
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [event for event in found if all(event.get(key) == value for key, value in wanted.items())]
