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
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ..config import Config, Listen
from ..queue import is_queue
from ..store import check_url
from . import admin_child, logs, worker
from . import application as applications
from .admin_child import AdminChild
from .announcement import announce
from .application import Application, ApplicationError
from .capacity import default_workers, raise_descriptor_limit
from .children import BackOff, Child, Phase, how_it_ended
from .clients import ClientCounts
from .columns import RELOAD_FAILURE, RELOADS_DONE, RELOADS_GIVEN_UP, WORKER_DEATHS, State
from .listeners import BindError, Listener
from .scoreboard import Scoreboard
from .status import Facts

EXIT_OK: Final = 0
EXIT_CUT: Final = worker.EXIT_CUT
EXIT_CANNOT_LOAD: Final = worker.EXIT_CANNOT_LOAD
EXIT_CANNOT_BIND: Final = 4

_START_TIMEOUT: Final = 60.0  # seconds for a worker to become ready: imports, lifespan, store
_KILL_DELAY: Final = 5.0  # seconds behind drain_timeout, before a worker that does not leave is killed
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
    raise_descriptor_limit()
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
    listeners: list[Listener] = []
    try:
        for text in config.listen:
            listeners.append(Listener(Listen.parse(text), slots, config.backlog))
        admin = admin_child.listen(config)
    except BindError as error:
        _log.critical("%s", error)
        for listener in listeners:
            listener.close()
        return EXIT_CANNOT_BIND
    return Master(config, slots, reason, listeners, admin, target).run()


