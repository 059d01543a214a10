"""Runs hooks: on the loop, as coroutines, or in the thread pool; and takes the session from event to event.

Guarantees: hooks of one session never run at the same time; every wait has a deadline; whatever a hook raises ends in
a reply. A flight (all that one read brought) hops to a thread once: from its first `def` hook on, the thread parses,
runs hooks and collects replies until it meets the end of the flight or a hook that belongs on the loop. A flight that
needs no `def` hook never leaves the loop.

A conversation belongs to the loop unless `running` says otherwise. What is running has a deadline; when it has passed,
the conversation is taken back from it, and its late answer is thrown away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Any, Final, Protocol

from ..handler import Hook, Kind
from ..protocol.events import STORE, Event
from ..protocol.replies import Reply, SMTPError
from ..protocol.session import Session
from .hook_tasks import HookTasks
from .intake import Intake
from .threads import ThreadPool

_log = logging.getLogger("fastsmtp.handler")


class Running(Protocol):
    """Something that a conversation waits for."""

    deadline: float  # by the monotonic clock

    def take_back(self) -> bool:
        """Stop waiting: True if the conversation is the loop's again, False if the answer is there already."""


class Conversation(Protocol):
    """What the dispatcher needs of a connection."""

    session: Session
    handler: object
    hooks: Hooks
    context: Context
    running: Running | None
    late: Running | None  # a hook that was given up and has not returned

    def resume(self) -> None:
        """The event was answered; go on. Called on the loop."""

    def abort(self, bug: BaseException) -> None:
        """The conversation is beyond repair. Called on the loop."""


Start = Callable[["Conversation", Callable[..., Any], Event], bool]
"""Begins to answer an event: True if the answer is given, False if `Conversation.resume` will be called."""

Hooks = dict[str, tuple[Start, Callable[..., Any]]]
"""For each question that somebody answers: how to start, and the function."""


def settle(session: Session, answer: Any) -> None:
    """Give a hook's answer to the session; one that is no answer is the hook's failure."""
    try:
        session.answer(answer)
    except TypeError as error:
        _log.error("session %s: %s", session.id, error)
        session.fail()


def settle_exception(session: Session, event: Event, error: BaseException) -> None:
    """A hook raised: an `SMTPError` is an answer, anything else a bug, which is logged whole and never sent."""
    if isinstance(error, SMTPError):
        settle(session, error.reply)
        return
    _log.error("session %s: hook %s raised", session.id, event.hook, exc_info=error)
    session.fail()


class Dispatcher:
    """Answers the events of one worker's sessions.

    Args:
        tasks: starts async hooks.
        pool: runs `def` hooks.
        intake: takes messages to the store; None where no store is configured.
        hook_timeout: seconds for a hook.
        data_hook_timeout: seconds for `data`, and for the store.
    """

    def __init__(
        self, tasks: HookTasks, pool: ThreadPool, intake: Intake | None, hook_timeout: float, data_hook_timeout: float
    ) -> None:
        self._tasks = tasks
        self._pool = pool
        self._intake = intake
        self._hook_timeout = hook_timeout
        self._data_hook_timeout = data_hook_timeout
        self._starts: Final = {Kind.INLINE: self._run_inline, Kind.ASYNC: self._start_async, Kind.THREAD: self._submit}

    def bind(self, hooks: dict[str, Hook]) -> Hooks:
        """Prepare the hooks of a handler class."""
        bound: Hooks = {name: (self._starts[hook.kind], hook.function) for name, hook in hooks.items()}
        if self._intake:
            bound[STORE] = (self._store, self._intake.put)
        return bound

    def advance(self, conversation: Conversation) -> bool:
        """Go on until input is needed (True), or something is running (False)."""
        session, hooks = conversation.session, conversation.hooks
        while (event := session.next_event()) is not None:
            if conversation.late:  # hooks of one session never run at the same time
                session.fail()
                continue
            start, function = hooks[event.hook]
            if not start(conversation, function, event):
                return False
        return True

    def expire(self, conversation: Conversation) -> None:
        """What is running is late: answer without it."""
        running = conversation.running
        if running is None or not running.take_back():
            return
        session = conversation.session
        _log.error("session %s: a hook did not return in time", session.id)
        conversation.running, conversation.late = None, running
        session.fail()
        conversation.resume()

    def _deadline(self, event: Event) -> float:
        return monotonic() + (self._data_hook_timeout if event.hook in ("data", STORE) else self._hook_timeout)

    # -- on the loop --------------------------------------------------------------------------------------------------

    def _run_inline(self, conversation: Conversation, function: Callable[..., Any], event: Event) -> bool:
        session = conversation.session
        try:
            answer = conversation.context.run(function, conversation.handler, session, *event.arguments)
        except Exception as error:
            settle_exception(session, event, error)
        else:
            settle(session, answer)
        return True

    def _start_async(self, conversation: Conversation, function: Callable[..., Any], event: Event) -> bool:
        session = conversation.session
        try:
            task = self._tasks.start(conversation.context, function(conversation.handler, session, *event.arguments))
        except StopIteration as stop:
            settle(session, stop.value)
            return True
        except Exception as error:
            settle_exception(session, event, error)
            return True
        conversation.running = _Suspended(conversation, event, task, self._deadline(event))
        return False

    def _store(self, conversation: Conversation, put: Callable[..., Any], event: Event) -> bool:
        waiting = _Storing(conversation, self._deadline(event))
        conversation.running = waiting
        put(*event.arguments, waiting.stored)
        return False

    # -- in threads ---------------------------------------------------------------------------------------------------

    def _submit(self, conversation: Conversation, function: Callable[..., Any], event: Event) -> bool:
        flight = _Flight(self, conversation, event)
        if not self._pool.submit(flight):
            conversation.session.overloaded()
            return True
        conversation.running = flight
        return False

    def runs_in_thread(self, hooks: Hooks, event: Event) -> bool:
        """Whether a thread that has the conversation may answer this event too."""
        return hooks[event.hook][0] == self._starts[Kind.THREAD]


