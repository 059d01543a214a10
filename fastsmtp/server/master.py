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
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..config import Config
from ..queue import is_queue
from . import admin_child, logs, worker
from .admin_child import AdminChild
from .announcement import announce
from .children import Child, Phase, how_it_ended
from .clients import ClientCounts
from .columns import (
    OPEN_CONNECTIONS,
    PAUSED,
    SESSIONS_CUT,
    WORKER_DEATHS,
    WORKER_HANGS,
    WORKER_RECYCLES,
    State,
)
from .control import Control, RefusedError
from .forking import UNUSED, Forks
from .recycling import Recycling
from .reloads import Reloads
from .scaling import Scaling
from .scoreboard import Row, Scoreboard
from .settings_in_force import Settings
from .slots import Slots
from .startup import EXIT_CANNOT_BIND, EXIT_CANNOT_LOAD, EXIT_WRONG_SETTING, Ground, StartError, prepared
from .status import Facts
from .trace_link import TraceLink
from .watchdog import INTERVAL, Watchdog
from .wires import Wires

__all__ = ["EXIT_CANNOT_BIND", "EXIT_CANNOT_LOAD", "EXIT_CUT", "EXIT_OK", "EXIT_WRONG_SETTING", "run"]

EXIT_OK: Final = 0
EXIT_CUT: Final = worker.EXIT_CUT

_KILL_DELAY: Final = 5.0  # seconds behind drain_timeout, before a worker that does not leave is killed
_log = logging.getLogger("fastsmtp.master")


def run(config: Config, target: object | None = None, read_anew: Callable[[], Config] | None = None) -> int:
    """Serve until told to stop.

    Args:
        config: the settings.
        target: the application; None loads what the settings name.
        read_anew: reads the settings again, for a reload; None where they are fixed.

    Returns:
        The exit code: 0, 1 if sessions were cut, 2 if a setting cannot be met, 3 if the application cannot be loaded, 4
        if an address cannot be had.
    """
    try:
        with prepared(config, target) as ground:
            return Master(ground, read_anew).run()
    except StartError as error:
        return error.code


