"""How many files this process has open, and may have."""

from __future__ import annotations

import os
import resource
from typing import Final

_DIRECTORY: Final = "/proc/self/fd"
_FEW: Final = 32
_OWN: Final = 256  # the store writes 64 files at a time; the application has its databases


def spare() -> int:
    """How many files we may have open, less what a worker and its application need for themselves."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(limit // 2, limit - _OWN)


def few() -> int:
    """With less than so many left, connections have to wait: the rest is for files of the store and the application."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_FEW, limit // 8)


def left() -> int:
    """How many more files this process may open. A look takes 3 us since Linux 6.2, where the kernel counts."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - _in_use(limit)


def _in_use(limit: int) -> int:
    if counted := os.stat(_DIRECTORY).st_size:
        return counted
    try:
        return len(os.listdir(_DIRECTORY)) - 1  # the directory itself
    except PermissionError:  # after a change of the user this directory is root's
        return _lowest_free(limit)
    except OSError:  # there is none left to look with
        return limit


def _lowest_free(limit: int) -> int:
    """At least so many are in use: all below the one that we would get."""
    try:
        found = os.dup(2)
    except OSError:
        return limit
    os.close(found)
    return found
