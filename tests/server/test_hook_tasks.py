"""Async hooks that are started at once: to the hook, it was one task all along."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from fastsmtp.server.hook_tasks import HookTask, HookTasks

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[HookTasks], Coroutine[Any, Any, None]]], None]:
    def runs(test: Callable[[HookTasks], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            tasks = HookTasks(asyncio.get_running_loop())
            try:
                async with asyncio.timeout(10):
                    await test(tasks)
            finally:
                tasks.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return runs


Run = Callable[[Callable[[HookTasks], Coroutine[Any, Any, None]]], None]


@dataclass
class Started:
    """What came of a start; one of these."""

    task: asyncio.Task[object] | None = None
    value: object = None
    error: BaseException | None = None


Hook = Callable[..., Coroutine[Any, Any, object]]


async def _start(
    tasks: HookTasks, hook: Hook, *arguments: object, context: contextvars.Context | None = None
) -> Started:
    """Start a hook as the server does: from a callback of the loop, where no task is the current one."""
    loop = asyncio.get_running_loop()
    started: asyncio.Future[Started] = loop.create_future()

    def begin() -> None:
        try:
            result = tasks.start(context or contextvars.copy_context(), hook(*arguments))
        except BaseException as error:
            outcome = Started(error=error)
        else:
            outcome = Started(result.task) if isinstance(result, HookTask) else Started(value=result)
        assert asyncio.current_task() is None
        started.set_result(outcome)

    loop.call_soon(begin)
    return await started


async def _task(
    tasks: HookTasks, hook: Hook, *arguments: object, context: contextvars.Context | None = None
) -> asyncio.Task[object]:
    """Start a hook that waits for something."""
    started = await _start(tasks, hook, *arguments, context=context)
    assert started.task is not None, started
    return started.task


def test_a_coroutine_that_does_not_wait_is_done_at_once(run: Run) -> None:
    async def test(tasks: HookTasks) -> None:
        async def hook() -> str:
            assert asyncio.current_task() is not None
            return "done"

        for _ in range(3):
            assert await _start(tasks, hook) == Started(value="done")

    run(test)


def test_what_it_raises_comes_out(run: Run) -> None:
    async def test(tasks: HookTasks) -> None:
        async def hook(error: BaseException) -> None:
            raise error

        async def innocent() -> str:
            return "fine"

        for error in (ValueError(), asyncio.CancelledError(), SystemExit()):
            assert await _start(tasks, hook, error) == Started(error=error)
            assert await _start(tasks, innocent) == Started(value="fine")  # and harms nobody else

    run(test)


def test_one_that_waits_goes_on_as_the_same_task(run: Run) -> None:
    async def test(tasks: HookTasks) -> None:
        async def hook() -> bool:
            first = asyncio.current_task()
            await asyncio.sleep(0)
            second = asyncio.current_task()
            await asyncio.sleep(0.001)
            return first is second is asyncio.current_task()

        for _ in range(3):
            assert await (await _task(tasks, hook))

    run(test)


def test_its_context_is_the_one_given_in_each_step(run: Run) -> None:
    async def test(tasks: HookTasks) -> None:
        async def hook(value: str) -> str:
            before = variable.get()
            variable.set(value)
            await asyncio.sleep(0)
            child = await asyncio.create_task(read())
            return f"{before} {variable.get()} {child}"

        async def read() -> str:
            return variable.get()

        one, two = contextvars.copy_context(), contextvars.copy_context()
        started = [await _task(tasks, hook, "one", context=one), await _task(tasks, hook, "two", context=two)]
        assert await asyncio.gather(*started) == ["unset one one", "unset two two"]
        assert await (await _task(tasks, hook, "again", context=one)) == "one again again"
        assert variable.get() == "unset"

    run(test)


def test_a_cancelled_one_is_cancelled(run: Run) -> None:
    async def test(tasks: HookTasks) -> None:
        seen = []

        async def hook() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        for turns in range(3):  # of the loop, until it is cancelled
            task = await _task(tasks, hook)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert seen == ["cancelled"] * 3

    run(test)


def test_one_may_cancel_itself_and_live(run: Run) -> None:
    async def test(tasks: HookTasks) -> None:
        async def hook() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                task.uncancel()
            await asyncio.sleep(0)
            return "alive"

        for _ in range(3):
            assert await (await _task(tasks, hook)) == "alive"

    run(test)


def test_one_that_cancels_itself_and_returns_without_waiting_harms_nobody(run: Run) -> None:
    """Its cancellation must not reach the next hook."""

    async def test(tasks: HookTasks) -> None:
        async def rash() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return "returned"

        async def innocent() -> str:
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            return "fine"

        assert await _start(tasks, rash) == Started(value="returned")
        for _ in range(3):
            assert await (await _task(tasks, innocent)) == "fine"
        assert await _start(tasks, rash) == Started(value="returned")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await (await _task(tasks, innocent)) == "fine"

    run(test)


def test_structured_concurrency_works_from_the_first_step_on(run: Run) -> None:
    async def test(tasks: HookTasks) -> None:
        async def hook() -> list[str]:
            results = []
            async with asyncio.timeout(60):  # noqa: ASYNC100  # entered and left without a wait
                results.append("in time")
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(60)
            except TimeoutError:
                results.append("timed out")
            async with asyncio.TaskGroup() as group:
                child = group.create_task(asyncio.sleep(0, "child"))
            results.append(child.result())
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    await asyncio.sleep(60)
            except* ValueError:
                results.append("failed")
            results += await asyncio.gather(asyncio.sleep(0, "one"), asyncio.sleep(0.001, "two"))
            return results

        async def fail() -> None:
            raise ValueError

        expected = ["in time", "timed out", "child", "failed", "one", "two"]
        assert await (await _task(tasks, hook)) == expected

    run(test)


def test_an_exception_from_what_it_awaits_can_be_caught(run: Run) -> None:
    async def test(tasks: HookTasks) -> None:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def hook() -> str:
            try:
                return await future
            except LookupError as error:
                return repr(error)

        task = await _task(tasks, hook)
        future.set_exception(LookupError("gone"))
        assert await task == "LookupError('gone')"

    run(test)


def test_a_bare_yield_of_something_wrong_is_its_own_failure(run: Run) -> None:
    """Awaiting a future of the task itself, or of another loop, is a RuntimeError inside the hook."""

    async def test(tasks: HookTasks) -> None:
        other = asyncio.new_event_loop()
        foreign = other.create_future()

        async def hook() -> str:
            try:
                await foreign
            except RuntimeError:
                return "caught"
            return "not caught"

        assert await (await _task(tasks, hook)) == "caught"
        other.close()

    run(test)
