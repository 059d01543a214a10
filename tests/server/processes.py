"""What /proc knows of the processes that a test started: they are all in one session of the kernel's."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_SELF = Path("/proc")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if there is no such process any more."""
    try:
        return (_SELF / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    stat = _stat(pid)
    return bool(stat) and stat[0] not in "ZX"


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by SIGSTOP."""
    return _stat(pid)[:1] == ["T"]


def members_of(session: int) -> list[int]:
    """The running processes of a session, by pid."""
    found = []
    for entry in _SELF.iterdir():
        stat = _stat(int(entry.name)) if entry.name.isdigit() else []
        if stat and int(stat[3]) == session and stat[0] not in "ZX":
            found.append(int(entry.name))
    return sorted(found)


def children_of(pid: int) -> list[int]:
    """The running children of a session's leader."""
    return [each for each in members_of(pid) if _stat(each)[1:2] == [str(pid)]]


def kill_session(session: int) -> None:
    """Kill what is left of a session that we started."""
    for pid in members_of(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def memory_of(pid: int, field: str = "RssAnon") -> int:
    """Octets of a field of /proc/PID/status."""
    for line in (_SELF / str(pid) / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} of {pid}")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
