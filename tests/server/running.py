"""A real server for a test: master and workers as processes, in a session of the kernel's of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.server.client import DEADLINE, Address, Client
from tests.server.processes import children_of, kill_session
from tests.server.waiting import until

ROOT = Path(__file__).parents[2]
SERVE = (sys.executable, "-m", "fastsmtp", "serve")
START_DEADLINE = 20.0  # seconds
STOP_DEADLINE = 20.0


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server: tests.server.apps can be imported, and no setting comes from the outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTSMTP_")}
    # Without byte code: a module that is changed within a second is imported anew.
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **(changes or {})}


class Server:
    """A server that runs.

    Args:
        directory: its working directory; the logs are there, too.
        process: the master.
    """

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], name: str) -> None:
        self.directory = directory
        self.process = process
        self.pid = process.pid
        self._log = directory / f"{name}.log"
        self._access_log = directory / f"{name}.access"
        self.addresses: list[Address] = []
        self._clients: list[Client] = []

    @property
    def address(self) -> Address:
        return self.addresses[0]

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The first address, where it is one of TCP."""
        assert isinstance(self.address, tuple)
        return self.address

    @property
    def workers(self) -> list[int]:
        """The pids of its workers, as the kernel sees them."""
        return children_of(self.pid)

    @property
    def worker(self) -> int:
        """The pid of its only worker."""
        (pid,) = self.workers
        return pid

    # -- talking to it ------------------------------------------------------------------------------------------------

    def connect(self, receive_buffer: int = 0, seconds: float = DEADLINE, at: int = 0, source: str = "") -> Client:
        """A client that has said nothing yet, at one of the listeners; it is closed with the server at the latest."""
        client = Client(self.addresses[at], receive_buffer, seconds, source)
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        for client in self._clients:
            client.socket.close()

    def greeted(self) -> Client:
        """A client that has said EHLO."""
        return self.connect().greet()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = STOP_DEADLINE) -> int:
        """Returns the exit code, when it has ended by itself."""
        return self.process.wait(seconds)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = STOP_DEADLINE) -> int:
        """Stop it; returns the exit code."""
        self.send_signal(number)
        return self.wait(seconds)

    # -- what it wrote ------------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """Its log, so far."""
        return self._log.read_text()

    @property
    def access_log(self) -> list[str]:
        """The complete lines of its access log, so far."""
        lines = self._access_log.read_text().split("\n")
        lines.pop()
        return lines

    def wait_for_log(self, pattern: str, seconds: float = 10.0, count: int = 1) -> list[re.Match[str]]:
        """Waits until the log has the pattern so many times."""

        def look() -> list[re.Match[str]]:
            found = list(re.finditer(pattern, self.log, re.MULTILINE))
            return found if len(found) >= count else []

        try:
            return until(look, f"{count} x {pattern!r} in the log", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def wait_for_access(self, count: int, event: str = "", seconds: float = 10.0) -> list[str]:
        """Waits until the access log has so many lines, of an event if one is named, and no more."""

        def look() -> list[str]:
            lines = [line for line in self.access_log if event in line]
            return lines if len(lines) >= count else []

        lines = until(look, f"{count} lines in the access log", seconds)
        assert len(lines) == count, lines
        return lines

    def wait_until_ready(self, seconds: float = START_DEADLINE) -> None:
        """Waits until the log says that it serves, and takes its addresses from there."""
        pattern = re.compile(r"listening on (.+)$", re.MULTILINE)

        def look() -> list[str]:
            assert self.process.poll() is None, f"exit code {self.process.returncode}\n{self.log}"
            return pattern.findall(self.log)

        (text,) = until(look, "the server is ready", seconds)
        self.addresses = [_address(each) for each in text.rstrip('"}').split(", ")]


def _address(listener: str) -> Address:
    """The address of a listener, which may have options behind it."""
    text = listener.partition(" ")[0]
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


@contextmanager
def starting(
    directory: Path,
    command: Sequence[str],
    environ: Mapping[str, str] | None = None,
    name: str = "server",
) -> Iterator[Server]:
    """A server that was started and may not be ready yet; whatever is left of it ends with the context.

    Args:
        directory: its working directory.
        command: what to run.
        environ: changes to its environment.
        name: the stem of its logs, where a directory has several servers.
    """
    with open(directory / f"{name}.log", "wb") as log, open(directory / f"{name}.access", "wb") as access:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=access,
            stderr=log,
            start_new_session=True,
        )
    server = Server(directory, process, name)
    try:
        yield server
    finally:
        server.close_clients()
        kill_session(process.pid)
        process.wait(10)


@contextmanager
def running(
    directory: Path,
    *arguments: str,
    listen: Sequence[str] = ("127.0.0.1:0",),
    workers: int | None = 1,
    environ: Mapping[str, str] | None = None,
    name: str = "server",
) -> Iterator[Server]:
    """A server that is ready.

    Args:
        directory: its working directory.
        arguments: APP and flags.
        listen: addresses.
        workers: how many; None leaves it to the server.
        environ: changes to its environment.
        name: the stem of its logs, where a directory has several servers.
    """
    command = [*SERVE, *arguments, *(f"--listen={each}" for each in listen)]
    if workers is not None:
        command.append(f"--workers={workers}")
    with starting(directory, command, environ, name) as server:
        server.wait_until_ready()
        yield server


def failing(directory: Path, *arguments: str, seconds: float = START_DEADLINE) -> tuple[int, str]:
    """Start a server that is to give up; returns its exit code and its log."""
    with starting(directory, [*SERVE, *arguments]) as server:
        return server.wait(seconds), server.log
