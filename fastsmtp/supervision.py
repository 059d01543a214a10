"""A parent for processes that are all the same and listen to nobody: it forks, watches and replaces them.

For what the server's master does not serve: consumers of a queue. A small synchronous program, as the master is: no
event loop, no threads; signal handlers only wake it.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from .server.children import BackOff, die_with_master, how_it_ended

_KILL_DELAY: Final = 5.0  # seconds behind the time to stop, before a process that does not leave is killed
_NO_ROOM_DELAY: Final = 1.0  # seconds until the next attempt, where the machine has no room for a process
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)
_log = logging.getLogger("fastsmtp.supervision")


class Supervisor:
    """Keeps so many processes running until it is told to stop.

    TERM and INT stop the processes with TERM, a second one or QUIT with QUIT.

    Args:
        count: of processes.
        be: what a process is; it gets a function to call when it is ready, and returns the exit code.
        stop_time: seconds that processes may take to stop.
    """

    def __init__(self, count: int, be: Callable[[Callable[[], None]], int], stop_time: float) -> None:
        self._be = be
        self._stop_time = stop_time
        self._due = dict.fromkeys(range(count), 0.0)  # places without a process: when to start one
        self._processes: dict[int, tuple[int, float, int]] = {}  # pid: place, when it was started, its pipe
        self._back_offs = [BackOff() for _ in range(count)]
        self._was_ready = False
        self._exit_code: int | None = None  # set when we are to end
        self._kill_at = 0.0

    def run(self) -> int:
        """Supervise until told to stop; returns 0, or the first exit code that is none.

        If a process cannot even become ready, and none ever was, its exit code ends it all.
        """
        wake, bell = os.pipe()
        for end in (wake, bell):
            os.set_blocking(end, False)
        old_bell = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        old_handlers = {number: signal.signal(number, _ignore) for number in _SIGNALS}
        try:
            while self._exit_code is None or self._processes:
                self._turn(wake)
            return self._exit_code
        finally:
            signal.set_wakeup_fd(old_bell)
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            os.close(wake)
            os.close(bell)

    def _turn(self, wake: int) -> None:
        now = time.monotonic()
        if self._exit_code is None:
            for place in [place for place, at in self._due.items() if now >= at]:
                del self._due[place]
                self._spawn(place)
        pipes = [pipe for _, _, pipe in self._processes.values() if pipe >= 0]
        readable, _, _ = select.select([wake, *pipes], [], [], self._patience())
        for each in readable:
            if each == wake:
                for number in os.read(wake, 4096):
                    self._hear(number)
            elif any(each == pipe for _, _, pipe in self._processes.values()):  # else the bell told of its end just now
                self._is_ready(each)
        if self._exit_code is not None and time.monotonic() >= self._kill_at:
            self._kill_at = time.monotonic() + _KILL_DELAY
            self._signal_all(signal.SIGKILL)

    def _patience(self) -> float | None:
        """Seconds until the clock matters."""
        if self._exit_code is not None:
            return max(0.0, self._kill_at - time.monotonic())
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _hear(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            quick = number == signal.SIGQUIT or self._exit_code is not None
            self._end(0, signal.SIGQUIT if quick else signal.SIGTERM)

    def _end(self, code: int, number: signal.Signals) -> None:
        self._exit_code = self._exit_code or code
        self._kill_at = time.monotonic() + self._stop_time + _KILL_DELAY
        self._signal_all(number)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._processes:
            with suppress(ProcessLookupError):  # it has just ended; CHLD tells
                os.kill(pid, number)

    def _spawn(self, place: int) -> None:
        """Starts a process; where the machine has no room for one, a little later: the others go on meanwhile."""
        try:
            pid, report = self._fork()
        except OSError as error:
            _log.error("no process can be started (%s); next attempt in %g s", error.strerror, _NO_ROOM_DELAY)
            self._due[place] = time.monotonic() + _NO_ROOM_DELAY
            return
        self._processes[pid] = (place, time.monotonic(), report)

    def _fork(self) -> tuple[int, int]:
        """The new process, and our end of its pipe.

        Raises:
            OSError: there is no room for it.
        """
        report, pipe = os.pipe()
        parent = os.getpid()
        try:
            # A signal that reaches the child before it has handlers of its own would ring our bell.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            pid = os.fork()
            if pid == 0:
                self._be_child(report, pipe, parent)
        except OSError:
            os.close(report)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(pipe)
        return pid, report

    def _be_child(self, report: int, pipe: int, parent: int) -> NoReturn:
        code = 70  # EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:  # the terminal sends INT to all; a child listens to its parent
                signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for other in (report, *(each for _, _, each in self._processes.values() if each >= 0)):
                os.close(other)
            die_with_master()
            if os.getppid() != parent:  # it died before we could ask for that
                os.kill(os.getpid(), signal.SIGTERM)
            code = self._be(lambda: _report(pipe))
        except BaseException:
            _log.critical("process failed", exc_info=True)
        finally:
            logging.shutdown()
            os._exit(code)  # the parent's own clean-up is not ours to do

    def _is_ready(self, pipe: int) -> None:
        """A pipe speaks, or has ended because its process has."""
        self._was_ready |= bool(os.read(pipe, 16))
        os.close(pipe)
        for pid, (place, started, report) in self._processes.items():
            if report == pipe:
                self._processes[pid] = (place, started, -1)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._processes:
                self._has_ended(pid, os.waitstatus_to_exitcode(status))

    def _has_ended(self, pid: int, code: int) -> None:
        place, started, report = self._processes.pop(pid)
        if report >= 0:
            self._was_ready |= bool(os.read(report, 16))
            os.close(report)
        if self._exit_code is not None:
            self._exit_code = self._exit_code or code
            return
        if not self._was_ready:
            _log.critical("process %d did not become ready (%s)", pid, how_it_ended(code))
            self._end(code if code > 0 else 1, signal.SIGTERM)
            return
        now = time.monotonic()
        delay = self._back_offs[place].delay(now - started)
        self._due[place] = now + delay
        when = f"in {delay:g} s" if delay else "now"
        _log.error("process %d died (%s); the next one starts %s", pid, how_it_ended(code), when)


def _report(pipe: int) -> None:
    os.write(pipe, b"ready\n")
    os.close(pipe)


def _ignore(number: int, frame: object) -> None:
    """The wake-up pipe has the number already."""
