"""A small load of real sessions: a few clients in threads, that pause between their messages."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.server.client import Client
from tests.server.running import Server


@contextmanager
def small_load(server: Server, clients: int = 3, pause: float = 0.05, octets: int = 4000) -> Iterator[None]:
    """Clients that deliver, and are refused now and then, until the context ends.

    Args:
        server: to whom.
        clients: how many at a time.
        pause: seconds between two messages, at most.
        octets: of a message, at most.
    """
    ended = threading.Event()
    threads = [
        threading.Thread(target=_deliver_until, args=(ended, server, number, pause, octets))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _deliver_until(ended: threading.Event, server: Server, number: int, pause: float, octets: int) -> None:
    chance = random.Random(number)
    while not ended.is_set():
        try:
            with Client(server.address) as client:
                client.greet()
                for _ in range(chance.randint(1, 12)):
                    _bring(client, chance, octets)
                    ended.wait(chance.uniform(0, pause))
                client.quit()
        except (OSError, EOFError, AssertionError):  # the server restarts a worker, or leaves
            ended.wait(0.1)


def _bring(client: Client, chance: random.Random, octets: int) -> None:
    """A message; sometimes with something to refuse in front."""
    if chance.random() < 0.15:
        client.ask("RCPT TO:<b@b.example>", "503")
    if chance.random() < 0.1:
        client.ask("FOO", "500")
    if chance.random() < 0.05:
        client.ask("MAIL FROM:<nobody", "501")
    client.deliver(b"Subject: x\r\n\r\n" + b"hello world\r\n" * chance.randint(1, max(1, octets // 13)))
