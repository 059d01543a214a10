"""Handlers that do what a plan says: every hook there is, as async, inline and blocking ones.

The plan is a file of the server's working directory, a JSON object from a hook's name to what it is to do, one of
DEEDS. "by name" means that the first label of the client's name says it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastsmtp import ACCEPT, CLOSE, REJECT, Handler, Message, Reply, Session, SMTPError, inline
from fastsmtp.protocol.events import HOOKS, Answer
from tests.server.journal import note

SECRET = "swordfish"  # is in what a hook raises, and must never reach a client
_PLAN = "plan"


def plan(directory: Path, **deeds: str) -> None:
    """In the test: say what hooks are to do from now on."""
    new = directory / f"{_PLAN}.new"
    new.write_text(json.dumps(deeds))
    new.replace(directory / _PLAN)


def _raise(error: BaseException) -> Answer:
    raise error


def _wrong(value: object) -> Any:
    """What a careless handler returns; `Any`, because no annotation allows it."""
    return value


def _own(code: int, enhanced: str | None, close: bool = False) -> Reply:
    return Reply(code, enhanced, "own words", close)


DEEDS: dict[str, Callable[[], Answer]] = {
    "none": lambda: None,
    "accept": lambda: ACCEPT,
    "reject": lambda: REJECT,
    "close": lambda: CLOSE,
    "own-2xx": lambda: _own(250, "2.0.0"),
    "own-220": lambda: _own(220, None),
    "own-4xx": lambda: _own(450, "4.7.1"),
    "own-5xx": lambda: _own(550, "5.7.1"),
    "own-421": lambda: _own(421, "4.7.1", close=True),
    "own-close": lambda: _own(554, "5.7.1", close=True),
    "smtp-error": lambda: _raise(SMTPError(_own(452, "4.7.1"))),
    "smtp-error-close": lambda: _raise(SMTPError(_own(521, "5.7.1", close=True))),
    "value-error": lambda: _raise(ValueError(SECRET)),
    "a-string": lambda: _wrong(SECRET),
    "a-bool": lambda: _wrong(True),
    "a-354": lambda: Reply(354, None, SECRET),
}


def _described(argument: object) -> str:
    text = bytes(argument.content).decode() if isinstance(argument, Message) else str(argument)
    return f"{type(argument).__name__} {text}"


def _do(hook: str, session: Session, arguments: tuple[object, ...]) -> Answer:
    deed = json.loads(Path(_PLAN).read_text()).get(hook, "none")
    note(
        hook=hook,
        port=session.peer.port,
        arguments=[_described(each) for each in arguments],
        session=type(session).__name__,
        main_thread=threading.current_thread() is threading.main_thread(),
    )
    return DEEDS[session.client_name.partition(".")[0] if deed == "by name" else deed]()


def _async(hook: str) -> Callable[..., object]:
    async def function(self: Handler, session: Session, *arguments: object) -> Answer:
        return _do(hook, session, arguments)

    return function


def _thread(hook: str) -> Callable[..., object]:
    def function(self: Handler, session: Session, *arguments: object) -> Answer:
        return _do(hook, session, arguments)

    return function


def _inline(hook: str) -> Callable[..., object]:
    return inline(_thread(hook))


def _made(name: str, make: Callable[[str], Callable[..., object]]) -> type[Handler]:
    return type(name, (Handler,), {hook: make(hook) for hook in HOOKS})


Async = _made("Async", _async)
Inline = _made("Inline", _inline)
Thread = _made("Thread", _thread)