class Master:
    """Keeps a worker in each slot, and the admin process."""

    def __init__(self, ground: Ground, read_anew: Callable[[], Config] | None) -> None:
        self._ground = ground
        self._listeners = ground.listeners
        self._scoreboard = Scoreboard(ground.most)
        self._scoreboard.master.begin()
        self._counts = ClientCounts(self._scoreboard.rows, ground.config.auth_failures_window)
        self._cells = self._scoreboard.master.cells
        self._control = Control({"scale": self._scale_as_asked})
        self._slots = Slots(self._scoreboard, ground.most, ground.workers, self._fork_worker)
        settings = Settings(ground.config, read_anew)
        self._reloads = Reloads(settings, self._slots, self._cells, self._is_in_force, self._reload_is_over)
        self._scaling = Scaling(self._slots, self._listeners, self._has_scaled)
        self._recycling = Recycling()
        self._watchdog = Watchdog(self._scoreboard, time.monotonic())
        self._traces = TraceLink()
        self._admin = AdminChild(ground.admin, self._fork_admin) if ground.admin else None
        self._serving = False  # all workers were ready once
        self._look_at = 0.0  # when the watchdog looks next
        self._exit_code: int | None = None  # set when we are to end
        self._cut_before = 0  # sessions that had been cut when we were told to end
        self._kill_at = 0.0
        self._signals: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGQUIT: self._stop_now,
            signal.SIGHUP: self._reload,
            signal.SIGTTIN: lambda: self._scale_by(1),
            signal.SIGTTOU: lambda: self._scale_by(-1),
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGCHLD: self._reap,
        }
        self._forks = Forks(self._signals, ground.log_files.reopen)
        self._forks.left_behind += [
            lambda slot: self._slots.close_reports(),
            *[listener.keep for listener in self._listeners],
        ]

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        wake, bell = os.pipe()
        for end in (wake, bell):
            os.set_blocking(end, False)
        old_bell = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        old_handlers = {number: signal.signal(number, _ignore) for number in self._signals}
        old_handlers |= {number: signal.signal(number, signal.SIG_IGN) for number in {*UNUSED} - {*self._signals}}
        try:
            gc.collect()
            gc.freeze()  # what the workers share stays shared: the collector does not touch it
            if self._admin:
                self._admin.start()
            self._slots.fill()
            while self._exit_code is None or self._slots.children or (self._admin and self._admin.is_alive):
                self._look_at_the_clock()
                self._turn(wake)
            self._say_how_it_went()
        finally:
            signal.set_wakeup_fd(old_bell)
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            self._control.close()
            self._traces.close()
            os.close(wake)
            os.close(bell)
        return self._exit_code

    def _turn(self, wake: int) -> None:
        """Wait for something to do, and do it."""
        reports = {child.report: child for child in self._slots.children.values() if child.report >= 0}
        control, poll = self._control.fileno(), select.poll()
        for descriptor in (wake, control, *reports):
            poll.register(descriptor, select.POLLIN)
        for report, _ in poll.poll(self._patience() * 1000):
            if report == wake:
                for number in os.read(wake, 4096):
                    if act := self._signals.get(number):
                        act()
            elif report == control:
                self._control.answer()
            elif reports[report].pid in self._slots.children:
                self._hear(reports[report])

    def _hear(self, child: Child) -> None:
        is_ready, is_shut = self._slots.hear(child)
        if is_ready:
            self._is_ready(child)
        if is_shut:
            self._reloads.rolling.has_shut(child)

    def _patience(self) -> float:
        """Seconds until the clock matters."""
        times = [self._look_at, *self._slots.due]
        if self._admin and self._admin.due is not None:
            times.append(self._admin.due)
        if self._exit_code is not None and self._slots.children:
            times.append(self._kill_at)
        return max(0.0, min(times) - time.monotonic())

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + min(INTERVAL, self._ground.notifier.interval or INTERVAL)
            self._look_at_the_workers(now)
        if self._admin:
            if self._exit_code is not None and not self._slots.children:
                self._admin.end()
            self._admin.look_at_the_clock(now)
        if self._exit_code is None:
            self._slots.look_at_the_clock(now)
        elif now >= self._kill_at and self._slots.children:
            _log.error("%d workers did not leave in time: killed", len(self._slots.children))
            self._kill_at = now + _KILL_DELAY
            self._slots.signal_all(signal.SIGKILL)

    def _look_at_the_workers(self, now: float) -> None:
        """Once a second: who hangs, who has served long enough, who is to be spared."""
        self._ground.notifier.alive()
        children, timeout = list(self._slots.children.values()), self._reloads.settings.current.watchdog_timeout
        self._cells[WORKER_HANGS] += self._watchdog.look(children, timeout, now)
        if self._exit_code is not None:
            return
        for child, reason in self._recycling.used_up(children, self._scoreboard, now):
            if self._reloads.rolling.recycle(child, reason):
                self._cells[WORKER_RECYCLES] += 1
        self._reloads.rolling.go_on()
        self._steer()

    def _steer(self) -> None:
        """New connections go to those who accept them."""
        now = time.monotonic()
        spared = {
            child.slot
            for child in self._slots.children.values()
            if child.phase is Phase.READY
            and (self._watchdog.is_stalled(child, now) or self._scoreboard.cells_of(child.row)[PAUSED])
        }
        self._scaling.steer(spared)

    # -- children -----------------------------------------------------------------------------------------------------

    def _fork_admin(self) -> int:
        assert self._ground.admin is not None
        listener, config = self._ground.admin, self._reloads.settings.current
        queue = config.store if config.store and is_queue(config.store) else None
        facts = Facts(os.getpid(), tuple(map(str, self._listeners)), str(listener), config.admin_token, queue)
        wires = Wires(self._control, self._reloads.notice, self._ground.log_files, self._traces)

        def be_admin() -> int:
            logs.set_up(config.log_format, config.log_level)
            self._control.be_admin()
            return admin_child.be_admin(listener, self._scoreboard, facts, wires)

        return self._forks.fork("admin", None, be_admin)

    def _fork_worker(self, slot: int, row: Row, report: int, pipe: int, renews: bool) -> int:
        config = self._reloads.config_for(renews)
        sockets = [listener.socket_of(slot) for listener in self._listeners]

        def be_worker() -> int:
            os.close(report)
            logs.set_up(config.log_format, config.log_level)
            self._control.close()
            if self._ground.admin:
                self._ground.admin.keep(None)
            clients = self._counts.open(row.number)
            traces = self._traces if self._ground.admin else None
            return worker.run(
                config, slot, sockets, clients, row, self._ground.target, pipe, self._ground.log_files, traces
            )

        pid = self._forks.fork(f"worker {slot}", slot, be_worker)
        self._recycling.begin(pid, config, row.cells, time.monotonic())
        return pid

    def _is_ready(self, child: Child) -> None:
        self._reloads.take_over(child)
        self._steer()
        if not self._serving and self._slots.is_complete and self._exit_code is None:
            self._serving = True
            self._scoreboard.master.become(State.READY)
            workers = f"{self._slots.wanted} ({self._ground.reason})"
            announce(self._reloads.settings.current, self._listeners, self._ground.admin, workers, self._ground.target)
            self._ground.notifier.ready(self._status())
        self._reloads.rolling.go_on()

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
            self._recycling.end(pid)
            known = self._slots.children.get(pid)
            sessions = self._scoreboard.cells_of(known.row)[OPEN_CONNECTIONS] if known else 0
            if child := self._slots.bury(pid):
                self._counts.release(child.row)
                self._has_ended(child, code, sessions)
                self._reloads.rolling.has_shut(child)
                self._reloads.rolling.go_on()  # it may have waited for the room
            elif self._admin:
                self._admin.has_ended(pid, code)

    def _has_ended(self, child: Child, code: int, sessions: int) -> None:
        """A worker has ended, with this exit code, and with so many sessions a moment before."""
        how, name = how_it_ended(code), f"worker {child.slot} (pid {child.pid})"
        if self._exit_code is not None:
            if code < 0 and child.phase is not Phase.STARTING:  # nobody is left to say so
                self._cells[SESSIONS_CUT] += sessions
            if code and child.phase is not Phase.STARTING:
                self._exit_code = self._exit_code or EXIT_CUT
        elif successor := self._slots.successor_of(child):
            _log.error("%s died (%s); its successor is starting already", name, how)
            self._cells[WORKER_DEATHS] += 1
            successor.replaces = None
        elif child.phase is Phase.LEAVING:
            if code in (worker.EXIT_DRAINED, worker.EXIT_CUT, -signal.SIGTERM):
                _log.info("%s has left", name)
            else:
                _log.error("%s died (%s) while it left", name, how)
                self._cells[WORKER_DEATHS] += 1
        elif child.phase is Phase.STARTING and child.replaces is not None:
            self._reloads.did_not_start(child, child.replaces, code)
        elif child.phase is Phase.STARTING and not self._serving:
            _log.critical("worker %d did not start (%s): giving up", child.slot, how)
            self._end(EXIT_CANNOT_LOAD)
        else:
            if child.phase is Phase.STARTING and child.renews:  # whom it was to replace has died meanwhile
                self._reloads.give_up(how)
            self._replace_dead(child, how)

    def _replace_dead(self, child: Child, how: str) -> None:
        delay = self._slots.fill_again(child.slot, time.monotonic() - child.started)
        when = f"in {delay:g} s" if delay else "now"
        _log.error("worker %d (pid %d) died (%s); its successor starts %s", child.slot, child.pid, how, when)
        self._cells[WORKER_DEATHS] += 1
        self._steer()

    # -- reload -------------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """HUP: read the settings anew, and replace the workers, one by one."""
        if self._exit_code is None:
            self._ground.notifier.reloading()
            self._reloads.begin()

    def _reload_is_over(self, reason: str) -> None:
        """`reason`: why it was given up, if it was."""
        self._ground.notifier.ready(f"{self._status()}; last reload given up: {reason}" if reason else self._status())

    def _is_in_force(self, config: Config, before: Config) -> None:
        """What is not the workers' alone has changed, too."""
        logs.set_up(config.log_format, config.log_level)
        of_the_admin = ("log_format", "log_level", "admin_token", "store")
        if self._admin and any(getattr(config, name) != getattr(before, name) for name in of_the_admin):
            self._admin.renew()
        if config.workers and config.workers != before.workers:
            self._scaling.try_to(config.workers)

    def _status(self) -> str:
        return f"{self._slots.wanted} workers on {', '.join(listener.address for listener in self._listeners)}"

    # -- scaling ------------------------------------------------------------------------------------------------------

    def _scale_by(self, step: int) -> None:
        """TTIN, TTOU: one worker more, one less."""
        if self._exit_code is None:
            self._scaling.try_to(self._slots.wanted + step)

    def _has_scaled(self) -> None:
        self._ground.notifier.status(self._status())

    def _scale_as_asked(self, request: Mapping[str, Any]) -> str:
        if self._exit_code is not None:
            raise RefusedError("the server stops")
        return self._scaling.to(int(request["workers"]))

    # -- the end ------------------------------------------------------------------------------------------------------

    def _reopen_logs(self) -> None:
        """USR1: log files were moved away; every process opens them anew."""
        self._ground.log_files.reopen()
        self._slots.signal_all(signal.SIGUSR1)
        if self._admin:
            self._admin.reopen_logs()
        _log.info("logs opened anew")

    def _stop(self) -> None:
        """TERM, INT: let the sessions end; a second time: cut them."""
        if self._exit_code is None:
            timeout = self._reloads.settings.current.drain_timeout
            _log.info("stopping: %d workers drain for up to %g s", len(self._slots.children), timeout)
            self._end(EXIT_OK)
        else:
            self._stop_now()

    def _stop_now(self) -> None:
        """QUIT: cut the sessions."""
        self._end(EXIT_OK)
        self._kill_at = time.monotonic() + _KILL_DELAY
        self._slots.signal_all(signal.SIGQUIT)

    def _end(self, code: int) -> None:
        if self._exit_code is None:
            self._exit_code = code
            self._scoreboard.master.become(State.DRAINING)
            self._ground.notifier.stopping("draining")
            self._slots.give_up()
            self._reloads.rolling.give_up()
            self._cut_before = self._scoreboard.totals()[SESSIONS_CUT]
            self._kill_at = time.monotonic() + self._reloads.settings.current.drain_timeout + _KILL_DELAY
            for listener in self._listeners:  # new connections are refused as soon as the workers have closed theirs
                listener.turn_away()
                listener.close()
            self._slots.signal_all(signal.SIGTERM)

    def _say_how_it_went(self) -> None:
        cut = self._scoreboard.totals()[SESSIONS_CUT] - self._cut_before
        if self._exit_code in (EXIT_OK, EXIT_CUT):
            _log.info("stopped: %s", f"{cut} sessions were cut" if cut else "no session was cut")


def _ignore(number: int, frame: object) -> None:
    """A signal is noted by the wake-up descriptor; nothing happens here."""
