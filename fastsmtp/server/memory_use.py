"""How much of the memory that we may use is in use: of our cgroups' (version 2 or 1), and of the machine's.

A cgroup's limit is ours alone. A machine's memory is everybody's, and many a machine has three quarters of it in use
for good, so there only the last quarter counts: a machine with 10 % available is at 0.6, one with 5 % at 0.8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .capacity import own_groups

_MEMINFO: Final = Path("/proc/meminfo")
_LAST: Final = 0.25  # the part of a machine's memory that counts
# Limit, use, and where the page cache is told that the kernel can take back at once; version 2 first.
_FILES: Final = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class _Group:
    """A cgroup with a limit."""

    def __init__(self, group: Path, limit: int, current: str, cache: str) -> None:
        self._limit = limit
        self._current = group / current
        self._stat = group / "memory.stat"
        self._cache = cache

    def share(self) -> float:
        """The part of the limit that is in use, without what the kernel would take back before it kills anybody."""
        used = int(self._current.read_text()) - _field(self._stat, self._cache)
        return max(0.0, used / self._limit)


class MemoryUse:
    """The use of memory, as the tightest of our limits sees it. A look takes about 50 us.

    Args:
        root: where the cgroup file system is mounted.
        membership: the file that names our cgroups.
        meminfo: what the machine has.
    """

    def __init__(
        self,
        root: Path = Path("/sys/fs/cgroup"),
        membership: Path = Path("/proc/self/cgroup"),
        meminfo: Path = _MEMINFO,
    ) -> None:
        self._meminfo = meminfo
        self._total = _field(meminfo, "MemTotal:")
        groups = dict.fromkeys(own_groups("memory", root, membership))
        self._groups = [found for each in groups if (found := _limited(each, self._total * 1024)) is not None]

    def share(self) -> float:
        """From 0 to 1; 0 where nothing can be known."""
        shares = [self._of_the_machine()]
        for each in self._groups:
            try:
                shares.append(each.share())
            except (OSError, ValueError):  # the group is gone: we were moved to another one
                continue
        return max(shares)

    def _of_the_machine(self) -> float:
        if not self._total:
            return 0.0
        available = _field(self._meminfo, "MemAvailable:") / self._total
        return max(0.0, 1 - available / _LAST)


def _limited(group: Path, total: int) -> _Group | None:
    """A group whose limit is below what the machine has: others limit nothing."""
    for limit, current, cache in _FILES:
        try:
            found = int((group / limit).read_text())  # version 2 says "max" where there is none
            (group / current).read_text()
        except (OSError, ValueError):
            continue
        if found > 0 and (not total or found < total):
            return _Group(group, found, current, cache)
    return None


def _field(file: Path, name: str) -> int:
    """A number behind its name, on a line of its own; 0 if there is none."""
    try:
        for line in file.read_text().splitlines():
            words = line.split()
            if words and words[0] == name:
                return int(words[1])
    except (OSError, ValueError, IndexError):
        pass
    return 0
