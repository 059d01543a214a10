"""A fastsmtp to load, on this machine: its processes, its metrics each second."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

_START_DEADLINE = 30.0  # seconds
_STOP_DEADLINE = 60.0
_INTERVAL = 1.0  # seconds between two samples: as often as the workers update their gauges


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server told at a time.

    Args:
        at: Unix seconds.
        cpu_seconds: that all its processes have used so far.
        values: by metric and, where it has a label that tells outcomes apart, ``metric{outcome}``; sums over the
            workers, and maxima for lag.
    """

    at: float
    cpu_seconds: float
    values: dict[str, float]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(self._path)


@dataclass
class LocalServer:
    """A server that runs.

    Args:
        process: the master.
        admin: the unix socket of its admin process.
        port: on 127.0.0.1.
    """

    process: subprocess.Popen[bytes]
    admin: Path
    port: int
    samples: list[Sample] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def sample(self) -> Sample:
        """Ask it now.

        Raises:
            OSError: it does not answer.
        """
        connection = _UnixConnection(self.admin)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return Sample(time.time(), self._cpu_seconds(), values_of(text))

    def watch(self) -> None:
        """Take samples until it is stopped; in a thread of its own."""
        while not self._stopping.wait(_INTERVAL):
            try:
                self.samples.append(self.sample())
            except OSError:
                continue  # a busy machine: the next sample will do

    def stop(self) -> int:
        """Take a last sample, and end it; returns its exit code."""
        self._stopping.set()
        self.samples.append(self.sample())
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_DEADLINE)

    def _cpu_seconds(self) -> float:
        master = psutil.Process(self.process.pid)
        total = 0.0
        for process in [master, *master.children(recursive=True)]:
            try:
                used = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += used.user + used.system
        return total


def values_of(text: str) -> dict[str, float]:
    """The metrics that plots and comparisons need."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            name = f"{each.name}{{{each.labels['outcome']}}}" if "outcome" in each.labels else each.name
            if each.name == "fastsmtp_loop_lag_seconds":
                values[name] = max(values.get(name, 0.0), each.value)
            else:
                values[name] = values.get(name, 0.0) + each.value
    return values


@contextmanager
def local_server(directory: Path, arguments: Sequence[str], watched: bool = True) -> Iterator[LocalServer]:
    """A server that is ready; it is killed with the context, if it still runs.

    Args:
        directory: for its log and its admin socket; short, since the path of a socket is limited to 108 octets.
        arguments: of `fastsmtp serve`, without addresses.
        watched: whether samples are taken all the time; each costs the server some milliseconds of CPU.
    """
    admin, log = directory / "admin.sock", directory / "server.log"
    serve = [sys.executable, "-m", "fastsmtp", "serve", *arguments, "--listen=127.0.0.1:0", f"--admin=unix:{admin}"]
    with open(log, "wb") as output:
        process = subprocess.Popen(serve, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output)
    try:
        server = LocalServer(process, admin, _port_when_ready(process, log))
        watcher = threading.Thread(target=server.watch, daemon=True)
        if watched:
            watcher.start()
        yield server
        server._stopping.set()
        if watched:
            watcher.join()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _port_when_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + _START_DEADLINE
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.05)
    raise RuntimeError(f"the server did not come up:\n{log.read_text()}")
