"""Memory of sessions that have said EHLO and then say nothing, and whether they are still served."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack

from loadtest.bench.peers import Peer, Running
from loadtest.bench.throughput import Row

_PATIENCE = 20.0  # seconds for one reply


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
        clients = [stack.enter_context(_greeted(server.port)) for _ in range(count)]
        time.sleep(1.5)  # a sweep of the server's has passed
        per_session = (server.memory() - before) / count
        served = sum(_answers(client) for client in clients)
        return {"bytes_per_session": per_session, "base_mib": before / 2**20, "served": served, "sessions": count}


def _allow_descriptors(count: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        raise OSError(f"{count} files cannot be open at a time: the limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _greeted(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    client.recv(512)
    client.sendall(b"EHLO idle.example\r\n")
    client.recv(4096)
    return client


def _answers(client: socket.socket) -> bool:
    client.sendall(b"NOOP\r\n")
    return client.recv(512).startswith(b"250")
