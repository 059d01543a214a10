"""The user's part: found by its name, and asked for a handler for each session."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any

from ..handler import Handler, Hook, Kind, WorkerInfo, hooks_of
from ..protocol.credentials import Credentials
from ..protocol.events import AuthAnswer
from ..protocol.session import Session
from ..users import UsersFile


class ApplicationError(Exception):
    """The application cannot be loaded; the text says why and what to do."""


class Application:
    """A class (an instance for each session), an instance (shared by all sessions), or a callable that makes instances.

    Args:
        target: one of these, or None: all mail is accepted and goes to the store.
        users: decides logins, instead of the handler.
    """

    def __init__(self, target: object | None, users: UsersFile | None = None) -> None:
        self._target = target
        self._users = users
        self.new_handler: Callable[[], object] = _maker(target)

    def hooks_of(self, handler_class: type) -> dict[str, Hook]:
        """The hooks that a handler's class implements. Where there is a users file, it decides logins instead."""
        hooks = hooks_of(handler_class)
        users = self._users
        if users is None:
            return hooks

        def auth(handler: object, session: Session, credentials: Credentials) -> AuthAnswer:
            return users.check(session, credentials)

        return {**hooks, "auth": Hook("auth", Kind.THREAD, auth)}

    @property
    def auth_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms that it can decide."""
        if self._users:
            return self._users.mechanisms
        return getattr(self._target, "auth_mechanisms", Handler.auth_mechanisms)

    @property
    def checks_authzid(self) -> bool:
        """Whether it decides who may act for whom."""
        return self._users is None and bool(getattr(self._target, "checks_authzid", False))

    @property
    def authenticates(self) -> bool:
        """Whether anybody can log in; unknown (True) before a factory was called."""
        return self._users is not None or self._decides_logins

    @property
    def _decides_logins(self) -> bool:
        return self._target is not None and self._users is None and self._may_have("auth")

    def _may_have(self, hook: str) -> bool:
        """Whether the handlers have a hook; unknown (True) before a factory was called."""
        target_class: type = self._target if isinstance(self._target, type) else type(self._target)
        return not issubclass(target_class, Handler) or hook in self.hooks_of(target_class)

    @property
    def keeps_mail(self) -> bool:
        """Whether the handler has a say in what becomes of a message; unknown (True) before a factory was called."""
        return self._target is not None and self._may_have("data")

    def lifespan(self, worker: WorkerInfo) -> AbstractAsyncContextManager[Any]:
        """What the application wants open while a worker lives."""
        make = getattr(self._target, "lifespan", None)
        if make is None:
            return nullcontext()
        try:
            lifespan = make(worker)
        except TypeError as error:
            raise ApplicationError(
                f"{_name(self._target)}.lifespan: {error} (on a class it must be a classmethod)"
            ) from error
        if not hasattr(lifespan, "__aenter__"):
            raise ApplicationError(f"{_name(self._target)}.lifespan: must be decorated with @asynccontextmanager")
        return lifespan  # type: ignore[no-any-return]  # it has just been looked at


def _maker(target: object | None) -> Callable[[], object]:
    if target is None:
        nobody = Handler()
        return lambda: nobody
    if isinstance(target, type):
        if not issubclass(target, Handler):
            raise ApplicationError(f"{_name(target)} is no subclass of fastsmtp.Handler")
        return target
    if isinstance(target, Handler):
        return lambda: target
    if callable(target):
        return partial(_made_by, target)
    raise ApplicationError(f"{target!r} is neither a Handler class, nor an instance of one, nor callable")


def _made_by(factory: Callable[[], object]) -> Handler:
    made = factory()
    if not isinstance(made, Handler):  # it would have no hooks: all mail would be accepted, and lost
        raise ApplicationError(f"{_name(factory)} has returned {made!r}: must be an instance of fastsmtp.Handler")
    return made


def _name(target: object) -> str:
    return getattr(target, "__qualname__", type(target).__qualname__)


def load(name: str) -> object:
    """Import ``module:attribute``; the attribute may be dotted.

    Raises:
        ApplicationError: there is no such module or attribute. Whatever the module itself raises comes out as it is.
    """
    module_name, _, path = name.partition(":")
    if not path:
        raise ApplicationError(f"application {name!r}: must be MODULE:ATTRIBUTE, as in inbox:Inbox")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ApplicationError(
            f"application {name!r}: there is no module {error.name!r} in {_search_path()}"
        ) from error
    for attribute in path.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ApplicationError(
                f"application {name!r}: module {module_name!r} has no attribute {attribute!r}"
            ) from None
    return found


def _search_path() -> str:
    import os

    return f"{os.getcwd()} or on PYTHONPATH"
