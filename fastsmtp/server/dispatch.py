"""Runs hooks: on the loop, as coroutines, or in the thread pool.

Guarantees: hooks of one session never run at the same time; every wait has a deadline; whatever a hook raises ends in
a reply. A flight (all that one read brought) hops to a thread once: from its first `def` hook on, the thread parses,
runs hooks and collects replies until it meets the end of the flight or a hook that belongs on the loop. A flight that
needs no `def` hook never leaves the loop.

For each class of handlers there are three tables of deciders, and the one that the session uses says where it is:

    on_loop    the session belongs to the loop
    in_thread  a pool thread has it: `def` hooks run right there, others wait until the loop has the session again
    late       a hook has missed its deadline and still runs: every other one fails, so that no two run at a time
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Protocol

from ..handler import Hook, Kind
from ..protocol.credentials import ScramKey
from ..protocol.envelope import Message
from ..protocol.events import FAILED, PENDING, STORE, WITHOUT_SUBJECT, Decider, Verdict, Waiting
from ..protocol.replies import Reply, SMTPError
from ..protocol.scram import check_key
from ..protocol.session import Session
from .hook_tasks import HookTask, HookTasks, Raised
from .intake import Intake, Outcome
from .threads import ThreadPool

_log = logging.getLogger("fastsmtp.handler")
_Function = Callable[..., Any]


class Running(Protocol):
    """Something that a session waits for."""

    deadline: float  # by the monotonic clock

    def begin(self) -> None:
        """The session rests: whatever answers from elsewhere may do so now. Called on the loop, maybe again."""

    def take_back(self) -> bool:
        """Stop waiting: True if the session is the loop's again, False if the answer is on its way already."""


class Conversation(Protocol):
    """What the dispatcher needs of a connection; it is its session's driver."""

    session: Session
    handler: object
    tables: Tables
    context: Context
    running: Running | None
    late: Running | None  # a hook that was given up and has not returned

    def resume(self) -> None:
        """The pending question was answered. Called on the loop."""

    def abort(self, bug: BaseException) -> None:
        """The session is beyond repair. Called on the loop."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The deciders of a class of handlers."""

    on_loop: Mapping[str, Decider]
    in_thread: Mapping[str, Decider]
    late: Mapping[str, Decider]


class Dispatcher:
    """Decides the questions of one worker's sessions.

    Args:
        tasks: starts async hooks.
        pool: runs `def` hooks.
        intake: takes messages to the store; None where no store is configured.
        hook_timeout: seconds for a hook.
        data_hook_timeout: seconds for `data`, and for the store.
        took: is told how many seconds a hook took that ran in a thread or waited for something, on either thread. One
            that answers on the loop at once shows in the loop's own delay.
    """

    def __init__(
        self,
        tasks: HookTasks,
        pool: ThreadPool,
        intake: Intake | None,
        hook_timeout: float,
        data_hook_timeout: float,
        took: Callable[[float], object],
    ) -> None:
        self._tasks = tasks
        self.pool = pool
        self._intake = intake
        self._hook_timeout = hook_timeout
        self._data_hook_timeout = data_hook_timeout
        self.took: Final = took

    def tables(self, hooks: Mapping[str, Hook]) -> Tables:
        """Prepare the hooks of a handler class."""
        makers = {Kind.INLINE: self._inline, Kind.ASYNC: self._asynchronous, Kind.THREAD: self._threaded}
        functions = {name: _with_subject(name, hook.function) for name, hook in hooks.items()}
        on_loop = {name: makers[hook.kind](name, functions[name]) for name, hook in hooks.items()}
        if self._intake:
            on_loop[STORE] = self._storing(self._intake)
        in_thread = {name: _deferred(decide) for name, decide in on_loop.items()}
        for name, hook in hooks.items():
            if hook.kind is Kind.THREAD:
                in_thread[name] = self._in_this_thread(name, functions[name])
        return Tables(on_loop, in_thread, {name: lambda session, subject: FAILED for name in on_loop})

    def seconds(self, hook: str) -> float:
        """How long a hook may take."""
        return self._data_hook_timeout if hook in ("data", STORE) else self._hook_timeout

    def expire(self, conversation: Conversation) -> None:
        """What is running is late: answer without it."""
        running, session = conversation.running, conversation.session
        if running is None or not running.take_back():
            return
        _log.error("session %s: hook %s did not return in time", session.id, session.pending and session.pending[0])
        conversation.running, conversation.late = None, running
        session.deciders = conversation.tables.late
        session.answer(FAILED)
        conversation.resume()

    # -- deciders on the loop -----------------------------------------------------------------------------------------

    def _inline(self, name: str, function: _Function) -> Decider:
        def decide(session: Session, subject: Any) -> Any:
            conversation: Any = session.driver
            try:
                answer = conversation.context.run(function, conversation.handler, session, subject)
            except BaseException as error:
                return failure(session, name, error)
            return answer if answer is None else checked(session, name, answer)

        return decide

    def _asynchronous(self, name: str, function: _Function) -> Decider:
        start, timeout, took = self._tasks.start, self.seconds(name), self.took

        def decide(session: Session, subject: Any) -> Any:
            conversation: Any = session.driver
            try:
                answer = start(conversation.context, function(conversation.handler, session, subject))
            except BaseException as error:
                return failure(session, name, error)
            if answer is None:
                return None
            if type(answer) is HookTask:
                conversation.running = _Suspended(conversation, name, answer.task, timeout, took)
                return PENDING
            return checked(session, name, answer)

        return decide

    def _storing(self, intake: Intake) -> Decider:
        timeout = self.seconds(STORE)

        def decide(session: Session, message: Message) -> Waiting:
            conversation: Any = session.driver
            conversation.running = waiting = _Storing(conversation, monotonic() + timeout)
            intake.put(message, waiting.stored)
            return PENDING

        return decide

    def _threaded(self, name: str, function: _Function) -> Decider:
        """On the loop a `def` hook sends the session to a thread."""

        def decide(session: Session, subject: Any) -> Any:
            conversation: Any = session.driver
            # A complete message gets its verdict, and the handler its last call, however busy we are: there is one at
            # most for each session. What the session has to say anyway does not wait for a hook.
            if self.pool.is_full and name not in ("data", "closed"):
                return FAILED if name in ("error", "timeout") else session.overloaded_reply()
            conversation.running = _Flight(self, conversation, name, function, subject)
            session.deciders = conversation.tables.in_thread
            return PENDING

        return decide

    # -- deciders in a thread -----------------------------------------------------------------------------------------

    def _in_this_thread(self, name: str, function: _Function) -> Decider:
        def decide(session: Session, subject: Any) -> Any:
            flight: _Flight = session.driver.running  # type: ignore[attr-defined]  # a Conversation
            session.wait(name, subject)  # if this takes too long, the loop answers
            flight.renew(self.seconds(name))
            answer = flight.call(name, function, subject)
            session.stop_waiting()
            return answer

        return decide


