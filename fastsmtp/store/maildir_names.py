"""File names of a Maildir: unique over processes, machines and time (https://cr.yp.to/proto/maildir.html).

``SECONDS.MmicrosPpidQcounterRrandom.host``. The pid tells the next start which files in ``tmp/`` are left over. The
random part is drawn once per process: two containers that share a host name and a Maildir have the same pids too, and
a name that is used twice would silently replace a message in ``new/``.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import time

# Counts for the whole process, so that two stores on one Maildir cannot meet either.
_counter = itertools.count()
_OWNER = re.compile(r"\d+\.M\d+P(\d+)Q\d+R[0-9a-f]+\.(.+)", re.ASCII)


class Names:
    """Makes the names of one store. Made in the worker process, after the fork: the pid is part of every name."""

    __slots__ = ("_host", "_pid", "_process")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._host = _escaped_host()
        self._process = f"P{self._pid}Q%dR{os.urandom(4).hex()}.{self._host.replace('%', '%%')}"

    def next(self) -> str:
        """A name that nobody has used."""
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        return f"{seconds}.M{microseconds}" + self._process % next(_counter)

    def is_orphan(self, name: str) -> bool:
        """Whether a file in ``tmp/`` belongs to a process of this host that is gone.

        This process's own pid counts as gone: in a container every start has the same pids, and a store asks before
        it has written anything. Were it wrong, a message would be refused with 451; none can be lost, as the rename
        of a file that is gone fails.
        """
        owner = _OWNER.fullmatch(name)
        if owner is None or owner[2] != self._host:
            return False
        pid = int(owner[1])
        return pid == self._pid or not _is_alive(pid)


def _escaped_host() -> str:
    """The host's name as the convention wants it: ``/`` would be a directory, ``:`` begins the flags in ``cur/``."""
    return socket.gethostname().replace("/", "\\057").replace(":", "\\072")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it lives, as another user
        return True
    return True
