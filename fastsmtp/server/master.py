"""The pre-fork master: it forks, watches and replaces workers, and owns the listening sockets.

A small synchronous program: no event loop, no threads, no user code but what `preload` asks for, and it never touches a
byte of mail. Signal handlers only wake it; each signal is acted on in the one loop of `run`. Guarantees: a slot's
sockets outlive its workers; replacing means start, wait until ready, then stop the old one; an application that cannot
be loaded ends the start with its own message, and never a worker that serves.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from importlib.metadata import version
from typing import Final

from ..config import Config, Listen
from ..store import check_url, describe
from . import application as applications
from . import logs, worker
from .application import Application, ApplicationError
from .capacity import default_workers
from .clients import ClientCounts
from .listeners import BindError, Listener

EXIT_OK: Final = 0
EXIT_CUT: Final = worker.EXIT_CUT
EXIT_CANNOT_LOAD: Final = worker.EXIT_CANNOT_LOAD
EXIT_CANNOT_BIND: Final = 4

_START_TIMEOUT: Final = 60.0  # seconds for a worker to become ready: imports, lifespan, store
_KILL_DELAY: Final = 5.0  # seconds behind drain_timeout, before a worker that does not leave is killed
_STEADY: Final = 10.0  # seconds; a worker that lives longer is no crash loop
_MAX_BACK_OFF: Final = 30.0  # seconds between two attempts to start a worker that keeps dying
_UNUSED: Final = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)  # that would kill by default
_log = logging.getLogger("fastsmtp.master")


def run(config: Config, target: object | None = None) -> int:
    """Serve until told to stop.

    Args:
        config: the settings.
        target: the application; None loads what the settings name.

    Returns:
        The exit code: 0, 1 if sessions were cut, 3 if the application cannot be loaded, 4 if an address cannot be had.
    """
    logs.set_up(config.log_format, config.log_level)
    _raise_descriptor_limit()
    if target is None:
        config = replace(config, store=config.effective_store)
    try:
        if config.store:
            check_url(config.store)
        if target is None and config.app and config.preload:
            target = applications.load(config.app)
        Application(target)
    except (ApplicationError, ValueError) as error:
        _log.critical("%s", error)
        return EXIT_CANNOT_LOAD
    except BaseException:  # of the application's module
        _log.critical("application %s cannot be loaded", config.app, exc_info=True)
        return EXIT_CANNOT_LOAD
    slots, reason = (config.workers, "as configured") if config.workers else default_workers()
    try:
        listeners = _listen(config, slots)
    except BindError as error:
        _log.critical("%s", error)
        return EXIT_CANNOT_BIND
    return Master(config, slots, reason, listeners, target).run()


def _raise_descriptor_limit() -> None:
    """A connection takes a descriptor, and the usual soft limit is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listen(config: Config, slots: int) -> list[Listener]:
    listeners: list[Listener] = []
    try:
        for text in config.listen:
            listeners.append(Listener(Listen.parse(text), slots, config.backlog))
    except BindError:
        for each in listeners:
            each.close()
        raise
    return listeners


