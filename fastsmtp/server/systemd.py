"""What systemd, or whoever speaks its protocols, gives us and wants to hear: sd_listen_fds(3), sd_notify(3).

The master alone does: it takes the variables out of the environment, so that neither workers nor programs that a hook
starts take themselves for it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

_FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
_log = logging.getLogger("fastsmtp.master")


def inherited(environ: MutableMapping[str, str]) -> dict[str, int]:
    """Takes the descriptors that were passed to this process out of the environment; by name, in their order.

    Those that share a name, or have none, are named by their numbers. A descriptor has its number as a second name.
    """
    pid, count, names = (environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    numbers = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    given = names.split(":") if names else []
    found: dict[str, int] = {}
    for number in numbers:
        os.set_inheritable(number, False)
        found[str(number)] = number
    for name, number in zip(given, numbers, strict=False):
        if given.count(name) == 1 and name:
            found[name] = number
    return found


class Notifier:
    """Tells the service manager how we are; says nothing where there is none.

    Attributes:
        interval: seconds between two signs of life that it expects at most; None if it expects none.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        # An abstract address begins with NUL, which a variable cannot hold.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        meant = self._address and microseconds.isdecimal() and pid in ("", str(os.getpid()))
        self.interval: Final = int(microseconds) / 2e6 if meant and int(microseconds) else None

    def ready(self, status: str) -> None:
        """We serve; also after a reload."""
        self._tell(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` tells its end."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reloading")

    def stopping(self, status: str) -> None:
        """We are about to end."""
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """What a person reads."""
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """A sign of life."""
        self._tell("WATCHDOG=1")

    def _tell(self, words: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way, suppress(OSError):
            way.setblocking(False)  # a service manager that does not listen must not stop us
            way.sendto(words.encode(), self._address)
