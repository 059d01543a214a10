"""One worker process: one event loop, the listeners of its slot, a thread pool, a store.

Started by the master by fork; it reports through a pipe when it serves. Signals: TERM drains and exits (the server
stops), USR2 drains because a successor is at work, TTOU because the slot is not wanted any more, QUIT cuts what is
left, USR1 opens the logs anew. It does not outlive the master.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from ..config import Config, Listen
from ..handler import WorkerInfo
from ..protocol.envelope import Endpoint
from ..protocol.memory import BufferPool
from ..protocol.sasl import check_mechanisms
from ..store import StoreError, open_store
from ..users import UsersFile, UsersFileError
from . import application as applications
from .access_log import AccessLog
from .application import Application
from .books import Books
from .capacity import keep_to_one_cpu
from .certificates import CertificateError, Certificates
from .clients import Clients
from .columns import SESSIONS_CUT, State
from .connection import Connection
from .dispatch import Dispatcher
from .doors import Doors
from .entrance import Entrance, LoginGuard
from .handshake import Handshake
from .hook_tasks import HookTasks
from .intake import Intake
from .log_files import LogFiles
from .overload import Overload
from .preamble import Preamble
from .pulse import Pulse
from .reception import Reception
from .rooms import connect
from .scoreboard import Row
from .services import make_service
from .switching import Switching
from .threads import ThreadPool
from .trace_link import TraceLink
from .tracing import Tracer
from .turn import Turn

EXIT_DRAINED: Final = 0
EXIT_CUT: Final = 1  # sessions had to be cut
EXIT_CANNOT_LOAD: Final = 3  # the application, its lifespan or the store did not come up
READY: Final = b"ready\n"  # what goes through the pipe: we serve
SHUT: Final = b"shut\n"  # we accept no connections any more

_CERTIFICATES_INTERVAL: Final = 10.0  # seconds between two looks at the certificates' files
# Seconds that a vacated slot goes on to accept. A handshake that was under way when connections were steered away ends
# in its queue; one that lost a packet comes a second later (RFC 6298 2.1), or two more.
_STRAGGLERS: Final = 3.0
_LAST_CALLS: Final = 1.0  # seconds for the closed hooks of sessions that were cut
_log = logging.getLogger("fastsmtp.worker")


def run(
    config: Config,
    slot: int,
    sockets: Sequence[socket.socket],
    clients: Clients,
    row: Row,
    target: object | None,
    report: int,
    log_files: LogFiles,
    traces: TraceLink | None = None,
) -> int:
    """Be a worker until told to stop. In the child process.

    Args:
        config: the settings.
        slot: our place.
        sockets: listening, one for each of `config.listen`.
        clients: our part of the counts per client.
        row: our part of the scoreboard.
        target: the application, or None to load what the settings name.
        report: the pipe's file descriptor.
        log_files: opened anew on USR1.
        traces: who traces sessions is heard there; None: nobody can.

    Returns:
        The exit code.
    """
    row.begin()
    if traces:
        traces.keep_sender()
    faulthandler.enable()  # the watchdog sends ABRT
    sys.unraisablehook = _ignore_odd_names
    if config.cpu_affinity or config.balance == "cpu":
        keep_to_one_cpu(slot)
    try:
        if target is None and config.app:
            target = applications.load(config.app)
        users = UsersFile(Path(config.users)) if config.users else None
        application = Application(target, users)
        tell = partial(os.write, report)
        worker = Worker(config, slot, sockets, clients, row, application, tell, log_files, traces)
    except (applications.ApplicationError, UsersFileError) as error:
        _log.critical("%s", error)
        return EXIT_CANNOT_LOAD
    except BaseException:
        _log.critical("application %s cannot be loaded", config.app, exc_info=True)
        return EXIT_CANNOT_LOAD
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(worker.main())


def _ignore_odd_names(report: sys.UnraisableHookArgs) -> None:
    """A client may ask for a server name that is no text; Python would print a traceback for each."""
    if not (isinstance(report.exc_value, UnicodeError) and isinstance(report.object, ssl.SSLContext)):
        sys.__unraisablehook__(report)


def _calm_the_collector() -> None:
    """Sessions leave no cycles behind, so the collector has little to find; the application may be different.

    What is loaded by now stays: 8 % less CPU for a session with one message.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class Order(IntEnum):
    """What a worker is told; a later one counts if it is greater."""

    SERVE = 0
    LEAVE = 1  # a successor serves
    VACATE = 2  # nobody will
    STOP = 3  # the server stops
    CUT = 4  # at once