def _deferred(decide: Decider) -> Decider:
    """A question for the loop: the thread ends there."""

    def defer(session: Session, subject: Any) -> Waiting:
        session.driver.running.deferred = (decide, subject)  # type: ignore[attr-defined]  # a Conversation
        return PENDING

    return defer


def _with_subject(hook: str, function: _Function) -> _Function:
    """A hook as every decider calls it: with a subject, also where the question has none."""
    return (lambda handler, session, nothing: function(handler, session)) if hook in WITHOUT_SUBJECT else function


def checked(session: Session, hook: str, answer: object) -> object:
    """A hook's answer, if it is one; else that is the hook's failure."""
    if _is_answer(answer):
        return answer
    if hook == "auth" and isinstance(answer, ScramKey):
        return _checked_key(session, answer)
    if hook == "data" and isinstance(answer, list | tuple) and all(each is None or _is_answer(each) for each in answer):
        if len(answer) == len(session.transaction.recipients):
            return answer
        _log.error("session %s: hook data returned %d answers: must be one for each recipient", session.id, len(answer))
        return FAILED
    _log.error(
        "session %s: hook %s returned %r: must be None, ACCEPT, REJECT, CLOSE or a Reply of 2xx, 4xx, 5xx",
        session.id,
        hook,
        answer,
    )
    return FAILED


def _checked_key(session: Session, key: ScramKey) -> object:
    try:
        check_key(key)
    except ValueError as error:
        _log.error("session %s: hook auth returned a key that SCRAM cannot use: %s", session.id, error)
        return FAILED
    return key


def _is_answer(answer: object) -> bool:
    return isinstance(answer, Verdict) or (isinstance(answer, Reply) and not 300 <= answer.code < 400)


def failure(session: Session, hook: str, error: BaseException) -> object:
    """What a raising hook means: an `SMTPError` is an answer; anything else a bug, logged whole and never sent."""
    if isinstance(error, SMTPError):
        return checked(session, hook, error.reply)
    _log.error("session %s: hook %s raised", session.id, hook, exc_info=error)
    return FAILED


class _Suspended:
    """An async hook that waits for something."""

    __slots__ = ("_asked", "_conversation", "_given_up", "_hook", "_task", "_took", "deadline")

    def __init__(
        self,
        conversation: Conversation,
        hook: str,
        task: asyncio.Task[object],
        timeout: float,
        took: Callable[[float], object],
    ) -> None:
        self._conversation = conversation
        self._hook = hook
        self._task = task
        self._took = took
        self._given_up = False
        self._asked = monotonic()
        self.deadline = self._asked + timeout
        task.add_done_callback(self._done)

    def begin(self) -> None:
        """The task is under way already."""

    def take_back(self) -> bool:
        if self._task.done():
            return False
        self._given_up = True
        self._task.cancel()
        return True

    def _done(self, task: asyncio.Task[object]) -> None:
        conversation = self._conversation
        self._took(monotonic() - self._asked)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        answer = task.result() if error is None else Raised(error)
        if self._given_up:
            _return_late(conversation)
            return
        session = conversation.session
        conversation.running = None
        if type(answer) is Raised:
            answer = failure(session, self._hook, answer.error)
        elif answer is not None:
            answer = checked(session, self._hook, answer)
        session.answer(answer)
        conversation.resume()


