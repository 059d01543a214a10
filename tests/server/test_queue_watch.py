"""A server whose store is a queue: what it stores, and what its admin process tells of it."""

from __future__ import annotations

import re
from pathlib import Path

from fastsmtp.queue import Item, Queue
from tests.queue.mails import drain, mail, run
from tests.server.admin_client import ADMIN, AdminClient
from tests.server.running import Server, running
from tests.server.waiting import until


def send(server: Server) -> None:
    client = server.greeted()
    client.ask("MAIL FROM:<me@example.com>", "250")
    client.ask("RCPT TO:<you@example.org>", "250")
    client.ask("DATA", "354")
    client.send(b"Subject: hello\r\n\r\n..dot\r\n.\r\n")
    client.expect("250")


def test_counts_are_told(tmp_path: Path) -> None:
    with running(tmp_path, "--store=queue:./queue", *ADMIN, workers=2) as server:
        admin = AdminClient.of(server)
        send(server)

        async def defer() -> None:
            async with Queue.open(f"queue:{tmp_path}/queue") as queue:
                await queue.put([mail("later", not_before=4e9)])

        run(defer())

        def counted() -> bool:
            queue = admin.status()["queue"]
            return queue is not None and queue["items"]["ready"] == queue["items"]["deferred"] == 1

        until(counted, "one is ready and one is deferred", 15)
        queue = admin.status()["queue"]
        assert queue["unreachable"] == []
        assert 0 <= queue["oldest_age_seconds"] < 60
        metrics = admin.get("/metrics").body
        assert 'fastsmtp_queue_items{state="deferred"} 1.0' in metrics
        assert re.search(r"fastsmtp_queue_oldest_age_seconds \d", metrics)


def test_a_store_that_is_no_queue_has_no_counts(tmp_path: Path) -> None:
    with running(tmp_path, "--store=discard:", *ADMIN) as server:
        admin = AdminClient.of(server)
        assert admin.status()["queue"] is None
        assert "fastsmtp_queue" not in admin.get("/metrics").body


def test_received_stands_on_top_and_return_path_does_not(tmp_path: Path) -> None:
    with running(tmp_path, "--store=queue:./queue", "--hostname=mx.example") as server:
        send(server)
        (line,) = server.wait_for_access(1, "event=message")

    async def take() -> Item:
        async with Queue.open(f"queue:{tmp_path}/queue") as queue:
            (item,) = await drain(queue)
            return item

    item = run(take())
    content = bytes(item.content)
    assert re.match(rb"Received: from \S+ \(\[127\.0\.0\.1\]\)\r\n\tby mx\.example with ESMTP id ", content)
    assert b"Return-Path" not in content
    assert content.endswith(b"Subject: hello\r\n\r\n.dot\r\n")
    assert item.message_id in line
    assert item.sender.address == "me@example.com"
