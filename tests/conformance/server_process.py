"""A server as its own process, as tests and the conformance run want it: started, waited for, ended."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

PATIENCE = 30.0  # seconds for each step; far above what it takes


class ServerProcess:
    """A running server; leaving the context ends it.

    Args:
        command: starts it; it must listen on port 0, for its log tells the port.
        directory: where it runs, and where its access log is kept.
        environ: variables besides those of this process.

    Attributes:
        host, ports: where it listens, in the order in which the command names the listeners.
        log: what it wrote to standard error until it was ready, and when it has ended, all of it.
        exit_code: its own, when it has ended.
    """

    def __init__(self, command: Sequence[str], directory: Path, environ: Mapping[str, str] | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTSMTP_")}
        self.log = ""
        self.exit_code: int | None = None
        self._access_log = directory / "access.log"
        with self._access_log.open("wb") as access_log:
            self._process = subprocess.Popen(
                list(command),
                cwd=directory,
                env={**inherited, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=access_log,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        try:
            self.host, self.ports = self._wait_until_ready()
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    @property
    def pid(self) -> int:
        """The master's."""
        return self._process.pid

    @property
    def access_log(self) -> str:
        """The lines that were written; all of them are when the server has ended."""
        return self._access_log.read_text()

    @property
    def port(self) -> int:
        """Of the first listener."""
        return self.ports[0]

    def _wait_until_ready(self) -> tuple[str, list[int]]:
        """Read the log up to the line that says where the server listens."""
        assert self._process.stderr is not None
        descriptor = self._process.stderr.fileno()
        deadline = time.monotonic() + PATIENCE
        while not (listening := re.search(r"listening on (.*)\n", self.log)):
            readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            octets = os.read(descriptor, 65536) if readable else b""
            if not octets:
                raise RuntimeError(f"the server did not come up:\n{self.log}")
            self.log += octets.decode()
        places = re.findall(r"\[?([^\s,\]]+)\]?:(\d+)(?: [^,]*)?(?:, |$)", listening[1])
        return places[0][0], [int(port) for _, port in places]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end, of the workers too; returns the exit code."""
        if self.exit_code is None:
            self._process.send_signal(number)
            try:
                # Up to the end of file, and so until no worker has our pipe any more.
                self.log += self._process.communicate(timeout=PATIENCE)[1].decode()
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)  # its session is its own: nobody else's processes
                self.log += self._process.communicate()[1].decode()
            self.exit_code = self._process.returncode
        return self.exit_code

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