class Phase(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"


@dataclass(slots=True, eq=False)
class Child:
    """A worker process, as the master sees it."""

    pid: int
    slot: int
    region: int  # of the counts per client
    report: int  # our end of its pipe; -1 when it is closed
    started: float  # by the monotonic clock
    phase: Phase = Phase.STARTING
    replaces: Child | None = None  # told to leave when this one is ready


class Master:
    """Keeps a worker in each slot."""

    def __init__(
        self, config: Config, slots: int, reason: str, listeners: list[Listener], target: object | None
    ) -> None:
        self._config = config
        self._slots = slots
        self._reason = reason
        self._listeners = listeners
        self._target = target
        # A worker and its successor live at the same time, and a predecessor of both may take long to leave.
        self._counts = ClientCounts(3 * slots, config.auth_failures_window)
        self._free_regions = deque(range(3 * slots))  # first in, first out: failures of the dead are remembered longest
        self._children: dict[int, Child] = {}
        self._to_reload: list[int] = []  # slots whose worker is still to be replaced
        self._restarts: dict[int, float] = {}  # slots without a worker: when to start one
        self._failures: dict[int, int] = {}  # how often a slot's workers died young, one behind the other
        self._serving = False  # all workers were ready once
        self._exit_code: int | None = None  # set when we are to end
        self._kill_at = 0.0
        self._signals: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGQUIT: self._stop_now,
            signal.SIGHUP: self._reload,
            signal.SIGCHLD: self._reap,
        }

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        wake, bell = os.pipe()
        for end in (wake, bell):
            os.set_blocking(end, False)
        old_bell = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        old_handlers = {number: signal.signal(number, _ignore) for number in self._signals}
        old_handlers |= {number: signal.signal(number, signal.SIG_IGN) for number in _UNUSED}
        try:
            gc.collect()
            gc.freeze()  # what the workers share stays shared: the collector does not touch it
            for slot in range(self._slots):
                self._spawn(slot)
            while self._exit_code is None or self._children:
                self._turn(wake)
        finally:
            signal.set_wakeup_fd(old_bell)
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            for listener in self._listeners:
                listener.close()
            os.close(wake)
            os.close(bell)
        return self._exit_code

    def _turn(self, wake: int) -> None:
        """Wait for something to do, and do it."""
        reports = {child.report: child for child in self._children.values() if child.report >= 0}
        readable, _, _ = select.select([wake, *reports], [], [], self._patience())
        for report in readable:
            if report == wake:
                for number in os.read(wake, 4096):
                    if act := self._signals.get(number):
                        act()
            elif reports[report].pid in self._children:
                self._hear(reports[report])
        self._look_at_the_clock()

    def _patience(self) -> float | None:
        """Seconds until the clock matters."""
        times = [*self._restarts.values()]
        times += [child.started + _START_TIMEOUT for child in self._children.values() if child.phase is Phase.STARTING]
        if self._exit_code is not None:
            times.append(self._kill_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.phase is Phase.STARTING and now >= child.started + _START_TIMEOUT:
                _log.error("worker %d (pid %d) is not ready after %g s: killed", child.slot, child.pid, _START_TIMEOUT)
                child.started = now
                self._signal(child, signal.SIGKILL)
        if self._exit_code is not None:
            if now >= self._kill_at and self._children:
                _log.error("%d workers did not leave in time: killed", len(self._children))
                self._kill_at = now + _KILL_DELAY
                self._signal_all(signal.SIGKILL)
            return
        for slot in [slot for slot, at in self._restarts.items() if now >= at]:
            del self._restarts[slot]
            self._spawn(slot)

    # -- workers ------------------------------------------------------------------------------------------------------

    def _spawn(self, slot: int, replaces: Child | None = None) -> None:
        report, pipe = os.pipe()
        region = self._free_regions.popleft()
        # A signal that reaches the child before it has handlers of its own would ring the master's bell.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        pid = os.fork()
        if pid == 0:
            os.close(report)
            self._be_worker(slot, region, pipe)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        os.close(pipe)
        self._children[pid] = Child(pid, slot, region, report, time.monotonic(), replaces=replaces)

    def _be_worker(self, slot: int, region: int, pipe: int) -> None:
        """In the child: be a worker, and nothing else ever again."""
        code = 70  # EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            for number in (*self._signals, *_UNUSED):
                # The terminal sends INT and HUP to the whole group; a worker listens to its master.
                signal.signal(number, signal.SIG_IGN if number in (signal.SIGINT, signal.SIGHUP) else signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
            for child in self._children.values():
                if child.report >= 0:
                    os.close(child.report)
            sockets = [listener.socket_of(slot) for listener in self._listeners]
            code = worker.run(self._config, slot, sockets, self._counts.open(region), self._target, pipe)
        except BaseException:
            _log.critical("worker %d failed", slot, exc_info=True)
        finally:
            logging.shutdown()
            os._exit(code)  # the master's own clean-up is not ours to do

    def _hear(self, child: Child) -> None:
        """A worker's pipe speaks, or has ended because the worker has."""
        word = os.read(child.report, 64)
        os.close(child.report)
        child.report = -1
        if word == worker.READY and child.phase is Phase.STARTING:
            child.phase = Phase.READY
            self._is_ready(child)

    def _is_ready(self, child: Child) -> None:
        if child.replaces is not None:
            self._retire(child.replaces)
            child.replaces = None
            _log.info("worker %d: pid %d took over", child.slot, child.pid)
        if not self._serving and all(each.phase is Phase.READY for each in self._children.values()):
            self._serving = True
            self._announce()
        self._reload_next()

    def _retire(self, old: Child) -> None:
        if old.pid in self._children:
            old.phase = Phase.LEAVING
            self._signal(old, signal.SIGUSR2)

    def _reap(self) -> None:
        """Collect whoever has ended. As process 1 of a container that includes orphans that are not ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if child := self._children.pop(pid, None):
                if child.report >= 0:
                    os.close(child.report)
                self._counts.release(child.region)
                self._free_regions.append(child.region)
                self._has_ended(child, os.waitstatus_to_exitcode(status))

    def _has_ended(self, child: Child, code: int) -> None:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if self._exit_code is not None:
            if code and child.phase is not Phase.STARTING:
                self._exit_code = self._exit_code or EXIT_CUT
        elif successor := next((each for each in self._children.values() if each.replaces is child), None):
            _log.error("worker %d (pid %d) died (%s); its successor is starting already", child.slot, child.pid, how)
            successor.replaces = None
        elif child.phase is Phase.LEAVING:
            _log.info("worker %d (pid %d) has left", child.slot, child.pid)
        elif child.phase is Phase.STARTING and child.replaces is not None and child.replaces.pid in self._children:
            _log.error(
                "worker %d: its successor did not start (%s); the old one stays, reload given up", child.slot, how
            )
            self._to_reload.clear()
        elif child.phase is Phase.STARTING and not self._serving:
            _log.critical("worker %d did not start (%s): giving up", child.slot, how)
            self._end(EXIT_CANNOT_LOAD)
        else:
            self._replace_dead(child, how)

    def _replace_dead(self, child: Child, how: str) -> None:
        """At once the first time; a slot whose workers keep dying has to wait."""
        young = time.monotonic() - child.started < _STEADY
        failures = self._failures.get(child.slot, 0) + 1 if young else 0
        self._failures[child.slot] = failures
        delay = min(2.0 ** (failures - 2), _MAX_BACK_OFF) if failures > 1 else 0.0
        _log.error(
            "worker %d (pid %d) died (%s); its successor starts %s",
            child.slot,
            child.pid,
            how,
            f"in {delay:g} s" if delay else "now",
        )
        self._restarts[child.slot] = time.monotonic() + delay

    # -- signals ------------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """HUP: replace the workers, one by one."""
        if self._exit_code is None:
            _log.info("reload: replacing %d workers", self._slots)
            self._to_reload = list(range(self._slots))
            self._reload_next()

    def _reload_next(self) -> None:
        if self._exit_code is not None or any(child.phase is Phase.STARTING for child in self._children.values()):
            return
        while self._to_reload:
            slot = self._to_reload.pop(0)
            old = next(
                (each for each in self._children.values() if each.slot == slot and each.phase is Phase.READY), None
            )
            if old is not None:
                self._spawn(slot, replaces=old)
                return

    def _stop(self) -> None:
        """TERM, INT: let the sessions end; a second time: cut them."""
        if self._exit_code is None:
            _log.info("stopping: %d workers drain for up to %g s", len(self._children), self._config.drain_timeout)
            self._end(EXIT_OK)
        else:
            self._stop_now()

    def _stop_now(self) -> None:
        """QUIT: cut the sessions."""
        self._end(EXIT_OK)
        self._kill_at = time.monotonic() + _KILL_DELAY
        self._signal_all(signal.SIGQUIT)

    def _end(self, code: int) -> None:
        if self._exit_code is None:
            self._exit_code = code
            self._kill_at = time.monotonic() + self._config.drain_timeout + _KILL_DELAY
            for listener in self._listeners:  # new connections are refused as soon as the workers have closed theirs
                listener.close()
            self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._children.values():
            self._signal(child, number)

    def _signal(self, child: Child, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has just ended; CHLD tells
            os.kill(child.pid, number)

    # -- what a person reads ------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        config = self._config
        addresses = [listener.address for listener in self._listeners]
        handler = config.app or (
            self._target and getattr(self._target, "__qualname__", type(self._target).__qualname__)
        )
        _log.info("fastsmtp %s is ready, pid %d", version("fastsmtp"), os.getpid())
        _log.info("listening on %s", ", ".join(map(str, self._listeners)))
        _log.info("workers: %d (%s), %d threads each", self._slots, self._reason, config.threads)
        if handler:
            _log.info("handler: %s", handler)
        _log.info("mail goes to %s", describe(config.store) if config.store else "the handler alone")
        first = Listen.parse(addresses[0])
        if first.path is None:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(first.host, first.host)
            _log.info(
                "try it: python3 -c \"import smtplib; smtplib.SMTP('%s', %d).sendmail('me@example.com', "
                "'you@example.com', 'Subject: hello\\r\\n\\r\\nIt works.')\"",
                host,
                first.port,
            )


def _ignore(number: int, frame: object) -> None:
    """A signal is noted by the wake-up descriptor; nothing happens here."""
