"""Async hooks are started at once, and most return without ever waiting: those never become a task.

A task costs 3-4 us of event loop for each hook; a coroutine that is driven by hand to its end costs a tenth of it. But
what hooks await (asyncio.timeout, TaskGroup, anyio) asks for the current task at its very first step. So a spare task
waits for each worker: a coroutine is started as if it were running in that task, and if it suspends, the spare task
adopts it and sees it to its end. To the hook it was that one task all along.

Runs on the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import types
from asyncio.tasks import _enter_task, _leave_task  # for implementations of tasks, says the documentation of asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any

HookCoroutine = Coroutine[Any, Any, object]


class HookTasks:
    """Starts the async hooks of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._spare = _SpareTask(loop)
        self._task = self._spare.task

    def start(self, context: Context, coroutine: HookCoroutine) -> asyncio.Task[object]:
        """Run a coroutine until it waits for the first time.

        Returns:
            The task that drives it on from there.

        Raises:
            StopIteration: it has returned already; the value is the exception's.
            BaseException: whatever it raised.
        """
        loop, task = self._loop, self._task
        _enter_task(loop, task)
        try:
            yielded = context.run(coroutine.send, None)
        finally:
            _leave_task(loop, task)
        self._spare.adopt(context, coroutine, yielded)
        self._spare = _SpareTask(loop)
        self._task = self._spare.task
        return task

    def close(self) -> None:
        """End the spare task."""
        self._spare.task.cancel()


class _SpareTask:
    """A task that waits for a coroutine to adopt."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._gate: asyncio.Future[None] = loop.create_future()
        self._adopted: tuple[Context, HookCoroutine, object] | None = None
        self.task: asyncio.Task[object] = loop.create_task(self._drive())

    def adopt(self, context: Context, coroutine: HookCoroutine, yielded: object) -> None:
        self._adopted = (context, coroutine, yielded)
        if not self._gate.done():  # the hook may have cancelled its own task in its first step
            self._gate.set_result(None)

    async def _drive(self) -> object:
        try:
            await self._gate
        except asyncio.CancelledError as error:
            if self._adopted is None:
                raise
            context, coroutine, _ = self._adopted
            return await _rest(context, coroutine, partial(coroutine.throw, error))
        assert self._adopted is not None
        context, coroutine, yielded = self._adopted
        return await _rest(context, coroutine, None, yielded)


@types.coroutine
def _rest(
    context: Context, coroutine: HookCoroutine, step: Callable[[], Any] | None, yielded: object = None
) -> Generator[Any, Any, object]:
    """Drive a coroutine that is under way, each step in its own context."""
    while True:
        try:
            if step is not None:
                yielded = context.run(step)
            try:
                value = yield yielded
            except BaseException as error:
                step = partial(coroutine.throw, error)
            else:
                step = partial(coroutine.send, value)
        except StopIteration as stop:
            return stop.value
