"""Async hooks are started at once, and most return without ever waiting: those never become a task.

A task costs 3-4 us of event loop for each hook, a coroutine that is driven by hand to its end less than one. But what
hooks await (asyncio.timeout, TaskGroup, anyio) asks for the current task at its very first step. So a spare runner
waits in each worker, with a task to its name: hooks are run as if in that task, one after the other, and if one
suspends, the task sees that one to its end, and a new runner takes the place. To the hook it was one task all along.

The runner is a generator that delegates to each hook's coroutine: so a hook that returns costs no StopIteration, which
is a quarter of its whole price. Between two hooks it yields what became of the first, which nobody can take for the
future that a hook waits for. Runs on the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import types
from asyncio.tasks import _enter_task, _leave_task  # for implementations of tasks, says the documentation of asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any, Final


class Raised:
    """The result of a hook that raised. A task that ended in SystemExit itself would end the loop."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Returned:
    """The result of a hook that returned something. None, which nearly all of them do, is `_NOTHING`."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


_NOTHING: Final = _Returned(None)


class HookTasks:
    """Starts the async hooks of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._runner = _Runner(loop)

    def start(self, context: Context, hook: Coroutine[Any, Any, object]) -> object:
        """Run a hook until it returns, or waits for the first time.

        Returns:
            What it returned; or a `HookTask`, whose task drives it on and ends in what it returned, or in `Raised`.

        Raises:
            BaseException: whatever the hook raised.
        """
        loop, runner = self._loop, self._runner
        task = runner.task
        _enter_task(loop, task)
        try:
            outcome = context.run(runner.send, hook)
        except BaseException:  # a GeneratorExit of the hook's own, which has ended the runner
            self._runner = _Runner(loop)
            raise
        finally:
            _leave_task(loop, task)
        # Hot path: a hook that returns None, and did nothing odd.
        return None if outcome is _NOTHING and not task.cancelling() else self._see_to(runner, context, outcome)

    def _see_to(self, runner: _Runner, context: Context, outcome: object) -> object:
        if isinstance(outcome, _Returned | Raised):
            if runner.task.cancelling():  # the hook has cancelled its own task, and returned
                self._runner = _Runner(self._loop)
            if isinstance(outcome, Raised):
                raise outcome.error
            return outcome.value
        self._runner = _Runner(self._loop)
        return runner.adopt(context, outcome)

    def close(self) -> None:
        """End the spare runner."""
        self._runner.task.cancel()


class HookTask:
    """A hook that waits for something."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task: Final = task


class _Runner:
    """Runs hooks one after the other until one suspends, and that one to its end.

    Attributes:
        send: runs a hook to its end, which gives `_Returned` or `Raised`, or to its first wait, which gives a future.
        task: the task that the hooks find themselves in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._work = self._run()
        self.send = self._work.send
        self.send(None)
        self._gate: asyncio.Future[None] = loop.create_future()
        self._adopted: tuple[Context, object] | None = None  # the hook's context, and what it waits for
        self.task: asyncio.Task[object] = loop.create_task(self._see_to_its_end())

    @types.coroutine
    def _run(self) -> Generator[Any, Any, None]:
        outcome: object = _NOTHING
        while True:
            hook = yield outcome
            try:
                result = yield from hook
            except GeneratorExit:  # nobody needs this runner any more
                raise
            except BaseException as error:
                outcome = Raised(error)
            else:
                outcome = _NOTHING if result is None else _Returned(result)

    def adopt(self, context: Context, yielded: object) -> HookTask:
        """The hook has suspended: from here on the task drives it."""
        self._adopted = context, yielded
        if not self._gate.done():  # the hook may have cancelled its own task in its first step
            self._gate.set_result(None)
        return HookTask(self.task)

    async def _see_to_its_end(self) -> object:
        step = None
        try:
            await self._gate
        except asyncio.CancelledError as error:
            if self._adopted is None:
                raise
            step = partial(self._work.throw, error)
        assert self._adopted is not None
        context, yielded = self._adopted
        outcome = await self._rest(context, yielded, step)
        if isinstance(outcome, _Returned):
            return outcome.value
        if isinstance(outcome.error, asyncio.CancelledError):
            raise outcome.error
        return outcome

    @types.coroutine
    def _rest(
        self, context: Context, yielded: object, step: Callable[[], object] | None
    ) -> Generator[Any, Any, _Returned | Raised]:
        """Pass on what the hook waits for and what comes of it, each step in the hook's context."""
        while True:
            if step is not None:
                yielded = context.run(step)
                if isinstance(yielded, _Returned | Raised):
                    return yielded
            try:
                value = yield yielded
            except BaseException as error:
                step = partial(self._work.throw, error)
            else:
                step = partial(self.send, value)
