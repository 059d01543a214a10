"""Memory of sessions that have said EHLO and then say nothing, and whether they are still served."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from loadtest.bench.peers import Peer, Running
from loadtest.bench.throughput import Row

_PATIENCE: Final = 20.0  # seconds for one reply
_TOGETHER: Final = 200  # sessions that begin at a time; some servers let each wait for its banner


def measure(peer: Peer, count: int) -> Row:
    """Open so many sessions at one server, look at its memory, then ask each session for a sign of life.

    Returns:
        bytes_per_session, base_mib: what the server has without sessions, served: how many answered NOOP at the end.

    Raises:
        RuntimeError: the server does not come up.
        OSError: it does not take so many.
    """
    _allow_descriptors(count + 64)
    with ExitStack() as stack:
        server = stack.enter_context(Running(peer))
        before = server.memory()
        clients: list[socket.socket] = []
        while len(clients) < count:
            clients += _greeted(server.port, min(_TOGETHER, count - len(clients)), stack)
        time.sleep(1.5)  # a sweep of the server's has passed
        per_session = (server.memory() - before) / count
        served = sum(_answers(client) for client in clients)
        return {"bytes_per_session": per_session, "base_mib": before / 2**20, "served": served, "sessions": count}


def _allow_descriptors(count: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        raise OSError(f"{count} files cannot be open at a time: the limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _greeted(port: int, count: int, stack: ExitStack) -> Sequence[socket.socket]:
    """Clients that have said EHLO and read the reply."""
    address = "127.0.0.1", port
    clients = [stack.enter_context(socket.create_connection(address, _PATIENCE)) for _ in range(count)]
    for client in clients:
        client.recv(512)
        client.sendall(b"EHLO idle.example\r\n")
    for client in clients:
        client.recv(4096)
    return clients


def _answers(client: socket.socket) -> bool:
    client.sendall(b"NOOP\r\n")
    return client.recv(512).startswith(b"250")
