"""Clients that send mail all the time and remember what was acknowledged: what the server must not lose."""

from __future__ import annotations

import re
import smtplib
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def send(address: tuple[str, int], identity: str, octets: int = 2000, source: str = "") -> None:
    """Send one message, with an identity to find it by; from an address of this host, if one is named.

    Raises:
        OSError: it was not acknowledged; smtplib's own errors are among them.
    """
    with smtplib.SMTP(*address, timeout=30, source_address=(source, 0) if source else None) as client:
        client.sendmail("a@sender.example", ["b@recipient.example"], message(identity, octets))


def message(identity: str, octets: int) -> bytes:
    head = f"Message-ID: <{identity}@sender.example>\r\nSubject: {identity}\r\n\r\n".encode()
    return head + (b"x" * 78 + b"\r\n") * (octets // 80)


class Senders:
    """Some clients, each over connections of a few messages.

    Args:
        address: of the server.
        count: how many.
    """

    def __init__(self, address: tuple[str, int], count: int) -> None:
        self.acknowledged: list[str] = []
        self._address = address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send_on) for _ in range(count)]

    @contextmanager
    def sending(self) -> Iterator[None]:
        """They send until the context ends."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _send_on(self) -> None:
        while not self._stop.is_set():
            try:
                with smtplib.SMTP(*self._address, timeout=30) as client:
                    for _ in range(5):
                        identity = uuid.uuid4().hex
                        client.sendmail("a@sender.example", ["b@recipient.example"], message(identity, 2000))
                        self.acknowledged.append(identity)
            except OSError:  # refused, cut or closed: that is no promise
                self._stop.wait(0.05)


def stored(maildir: Path) -> set[str]:
    """The identities of the messages in a Maildir."""
    found = set()
    for path in (maildir / "new").iterdir():
        identity = re.search(rb"Message-ID: <([^@]+)@", path.read_bytes()[:4000])
        if identity is not None:
            found.add(identity[1].decode())
    return found
