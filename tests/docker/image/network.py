"""A bridge and network namespaces on it, as Docker makes them: one for each container, and one for everything else."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUBNET = "10.89.0"  # that of docker/compose.yaml
HERE = f"{SUBNET}.1"  # HAProxy, Prometheus
CLIENT = f"{SUBNET}.2"  # whose mail it is that comes through HAProxy


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def namespace(name: str, address: str) -> Iterator[Path]:
    """A network namespace with an address on the bridge; the path of its file. To be called within the test's own."""
    _ip("netns", "add", name)
    try:
        pair = f"v{address.rpartition('.')[2]}"
        _ip("link", "add", pair, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", pair, "master", "bridge", "up")
        for command in ("link set lo up", "link set eth0 up", f"address add {address}/24 dev eth0"):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield Path("/run/netns") / name
    finally:
        _ip("netns", "delete", name)


def make_bridge() -> None:
    """The bridge of the test's own namespace, which `make image-test` has made: nothing outside can be reached."""
    for command in ("link set lo up", "link add bridge type bridge", "link set bridge up"):
        _ip(*command.split())
    for address in (HERE, CLIENT):
        _ip("address", "add", f"{address}/24", "dev", "bridge")


def is_own_namespace() -> bool:
    """Whether this process is in a network namespace that is as good as new."""
    return [name for _, name in socket.if_nameindex() if not name.startswith(("tunl", "sit", "gre", "ip"))] == ["lo"]