class _Suspended:
    """An async hook that waits for something."""

    __slots__ = ("_conversation", "_event", "_given_up", "_task", "deadline")

    def __init__(self, conversation: Conversation, event: Event, task: asyncio.Task[object] | None, deadline: float) -> None:
        assert task is not None
        self._conversation = conversation
        self._event = event
        self._task = task
        self._given_up = False
        self.deadline = deadline
        task.add_done_callback(self._done)

    def take_back(self) -> bool:
        if self._task.done():
            return False
        self._given_up = True
        self._task.cancel()
        return True

    def _done(self, task: asyncio.Task[object]) -> None:
        conversation = self._conversation
        if self._given_up:
            task.cancelled() or task.exception()  # an exception that nobody looks at is reported by asyncio
            conversation.late = None
            conversation.resume()
            return
        conversation.running = None
        session = conversation.session
        if task.cancelled():
            settle_exception(session, self._event, asyncio.CancelledError())
        elif error := task.exception():
            settle_exception(session, self._event, error)
        else:
            settle(session, task.result())
        conversation.resume()


class _Storing:
    """A message on its way to the store."""

    __slots__ = ("_conversation", "_given_up", "deadline")

    def __init__(self, conversation: Conversation, deadline: float) -> None:
        self._conversation = conversation
        self._given_up = False
        self.deadline = deadline

    def take_back(self) -> bool:
        self._given_up = True
        return True

    def stored(self, reply: Reply | None) -> None:
        conversation = self._conversation
        if self._given_up:  # the client was told 451; if it tries again there are two copies, never none
            conversation.late = None
        else:
            conversation.running = None
            settle(conversation.session, reply)
        conversation.resume()


class _Flight:
    """The part of a flight that runs in a pool thread.

    The token decides whose the conversation is when a hook returns late: whoever takes it.
    """

    __slots__ = ("_bug", "_conversation", "_dispatcher", "_event", "_given_up", "_token", "deadline")

    def __init__(self, dispatcher: Dispatcher, conversation: Conversation, event: Event) -> None:
        self._dispatcher = dispatcher
        self._conversation = conversation
        self._event: Event | None = event
        self._token = [None]
        self._given_up = False
        self._bug: BaseException | None = None
        self.deadline = dispatcher._deadline(event)

    def _take_token(self) -> bool:
        try:
            self._token.pop()
        except IndexError:
            return False
        return True

    def take_back(self) -> bool:
        if not self._take_token():
            return False
        self._given_up = True
        self._dispatcher._pool.give_up()
        return True

    def run(self) -> None:
        """In a pool thread: answer events until one belongs on the loop."""
        try:
            self._answer_events()
        except BaseException as error:  # a bug in the protocol must not end the thread
            self._bug = error

    def _answer_events(self) -> None:
        conversation, dispatcher = self._conversation, self._dispatcher
        session, hooks = conversation.session, conversation.hooks
        event = self._event
        while event is not None and not self._given_up:
            try:
                answer = conversation.context.run(hooks[event.hook][1], conversation.handler, session, *event.arguments)
            except BaseException as error:
                if not self._take_token():
                    return
                settle_exception(session, event, error)
            else:
                if not self._take_token():
                    return
                settle(session, answer)
            self._event = event = session.next_event()
            if event is None or not dispatcher.runs_in_thread(hooks, event):
                return
            self.deadline = dispatcher._deadline(event)
            self._token.append(None)

    def finish(self) -> None:
        """On the loop: the thread is done with the conversation, and with the event if it left none."""
        conversation, event = self._conversation, self._event
        if self._given_up:
            self._dispatcher._pool.recover()
            conversation.late = None
            conversation.resume()
            return
        conversation.running = None
        if self._bug:
            conversation.abort(self._bug)
            return
        if event is not None:
            start, function = conversation.hooks[event.hook]
            if not start(conversation, function, event):
                return
        conversation.resume()
