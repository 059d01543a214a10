"""The programs of a proof: a server and its consumers, which are killed and started again."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]


class Program:
    """A parent with its children, in a session of its own.

    Args:
        directory: where it works, and its log is.
        name: of the log.
        arguments: of ``fastsmtp``.
        namespace: a command in front, such as ``ip netns exec NAME``.
    """

    def __init__(self, directory: Path, name: str, arguments: Sequence[str], namespace: Sequence[str] = ()) -> None:
        self._directory = directory
        self._command = [*namespace, sys.executable, "-m", "fastsmtp", *arguments]
        self._log: IO[bytes] = open(directory / f"{name}.log", "ab")  # noqa: SIM115  # for the program's whole life
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, without waiting for anything."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTSMTP_")}
        self._process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env={**environment, "PYTHONPATH": str(ROOT), "RECORD": str(self._directory / "record")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill_parent(self) -> None:
        """SIGKILL for the parent, and a new one at once; the kernel tells the children."""
        _signal(self.pid, signal.SIGKILL)
        assert self._process
        self._process.wait()
        self.start()

    def kill_child(self) -> bool:
        """SIGKILL for one of the children; returns whether there was one."""
        children = _children(self.pid)
        return bool(children) and _signal(random.choice(children), signal.SIGKILL)

    def kill_all(self) -> None:
        """SIGKILL for all of it at once, for good: the machine is gone."""
        os.killpg(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """TERM, and its end."""
        if self.is_running:
            _signal(self.pid, signal.SIGTERM)
        assert self._process
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(60)

    def end(self) -> None:
        """Whatever is left of it ends."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
