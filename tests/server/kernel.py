"""What the kernel knows of a test's connections: /proc/net/tcp (proc(5))."""

from __future__ import annotations

from pathlib import Path

from tests.server.client import Client


def is_accepted(client: Client) -> bool:
    """Whether a server on 127.0.0.1 has taken a connection out of its accept queue: its end has an inode then."""
    port = client.socket.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(end.rpartition(":")[2], 16) for end in fields[1:3]] == [port, client.port]:
            return fields[9] != "0"
    return False