class Master:
    """Keeps a worker in each slot, and the admin process."""

    def __init__(
        self,
        config: Config,
        slots: int,
        reason: str,
        listeners: list[Listener],
        admin: Listener | None,
        target: object | None,
    ) -> None:
        self._config = config
        self._slots = slots
        self._reason = reason
        self._listeners = listeners
        self._target = target
        self._scoreboard = Scoreboard(slots)
        self._scoreboard.master.begin()
        self._counts = ClientCounts(self._scoreboard.rows, config.auth_failures_window)
        self._admin = AdminChild(admin, lambda: self._fork_admin(admin)) if admin else None
        self._children: dict[int, Child] = {}
        self._reloading = False
        self._to_reload: list[int] = []  # slots whose worker is still to be replaced
        self._restarts: dict[int, float] = {}  # slots without a worker: when to start one
        self._back_offs = [BackOff() for _ in range(slots)]
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
            if self._admin:
                self._admin.start()
            for slot in range(self._slots):
                self._spawn(slot)
            while self._exit_code is None or self._children or (self._admin and self._admin.is_alive):
                self._turn(wake)
        finally:
            signal.set_wakeup_fd(old_bell)
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            for listener in self._listeners:
                listener.close()
            if self._admin:
                self._admin.listener.close()
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
        if self._admin and self._admin.due is not None:
            times.append(self._admin.due)
        if self._exit_code is not None and self._children:
            times.append(self._kill_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.phase is Phase.STARTING and now >= child.started + _START_TIMEOUT:
                _log.error("worker %d (pid %d) is not ready after %g s: killed", child.slot, child.pid, _START_TIMEOUT)
                child.started = now
                self._signal(child, signal.SIGKILL)
        if self._admin:
            if self._exit_code is not None and not self._children:
                self._admin.end()
            self._admin.look_at_the_clock(now)
        if self._exit_code is not None:
            if now >= self._kill_at and self._children:
                _log.error("%d workers did not leave in time: killed", len(self._children))
                self._kill_at = now + _KILL_DELAY
                self._signal_all(signal.SIGKILL)
            return
        for slot in [slot for slot, at in self._restarts.items() if now >= at and self._scoreboard.has_room(slot)]:
            del self._restarts[slot]
            self._spawn(slot)

    # -- children -----------------------------------------------------------------------------------------------------

    def _fork(self, name: str, slot: int | None, be: Callable[[], int]) -> int:
        """Make a child that serves this slot, and is nothing else ever; returns its pid."""
        # A signal that reaches the child before it has handlers of its own would ring the master's bell.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        pid = os.fork()
        if pid == 0:
            code = 70  # EX_SOFTWARE
            try:
                self._leave_to_the_master(slot)
                code = be()
            except BaseException:
                _log.critical("%s failed", name, exc_info=True)
            finally:
                logging.shutdown()
                os._exit(code)  # the master's own clean-up is not ours to do
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        return pid

    def _leave_to_the_master(self, slot: int | None) -> None:
        """In the child: signals, pipes and the sockets of other slots are the master's."""
        signal.set_wakeup_fd(-1)
        for number in (*self._signals, *_UNUSED):
            # The terminal sends INT and HUP to the whole group; a child listens to its master.
            signal.signal(number, signal.SIG_IGN if number in (signal.SIGINT, signal.SIGHUP) else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        for child in self._children.values():
            if child.report >= 0:
                os.close(child.report)
        for listener in self._listeners:
            listener.keep(slot)

    def _fork_admin(self, listener: Listener) -> int:
        store = self._config.store
        queue = store if store and is_queue(store) else None
        facts = Facts(os.getpid(), tuple(map(str, self._listeners)), str(listener), self._config.admin_token, queue)
        return self._fork("admin", None, lambda: admin_child.be_admin(listener, self._scoreboard, facts))

    def _spawn(self, slot: int, replaces: Child | None = None) -> None:
        """Start a worker; the slot must have room."""
        report, pipe = os.pipe()
        row = self._scoreboard.take(slot)
        sockets = [listener.socket_of(slot) for listener in self._listeners]

        def be_worker() -> int:
            os.close(report)
            if self._admin:
                self._admin.listener.keep(None)
            clients = self._counts.open(row.number)
            return worker.run(self._config, slot, sockets, clients, row, self._target, pipe)

        pid = self._fork(f"worker {slot}", slot, be_worker)
        os.close(pipe)
        self._children[pid] = Child(pid, slot, row.number, report, time.monotonic(), replaces=replaces)

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
            self._scoreboard.master.become(State.READY)
            admin = self._admin.listener if self._admin else None
            announce(self._config, self._listeners, admin, f"{self._slots} ({self._reason})", self._target)
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
            code = os.waitstatus_to_exitcode(status)
            if child := self._children.pop(pid, None):
                if child.report >= 0:
                    os.close(child.report)
                self._counts.release(child.row)
                self._scoreboard.release(child.row)
                self._has_ended(child, code)
                self._reload_next()  # it may have waited for the room
            elif self._admin:
                self._admin.has_ended(pid, code)

    def _has_ended(self, child: Child, code: int) -> None:
        how = how_it_ended(code)
        if self._exit_code is not None:
            if code and child.phase is not Phase.STARTING:
                self._exit_code = self._exit_code or EXIT_CUT
        elif successor := next((each for each in self._children.values() if each.replaces is child), None):
            _log.error("worker %d (pid %d) died (%s); its successor is starting already", child.slot, child.pid, how)
            self._scoreboard.master.cells[WORKER_DEATHS] += 1
            successor.replaces = None
        elif child.phase is Phase.LEAVING:
            _log.info("worker %d (pid %d) has left", child.slot, child.pid)
        elif child.phase is Phase.STARTING and child.replaces is not None and child.replaces.pid in self._children:
            _log.error(
                "worker %d: its successor did not start (%s); the old one stays, reload given up", child.slot, how
            )
            self._to_reload.clear()
            self._reload_is_over(RELOADS_GIVEN_UP, 256 + code)
        elif child.phase is Phase.STARTING and not self._serving:
            _log.critical("worker %d did not start (%s): giving up", child.slot, how)
            self._end(EXIT_CANNOT_LOAD)
        else:
            self._replace_dead(child, how)

    def _replace_dead(self, child: Child, how: str) -> None:
        now = time.monotonic()
        delay = self._back_offs[child.slot].delay(now - child.started)
        when = f"in {delay:g} s" if delay else "now"
        _log.error("worker %d (pid %d) died (%s); its successor starts %s", child.slot, child.pid, how, when)
        self._scoreboard.master.cells[WORKER_DEATHS] += 1
        self._restarts[child.slot] = now + delay

    # -- signals ------------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """HUP: replace the workers, one by one."""
        if self._exit_code is None:
            _log.info("reload: replacing %d workers", self._slots)
            self._reloading = True
            self._to_reload = list(range(self._slots))
            self._reload_next()

    def _reload_next(self) -> None:
        """Replace the next worker whose slot has room; one that lacks it waits until a predecessor has left."""
        if not self._reloading or self._exit_code is not None:
            return
        if any(child.phase is Phase.STARTING for child in self._children.values()):
            return
        ready = {child.slot: child for child in self._children.values() if child.phase is Phase.READY}
        self._to_reload = [slot for slot in self._to_reload if slot in ready]  # who starts anyway is new
        for slot in self._to_reload:
            if self._scoreboard.has_room(slot):
                self._to_reload.remove(slot)
                self._spawn(slot, replaces=ready[slot])
                return
        if self._to_reload:
            _log.info("reload: workers %s have two predecessors that still leave: waiting", self._to_reload)
        else:
            self._reload_is_over(RELOADS_DONE)

    def _reload_is_over(self, outcome: int, failure: int = 0) -> None:
        self._reloading = False
        self._scoreboard.master.cells[outcome] += 1
        self._scoreboard.master.cells[RELOAD_FAILURE] = failure

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
            self._scoreboard.master.become(State.DRAINING)
            self._restarts.clear()
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


def _ignore(number: int, frame: object) -> None:
    """A signal is noted by the wake-up descriptor; nothing happens here."""
