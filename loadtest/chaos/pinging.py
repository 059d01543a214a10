"""Asks NOOP again and again, and prints how long each answer took: python -m loadtest.chaos.pinging HOST PORT SECONDS.

A process of its own: beside the load, in one interpreter, it would measure how long it waits for itself.
"""

from __future__ import annotations

import json
import sys
import time

from tests.server.client import Client

_PAUSE = 0.005  # seconds between two NOOPs


def ping(address: tuple[str, int], seconds: float) -> list[float]:
    """The seconds that each answer took."""
    taken = []
    with Client(address) as client:
        client.greet("chaos.example")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            asked = time.perf_counter()
            client.ask("NOOP", "250")
            taken.append(time.perf_counter() - asked)
            time.sleep(_PAUSE)
    return taken


if __name__ == "__main__":
    host, port, duration = sys.argv[1:]
    json.dump(ping((host, int(port)), float(duration)), sys.stdout)
