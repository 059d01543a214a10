"""A server that is measured: started, watched through /proc, ended. Only what we started is ever signalled."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from fastsmtp.server.children import die_with_master

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 0.3  # workers may have something to do behind their first banner


def end_servers_when_told_to_end() -> None:
    """Make TERM an exception, so that whoever is measured is ended before we are; a second one changes nothing."""

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    pids = [pid]
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                pids += tree(int(child))
    return pids


class Server:
    """A server on 127.0.0.1 that is ready when the constructor returns; a context manager that ends it.

    Args:
        name: for messages.
        command: the program and its arguments.
        port: where it listens.
        environ: added to the environment.
        banner: whether it says 220; else an accepted connection is enough.

    Raises:
        RuntimeError: it did not come up.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        environ: Mapping[str, str] | None = None,
        banner: bool = True,
    ) -> None:
        self.name, self.port = name, port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # open, and silent: some programs end with their input
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
            preexec_fn=die_with_master,  # however we end, it does too; we have no threads when servers are started
        )
        self.pid = self._process.pid
        try:
            self._wait_until_ready(banner)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()

    def _wait_until_ready(self, banner: bool) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers(banner):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self._log.seek(0)
                raise RuntimeError(f"{self.name} did not come up\n{self._log.read().decode(errors='replace')[:600]}")
            time.sleep(0.05)
        time.sleep(_SETTLE_SECONDS)

    def _answers(self, banner: bool) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as s:
            return not banner or s.recv(3) == b"220"
        return False

    def stop(self) -> None:
        """End it: politely, then not."""
        if self._process.poll() is None:
            members = tree(self.pid)
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                for pid in members:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._process.wait()
        assert self._process.stdin
        self._process.stdin.close()
        self._log.close()

    @property
    def workers(self) -> list[int]:
        """Its children."""
        return tree(self.pid)[1:]

    def cpu_seconds(self) -> float:
        """CPU time, user and system, of the process and all its descendants, ended ones too."""
        total = 0
        for pid in tree(self.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(int(field) for field in fields[11:15])  # utime stime cutime cstime
        return total / _TICKS

    def memory(self) -> int:
        """Octets of memory of the whole tree, shared pages in proportion (PSS)."""
        total = 0
        for pid in tree(self.pid):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total
