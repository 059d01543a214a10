"""Memory stays bounded, whatever clients send: content goes to unnamed files above a threshold."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from tests.server.client import Client
from tests.server.processes import memory_of
from tests.server.running import Server, running

CLIENTS = 40
MEGABYTE = 1 << 20
SIZE = 20 * MEGABYTE
HEADER = b"Subject: large\r\n\r\n"
CHUNK = (b"x" * 1022 + b"\r\n") * 256


def _all_at_once(work: Callable[[Client], None], clients: list[Client]) -> None:
    """Run it for all clients, four threads at a time taking them chunk by chunk."""
    failures: list[BaseException] = []

    def several(mine: list[Client]) -> None:
        try:
            for client in mine:
                work(client)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=several, args=(clients[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def _memory(server: Server) -> int:
    return sum(memory_of(pid) for pid in server.workers)


def test_many_large_messages_at_the_same_time(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    flags = ("--store=discard:", f"--spool-dir={spool}", "--spool-threshold-bytes=1M", "--max-message-bytes=32M")
    with running(tmp_path, *flags, workers=2) as server:
        clients = [server.connect(seconds=60).greet() for _ in range(CLIENTS)]
        for client in clients:
            client.deliver()
        before = _memory(server)
        for client in clients:
            client.begin_data()
            client.send(HEADER)
        peak = 0
        for _ in range(SIZE // len(CHUNK)):  # all of them grow side by side
            _all_at_once(lambda client: client.send(CHUNK), clients)
            peak = max(peak, _memory(server))
        assert list(spool.iterdir()) == []  # nothing that a crash could leave behind
        for client in clients:
            client.send(b".\r\n")
        for client in clients:
            client.expect("250 2.0.0 accepted")
        peak = max(peak, _memory(server))
        # The free lists of buffers keep up to 8 MB a size and process.
        assert peak - before < CLIENTS * 1.3 * MEGABYTE + 24 * MEGABYTE
        assert list(spool.iterdir()) == []
        sizes = [line for line in server.wait_for_access(2 * CLIENTS) if f" size={SIZE + len(HEADER)} " in line]
        assert len(sizes) == CLIENTS
        for client in clients:
            client.quit()
            client.socket.close()


def test_idle_sessions_cost_little(tmp_path: Path) -> None:
    """architecture.md 3: at most 4 KB a session. The slack is for the rest of what an accepted connection costs."""
    with running(tmp_path, "--store=discard:") as server:
        for _ in range(3):
            with server.greeted() as client:
                client.deliver()
        before = _memory(server)
        clients = [server.greeted() for _ in range(500)]
        assert _memory(server) - before < 500 * 12 * 1024
        for client in clients:
            client.socket.close()
