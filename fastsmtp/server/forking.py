"""Making a child process that is nothing of a master any more."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Collection
from typing import Final

from .children import die_with_master

UNUSED: Final = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)  # that would kill by default
_FAILED: Final = 70  # EX_SOFTWARE
_log = logging.getLogger("fastsmtp.master")


class Forks:
    """Forks children.

    Args:
        signals: those that the master acts on.
        reopen_logs: what a child does on USR1, until it has a loop.

    Attributes:
        left_behind: called in each child, with its slot or None: closes what is the master's.
    """

    def __init__(self, signals: Collection[int], reopen_logs: Callable[[], None]) -> None:
        self._reopen_logs = reopen_logs
        self._signals = {*signals, *UNUSED}
        self.left_behind: list[Callable[[int | None], None]] = []

    def fork(self, name: str, slot: int | None, be: Callable[[], int]) -> int:
        """Make a child that serves this slot, and is nothing else ever; returns its pid. It does not outlive us.

        Raises:
            OSError: the system has no room for one more process.
        """
        # A signal that reaches the child before it has handlers of its own would ring the master's bell.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        master = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
            raise
        if pid == 0:
            code = _FAILED
            try:
                self._leave_to_the_master(slot)
                die_with_master(master)
                code = be()
            except BaseException:
                _log.critical("%s failed", name, exc_info=True)
            finally:
                logging.shutdown()
                os._exit(code)  # the master's own clean-up is not ours to do
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        return pid

    def _leave_to_the_master(self, slot: int | None) -> None:
        """Signals, pipes and the sockets of other slots are the master's."""
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            # The terminal sends INT and HUP to the whole group; a child listens to its master.
            signal.signal(number, signal.SIG_IGN if number in (signal.SIGINT, signal.SIGHUP) else signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, lambda number, frame: self._reopen_logs())
        # Told to vacate before it has a loop, it leaves, as the other signals make it do; by default this one stops it.
        signal.signal(signal.SIGTTOU, lambda number, frame: os._exit(0))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        for close in self.left_behind:
            close(slot)
