"""A PostgreSQL of our own, in a directory of its own, with stock settings: for tests and proofs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_START_DEADLINE = 30.0  # seconds
_USER = "nobody"  # PostgreSQL refuses to be root


def find_programs() -> Path | None:
    """Where the programs of the newest PostgreSQL are; None if there is none."""
    # Debian keeps them out of PATH.
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda each: float(each.parts[4]))
    found = versions[-1] if versions else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class PostgreSQL:
    """A server that can be started, killed and started again.

    Args:
        programs: the directory of its programs.
        directory: everything of it is there.
        host: where it listens.
        namespace: a command in front of each of its programs, such as ``ip netns exec NAME``.
    """

    def __init__(self, programs: Path, directory: Path, host: str = "127.0.0.1", namespace: Sequence[str] = ()) -> None:
        self._programs = programs
        self._data = directory / "data"
        self._directory = directory
        self._host = host
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._namespace = namespace
        self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "-D", str(self._data))
        with open(self._data / "pg_hba.conf", "a") as rules:  # the machines of a network of the test's own
            rules.write("host all all samenet trust\n")

    @property
    def url(self) -> str:
        """Of its database."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@{self._host}:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self, *settings: str) -> None:
        """Returns when it takes connections; settings are ``name=value``."""
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port), "-k", ""]
        for setting in (f"listen_addresses={self._host}", *settings):
            command += ["-c", setting]
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen([*self._namespace, *_as_user(), *command], stdout=log, stderr=log)
        end = time.monotonic() + _START_DEADLINE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self._directory / "log").read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL for the postmaster; its children end by themselves when they see it."""
        self._end(signal.SIGKILL)

    def abort(self) -> None:
        """An immediate shutdown, without a checkpoint: for a server that nobody needs any more."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """A fast shutdown: sessions are cut."""
        self._end(signal.SIGINT)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql prints for a statement, without decoration."""
        return self._run(
            "psql", "-h", self._host, "-p", str(self.port), "-U", "postgres", "-X", "-A", "-t", "-q",
            "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement,
        ).strip()  # fmt: skip

    def _end(self, number: signal.Signals) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)
        lock = self._data / "postmaster.pid"
        end = time.monotonic() + _START_DEADLINE
        while self._has_children() and time.monotonic() < end:
            time.sleep(0.02)
        lock.unlink(missing_ok=True)

    def _has_children(self) -> bool:
        """Whether a session of it still runs: the next one must not start beside it."""
        name = str(self._data).encode()
        for status in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if os.readlink(status).encode() == name:
                    return True
            except OSError:
                continue
        return False

    def _answers(self) -> bool:
        command = [str(self._programs / "pg_isready"), "-h", self._host, "-p", str(self.port), "-q"]
        return subprocess.run([*self._namespace, *command], check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [*self._namespace, *_as_user(), str(self._programs / program), *arguments],
            check=False, capture_output=True, text=True, cwd=self._directory,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")
        return done.stdout


@contextmanager
def running(
    programs: Path, *settings: str, host: str = "127.0.0.1", namespace: Sequence[str] = ()
) -> Iterator[PostgreSQL]:
    """A server for as long as the context is open; nothing of it stays."""
    directory = Path(tempfile.mkdtemp(prefix="fastsmtp-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, _USER)
        server = PostgreSQL(programs, directory, host, namespace)
        try:
            server.start(*settings)
            yield server
        finally:
            server.abort()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _as_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={_USER}", "--regid=nogroup", "--clear-groups", "--"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
