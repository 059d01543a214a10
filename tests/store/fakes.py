"""Messages for the stores' tests, from sessions that never were, and their way into a Maildir and out of it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from fastsmtp.protocol.envelope import Endpoint, Envelope, Message, Recipient, Sender
from fastsmtp.store.maildir import Maildir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastsmtp.protocol.session import Session
    from fastsmtp.store import StoreError


PEER = Endpoint("192.0.2.7", 40000)


@dataclass
class FakeSession:
    """What a store reads of a session."""

    peer: Endpoint = PEER
    client_name: str = "client.example"
    protocol: str = "ESMTP"
    is_lmtp: bool = False
    server_name: str = "mx.example"
    user: str | None = None


ALICE = Sender("alice", "example.com")
BOB = Recipient("bob", "example.org")
CONTENT = b"Subject: test\r\n\r\nhello\r\n"


def make_message(
    content: bytes | memoryview = CONTENT,
    *,
    id: str = "M1",
    sender: Sender = ALICE,
    recipients: tuple[Recipient, ...] = (BOB,),
    session: FakeSession | None = None,
) -> Message:
    """A message as the protocol would hand it over; every part has a default."""
    view = memoryview(content).toreadonly()
    return Message(id, Envelope(sender, list(recipients)), view, cast("Session", session or FakeSession()))


def deliver(path: Path, batch: Sequence[Message]) -> list[StoreError | None]:
    async def main() -> list[StoreError | None]:
        async with Maildir(str(path), slot=0) as store:
            return list(await store.store(batch))

    return asyncio.run(main())


def contents(path: Path) -> list[bytes]:
    """What is in new/, in the order of arrival."""
    files = sorted((path / "new").iterdir(), key=lambda file: int(re.findall(r"Q(\d+)", file.name)[0]))
    return [file.read_bytes() for file in files]


def without_trace(octets: bytes) -> bytes:
    return octets.split(b" +0000\r\n", 1)[1]
