"""What must be so before the master forks for the first time: logs, addresses, privileges, the application.

In this order: the log first, so that everything else can be told; addresses while we may bind them; the user's code
when we have become whom it is to run as.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ..config import Config, Listen
from ..store import check_url
from . import admin_child, logs
from . import application as applications
from .application import Application, ApplicationError
from .capacity import default_workers, raise_descriptor_limit, usable_cpus
from .listeners import BindError, Inherited, Listener
from .log_files import LogFiles
from .privileges import Account, PrivilegeError, account, become
from .systemd import Notifier, inherited

EXIT_WRONG_SETTING: Final = 2
EXIT_CANNOT_LOAD: Final = 3
EXIT_CANNOT_BIND: Final = 4

_log = logging.getLogger("fastsmtp.master")


class StartError(Exception):
    """The server cannot start; the log has been told why.

    Args:
        code: to exit with.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Ground:
    """What the master stands on.

    Attributes:
        config: the settings, with the store that is used.
        target: the application, if it is loaded already.
        workers: how many, and `reason` why.
        most: how many there may ever be.
        admin: where the admin process listens.
    """

    config: Config
    target: object | None
    workers: int
    reason: str
    most: int
    listeners: list[Listener]
    admin: Listener | None
    log_files: LogFiles
    notifier: Notifier


@contextmanager
def prepared(config: Config, target: object | None) -> Iterator[Ground]:
    """Everything that is there until the server ends.

    Raises:
        StartError: something cannot be had.
    """
    log_files, owner = _begin_to_log(config)
    raise_descriptor_limit()
    if target is None:
        config = replace(config, store=config.effective_store)
    _check(config, target)
    workers, reason = (config.workers, "as configured") if config.workers else default_workers()
    most = max(workers, config.max_workers or max(8, 2 * workers))
    listeners, admin = _bind(config, workers, most, owner)
    try:
        with pidfile(config.pidfile):
            _drop_to(owner)
            if config.spool_dir:
                _check_spool(config.spool_dir)
            notifier = Notifier(os.environ)
            if target is None and config.app and config.preload:
                target = _load(config.app)
            yield Ground(config, target, workers, reason, most, listeners, admin, log_files, notifier)
    finally:
        for listener in [*listeners, *([admin] if admin else [])]:
            listener.close()


def _check_spool(directory: str) -> None:
    """Large messages need a file there; that it is impossible should not be heard of from their senders."""
    try:
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        _log.critical("spool_dir %s: no file can be made there: %s", directory, error.strerror)
        raise StartError(EXIT_WRONG_SETTING) from error


def _begin_to_log(config: Config) -> tuple[LogFiles, Account | None]:
    logs.set_up(config.log_format, config.log_level)
    if config.umask is not None:
        os.umask(int(config.umask, 8))
    log_files = LogFiles(config)
    try:
        owner = account(config.user, config.group)
        log_files.open(owner)
    except PrivilegeError as error:
        _log.critical("%s", error)
        raise StartError(EXIT_WRONG_SETTING) from error
    except OSError as error:
        _log.critical("%s: cannot be opened: %s", error.filename, error.strerror)
        raise StartError(EXIT_WRONG_SETTING) from error
    return log_files, owner


def _check(config: Config, target: object | None) -> None:
    """Look at what can be looked at before anything is bound."""
    try:
        if config.store:
            check_url(config.store)
        Application(target)
    except (ApplicationError, ValueError) as error:
        _log.critical("%s", error)
        raise StartError(EXIT_CANNOT_LOAD) from error


def _load(app: str) -> object:
    try:
        target = applications.load(app)
        Application(target)
    except ApplicationError as error:
        _log.critical("%s", error)
    except BaseException:  # of the application's module
        _log.critical("application %s cannot be loaded", app, exc_info=True)
    else:
        return target
    raise StartError(EXIT_CANNOT_LOAD)


def _bind(config: Config, workers: int, most: int, owner: Account | None) -> tuple[list[Listener], Listener | None]:
    listeners: list[Listener] = []
    try:
        passed = Inherited(inherited(os.environ))
        for text in config.listen:
            listen = Listen.parse(text)
            mode = config.for_listener(listen).socket_mode
            listeners.append(
                Listener(
                    listen,
                    workers,
                    config.backlog,
                    most - workers,
                    config.balance == "shared",
                    passed.take(listen),
                    None if mode is None else int(mode, 8),
                    owner,
                    usable_cpus() if config.balance == "cpu" else (),
                )
            )
        for address in passed.close_rest():
            _log.warning("a socket was passed to us that no listener names: %s", address)
        return listeners, admin_child.listen(config, owner)
    except BindError as error:
        _log.critical("%s", error)
        for each in listeners:
            each.close()
        raise StartError(EXIT_CANNOT_BIND) from error


def _drop_to(owner: Account | None) -> None:
    if owner is None:
        return
    try:
        become(owner)
    except PrivilegeError as error:
        _log.critical("%s", error)
        raise StartError(EXIT_WRONG_SETTING) from error
    _log.info("running as uid %d, gid %d", owner.uid, owner.gid)


@contextmanager
def pidfile(path: str | None) -> Iterator[None]:
    """Our pid in a file, as long as we live; whole at any time.

    Raises:
        StartError: it cannot be written.
    """
    if path is None:
        yield
        return
    ours, beside = f"{os.getpid()}\n", f"{path}.{os.getpid()}"
    try:
        _write_new(beside, ours)
        os.replace(beside, path)
    except OSError as error:
        _log.critical("%s: cannot be written: %s", path, error.strerror)
        raise StartError(EXIT_WRONG_SETTING) from error
    path = os.path.abspath(path)
    try:
        yield
    finally:
        with suppress(OSError):  # its directory may belong to whom we were
            if Path(path).read_text() == ours:
                os.unlink(path)


def _write_new(path: str, text: str) -> None:
    """Make a file; root follows no link here that somebody has put into a directory of his."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # of a server with our pid that was killed: in a container they all have the same
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "w") as file:
        file.write(text)
