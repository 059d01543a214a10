"""Four machines and a database: two accept, two consume, one of each dies, and everything accepted arrives.

    python -m loadtest.durability.machines --seconds 20

The machines are network namespaces, joined by a bridge; needs root and iproute2. PostgreSQL has one to itself. In the
middle of the load the first acceptor and the first consumer get SIGKILL, master, workers and all, and never come back.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadtest.durability import postgresql
from loadtest.durability.kills import Counts, drained
from loadtest.durability.programs import Program
from loadtest.durability.sending import Ledger, send_until

_NETWORK = "10.111.57"  # a network of our own: the bridge is in a namespace, too
_CLIENTS = 12
_CONCURRENCY = 10
_LEASE = 3


class Machines:
    """Namespaces on one bridge; ours has the address 1, machine N has N + 2.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._prefix = f"fs{os.getpid()}"
        self._switch = f"{self._prefix}s"
        self.names = [f"{self._prefix}m{number}" for number in range(count)]

    def make(self) -> None:
        """Makes them all."""
        _ip(f"netns add {self._switch}")
        _ip(f"-n {self._switch} link add bridge type bridge")
        _ip(f"-n {self._switch} link set bridge up")
        for number, name in enumerate(self.names):
            _ip(f"netns add {name}")
            _ip(f"-n {name} link set lo up")
            _ip(f"-n {name} link add eth0 type veth peer name port{number} netns {self._switch}")
            _ip(f"-n {self._switch} link set port{number} master bridge up")
            _ip(f"-n {name} address add {self.address(number)}/24 dev eth0")
            _ip(f"-n {name} link set eth0 up")

    def remove(self) -> None:
        """Removes them, and so all that is in them."""
        for name in (*self.names, self._switch):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def address(self, number: int) -> str:
        return f"{_NETWORK}.{number + 2}"

    def inside(self, number: int) -> tuple[str, ...]:
        """What stands in front of a command that is to run on a machine."""
        return ("ip", "netns", "exec", self.names[number])


def _ip(arguments: str) -> None:
    done = subprocess.run(["ip", *arguments.split()], check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {arguments}: {done.stderr.strip()}")


@contextmanager
def machines(count: int) -> Iterator[Machines]:
    """Machines for as long as the context is open.

    Raises:
        OSError: they cannot be made: we are not root, or the kernel does not let us.
    """
    made = Machines(count)
    try:
        made.make()
        yield made
    finally:
        made.remove()


_DATABASE, _ACCEPTORS, _CONSUMERS, _CLIENT = 0, (1, 2), (3, 4), 5


async def prove(directory: Path, seconds: float, programs: Path) -> Counts:
    """Runs it all for so many seconds, and then until the queue is empty."""
    with ExitStack() as stack:
        net = stack.enter_context(machines(6))
        server = stack.enter_context(
            postgresql.running(programs, host=net.address(_DATABASE), namespace=net.inside(_DATABASE))
        )
        acceptors = [_acceptor(directory, net, number, server.url) for number in _ACCEPTORS]
        consumers = [_consumer(directory, net, number, server.url) for number in _CONSUMERS]
        for program in (*acceptors, *consumers):
            stack.callback(program.end)
            program.start()
        # Sockets are of the namespace in which they were made; so are the clients', and the one that looks.
        stack.enter_context(_on(net.names[_CLIENT]))
        ledger, stop = Ledger(), asyncio.Event()
        addresses = [(net.address(number), 2525) for number in _ACCEPTORS]
        await _listening(addresses)
        sending = asyncio.ensure_future(send_until(stop, addresses, ledger, _CLIENTS))
        await asyncio.sleep(seconds / 2)
        acceptors[0].kill_all()
        consumers[0].kill_all()
        before = len(ledger.acknowledged)
        await asyncio.sleep(seconds / 2)
        stop.set()
        await sending
        await drained(server.url)
        assert len(ledger.acknowledged) > before, "nothing was accepted when one acceptor was gone"
    numbers = Counter(map(int, (directory / "record").read_text().split()))
    return Counts(
        len(ledger.sent), len(ledger.acknowledged), len(numbers), len(ledger.acknowledged - numbers.keys()),
        len(numbers.keys() - ledger.sent), numbers.total() - len(numbers), {"acceptor": 1, "consumer": 1},
    )  # fmt: skip


def _acceptor(directory: Path, net: Machines, number: int, url: str) -> Program:
    arguments = ["serve", "--store", url, "--listen", "0.0.0.0:2525", "--workers", "1"]
    limits = ["--max-connections-per-client", "0", "--log-level", "warning"]
    return Program(directory, f"acceptor{number}", [*arguments, *limits], net.inside(number))


def _consumer(directory: Path, net: Machines, number: int, url: str) -> Program:
    arguments = ["consume", "loadtest.durability.record:record", "--from", url, "--workers", "1"]
    limits = ["--lease", str(_LEASE), "--concurrency", str(_CONCURRENCY)]
    return Program(directory, f"consumer{number}", [*arguments, *limits], net.inside(number))


@contextmanager
def _on(name: str) -> Iterator[None]:
    """This thread is on a machine: what it connects from now on, it connects from there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as ours, open(f"/run/netns/{name}") as theirs:
        if libc.setns(theirs.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(ours.fileno(), 0)


async def _listening(addresses: list[tuple[str, int]]) -> None:
    async with asyncio.timeout(30):
        for address in addresses:
            while True:
                try:
                    socket.create_connection(address, 1).close()
                    break
                except OSError:
                    await asyncio.sleep(0.1)


def main() -> int:
    """Returns 0 if the promise was kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    programs = postgresql.find_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed (make system-deps)")
    with tempfile.TemporaryDirectory() as name:
        counts = asyncio.run(prove(Path(name), given.seconds, programs))
    print(f"two acceptors, two consumers: {counts}: {'kept' if counts.holds else 'BROKEN'}")
    return 0 if counts.holds else 1


if __name__ == "__main__":
    sys.exit(main())