class _Storing:
    """A message on its way to the store."""

    __slots__ = ("_conversation", "_given_up", "deadline")

    def __init__(self, conversation: Conversation, deadline: float) -> None:
        self._conversation = conversation
        self._given_up = False
        self.deadline = deadline

    def begin(self) -> None:
        """The intake answers from a later turn of the loop."""

    def take_back(self) -> bool:
        self._given_up = True
        return True

    def stored(self, outcome: Outcome) -> None:
        conversation = self._conversation
        if self._given_up:  # the client was told 451: if it tries again there are two copies, never none
            _return_late(conversation)
            return
        conversation.running = None
        conversation.session.answer(outcome)
        conversation.resume()


def _return_late(conversation: Conversation) -> None:
    """What was given up has returned: hooks may run again."""
    conversation.late = None
    conversation.session.deciders = conversation.tables.on_loop
    conversation.resume()


class _GivenUp(BaseException):
    """Ends a thread's work on a session that is not its own any more."""


class _Flight:
    """The part of a flight that runs in a pool thread.

    The token decides whose the session is when a hook returns about at its deadline: whoever takes it.
    """

    __slots__ = (
        "_asked", "_begun", "_bug", "_conversation", "_dispatcher", "_function", "_given_up", "_hook", "_in_thread",
        "_subject", "_token", "deadline", "deferred",
    )  # fmt: skip

    def __init__(
        self, dispatcher: Dispatcher, conversation: Conversation, hook: str, function: _Function, subject: Any
    ) -> None:
        self._dispatcher = dispatcher
        self._conversation = conversation
        self._hook = hook
        self._function = function
        self._subject = subject
        self._begun = False
        self._in_thread = False  # a thread has it, or had
        self._given_up = False  # and is held by it, as far as the pool knows
        self._bug: BaseException | None = None
        self.deferred: tuple[Decider, Any] | None = None  # a question for the loop
        self._token = [None]
        self._asked = monotonic()
        self.deadline = self._asked + dispatcher.seconds(hook)

    def begin(self) -> None:
        """On the loop: the session rests, so a thread can have it."""
        if not self._begun:
            self._begun = True
            self._dispatcher.pool.submit(self)

    def take_back(self) -> bool:
        """On the loop: the hook is late."""
        try:
            self._token.pop()
        except IndexError:
            return False
        if self._in_thread:  # else it waits for one, and will end at once there
            self._given_up = True
            self._dispatcher.pool.give_up()
        return True

    def run(self) -> None:
        """In a pool thread: answer the question that brought us here, and what follows."""
        self._in_thread = True  # before the token is looked at: what holds a thread must not pass for what waits
        if not self._token:  # it was too late before it began
            return
        try:
            self._conversation.session.answer(self.call(self._hook, self._function, self._subject))
        except _GivenUp:
            pass
        except BaseException as error:  # a bug in the protocol must not end the thread
            self._bug = error

    def renew(self, timeout: float) -> None:
        """In the thread: the next hook begins."""
        self._asked = monotonic()
        self.deadline = self._asked + timeout
        self._token.append(None)

    def call(self, hook: str, function: _Function, subject: Any) -> object:
        """In the thread: run a hook.

        Raises:
            _GivenUp: it took too long, and the loop has answered.
        """
        conversation = self._conversation
        session = conversation.session
        error = None
        try:
            answer = conversation.context.run(function, conversation.handler, session, subject)
        except BaseException as raised:
            error = raised
        self._dispatcher.took(monotonic() - self._asked)
        try:
            self._token.pop()
        except IndexError:
            raise _GivenUp from error
        if error is not None:
            return failure(session, hook, error)
        return answer if answer is None else checked(session, hook, answer)

    def finish(self) -> None:
        """On the loop: the thread is done."""
        conversation = self._conversation
        if conversation.running is not self:
            if self._given_up:
                self._dispatcher.pool.recover()
            _return_late(conversation)
            return
        conversation.running = None
        session = conversation.session
        session.deciders = conversation.tables.on_loop
        if self._bug:
            conversation.abort(self._bug)
            return
        if self.deferred:
            decide, subject = self.deferred
            answer = decide(session, subject)
            if answer is not PENDING:
                session.answer(answer)
        conversation.resume()