class Worker:
    """A worker's life on its event loop."""

    def __init__(
        self,
        config: Config,
        slot: int,
        sockets: Sequence[socket.socket],
        clients: Clients,
        row: Row,
        application: Application,
        report: Callable[[bytes], object],
        log_files: LogFiles,
        traces: TraceLink | None,
    ) -> None:
        self._config = config
        self._slot = slot
        self._sockets = sockets
        self._clients = clients
        self._row = row
        self._application = application
        self._report = report
        self._traces = traces
        self._certificates: list[Certificates] = []
        self._pool = BufferPool()
        self._log_files = log_files
        self._order = Order.SERVE
        self._ordered = asyncio.Event()
        self._starting: asyncio.Task[int] | None = None  # until it serves

    async def main(self) -> int:
        """Serve until told to stop; returns the exit code."""
        loop, config = asyncio.get_running_loop(), self._config
        self._starting = asyncio.current_task()
        loop.add_signal_handler(signal.SIGUSR1, self._log_files.reopen)
        loop.add_signal_handler(signal.SIGUSR2, self._obey, Order.LEAVE)
        loop.add_signal_handler(signal.SIGTTOU, self._obey, Order.VACATE)
        loop.add_signal_handler(signal.SIGTERM, self._obey, Order.STOP)
        loop.add_signal_handler(signal.SIGQUIT, self._obey, Order.CUT)
        async with AsyncExitStack() as stack:
            try:
                reception = await stack.enter_async_context(self._open())
                entrances = [self._build(reception, *each) for each in zip(config.listen, self._sockets, strict=True)]
                reception.entrances.extend(entrances)
                reception.start_sweeping(loop)
                rooms = [partial(_first_room(entrance.config), entrance) for entrance in entrances]
                doors = Doors(list(zip(self._sockets, rooms, strict=True)), config.backlog)
                await doors.open()
            except asyncio.CancelledError:
                return EXIT_DRAINED  # by an order; there is no session yet
            except Exception as error:
                known = isinstance(error, (applications.ApplicationError, StoreError, CertificateError))
                _log.critical("worker %d cannot start: %s", self._slot, error, exc_info=not known)
                return EXIT_CANNOT_LOAD
            finally:
                self._starting = None
            watching = loop.create_task(self._watch_certificates())
            stack.callback(watching.cancel)
            _calm_the_collector()
            self._row.become(State.READY)
            self._report(READY)
            overload = Overload(loop, config, reception, doors, self._row.cells)
            await self._ordered.wait()
            self._row.become(State.DRAINING)
            await self._shut(doors, overload)
            return await self._drain(reception)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Reception]:
        """Everything that lives as long as the worker."""
        config, loop = self._config, asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            # Closed last: while the store and the application close, messages still get their verdicts.
            access_log = AccessLog(1, config.log_format, loop.call_later)
            stack.callback(access_log.flush)
            books = Books(self._row, access_log)
            stack.callback(books.count)
            info = WorkerInfo(self._slot, os.getpid(), config.hostname or socket.getfqdn())
            await stack.enter_async_context(self._application.lifespan(info))
            if not config.store and not self._application.keeps_mail:
                _log.warning(
                    "the handler has no data hook and no store is set: accepted mail will be lost; see --store"
                )
            store = await stack.enter_async_context(open_store(config.store, self._slot)) if config.store else None
            free_bytes = store.free_bytes if store else _unknown
            tasks = HookTasks(loop)
            stack.callback(tasks.close)
            turn = Turn(loop)
            pool = ThreadPool(loop, config.threads, config.max_pending_hooks, turn.end)
            stack.callback(pool.close)
            dispatcher = Dispatcher(
                tasks,
                pool,
                Intake(store, self._row.cells) if store else None,
                config.hook_timeout,
                config.data_hook_timeout,
                books.hook_seconds.append,
            )
            reception = Reception(
                config, self._application, dispatcher, books, turn, self._clients, free_bytes, Connection
            )
            stack.callback(reception.stop_sweeping)
            stack.callback(Pulse(loop, self._row, reception).stop)
            if self._traces:
                stack.callback(Tracer(loop, self._traces, self._row, self._slot, reception).stop)
            stack.callback(Switching(loop, config.switch_interval, pool).stop)
            yield reception

    def _build(self, reception: Reception, text: str, listening: socket.socket) -> Entrance:
        """What the connections of one listener share."""
        config = self._config.for_listener(Listen.parse(text))
        certificates = None
        if config.tls_certfile:
            certificates = Certificates(
                config.tls_certfile,
                config.tls_keyfile,
                config.tls_min_version,
                config.tls_client_ca,
                config.tls_verify_client,
            )
            self._certificates.append(certificates)
        if config.require_auth and not self._application.authenticates:
            _log.warning("%s: login is required, but nobody can log in: no auth hook, no users file", text)
        mechanisms = config.auth_mechanisms or self._application.auth_mechanisms
        try:
            check_mechanisms(mechanisms)
        except ValueError as error:
            raise applications.ApplicationError(f"listener {text}: {error}") from error
        guard = LoginGuard(self._clients, reception.books, config)
        tally = reception.books.verbs.append
        service = make_service(config, self._pool, mechanisms, guard, tally, self._application.checks_authzid)
        return Entrance(reception, config, service, certificates, _address_of(listening), _name_of(listening))

    async def _watch_certificates(self) -> None:
        """Certificates are renewed on disk, by others; nobody should have to tell us."""
        while self._certificates:
            await asyncio.sleep(_CERTIFICATES_INTERVAL)
            for each in self._certificates:
                each.refresh()

    def _obey(self, order: Order) -> None:
        if order > self._order:
            self._order = order
            self._ordered.set()
            if self._starting:  # the application's lifespan may take long to begin, and nobody waits for it any more
                self._starting.cancel()

    async def _shut(self, doors: Doors, overload: Overload) -> None:
        """Accept what is on its way to us, and nothing more."""
        if self._order is Order.VACATE:
            self._ordered.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STRAGGLERS):
                    await self._ordered.wait()
        overload.stop()
        await doors.close(self._order is Order.LEAVE)
        with suppress(BrokenPipeError):  # the master is dead
            self._report(SHUT)

    async def _drain(self, reception: Reception) -> int:
        """Let the sessions end as we were told, also if we are told otherwise meanwhile."""
        cut = None
        while cut is None and self._order is not Order.CUT:
            self._ordered.clear()
            patience, retire = self._config.drain_timeout, self._order is not Order.STOP
            draining = asyncio.create_task(reception.drain(patience, retire))
            told = asyncio.create_task(self._ordered.wait())
            await asyncio.wait((draining, told), return_when=asyncio.FIRST_COMPLETED)
            told.cancel()
            if draining.done():
                cut = draining.result()
            else:
                draining.cancel()
        if cut is None:
            cut = reception.cut()
        await asyncio.sleep(0)  # lets the last replies out
        await reception.wait_until_empty(_LAST_CALLS)
        if cut:
            self._row.cells[SESSIONS_CUT] += cut
            _log.warning("worker %d: %d sessions were cut", self._slot, cut)
        return EXIT_CUT if cut else EXIT_DRAINED


def _first_room(config: Config) -> Callable[[Entrance], asyncio.BaseProtocol]:
    """Where a new connection comes in."""
    if config.proxy_protocol:
        return Preamble
    return Handshake if config.implicit_tls else connect


def _unknown() -> None:
    """The room there is, where nobody knows: there is no store."""


def _address_of(listening: socket.socket) -> Endpoint | None:
    """The address of a listener's connections, if it has only one: then it need not be asked for."""
    if listening.family == socket.AF_UNIX:
        return Endpoint("unix", 0)
    name = listening.getsockname()
    return None if name[0] in ("0.0.0.0", "::") else Endpoint(name[0], name[1])


def _name_of(listening: socket.socket) -> str:
    """A listener's address as the log names it."""
    name = listening.getsockname()
    return f"unix:{name}" if listening.family == socket.AF_UNIX else Listen(name[0], name[1]).address
