"""What the kernel knows of a test's connections: /proc/net/tcp (proc(5))."""

from __future__ import annotations

from pathlib import Path

from tests.server.client import Client


def is_accepted(client: Client) -> bool:
    """Whether a server on 127.0.0.1 has taken a connection out of its accept queue: its end has an inode then."""
    fields = _servers_end(client)
    return bool(fields) and fields[9] != "0"


def unread(client: Client) -> int:
    """Octets that have come to a server on 127.0.0.1, and that it has not read."""
    fields = _servers_end(client)
    return int(fields[4].rpartition(":")[2], 16) if fields else 0


def _servers_end(client: Client) -> list[str]:
    """What is told of it; nothing if there is none."""
    port = client.socket.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(end.rpartition(":")[2], 16) for end in fields[1:3]] == [port, client.port]:
            return fields
    return []
