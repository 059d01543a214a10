"""The applications that the tests serve. They tell what happened in the journal, and wait where gates stand."""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import ClassVar

from fastsmtp import Handler, Message, Recipient, Reply, Sender, Session, WorkerInfo, inline
from fastsmtp.protocol.events import Answer
from fastsmtp.server.descriptors import left
from tests.server import gates
from tests.server.journal import note


def _told(text: object) -> Reply:
    return Reply(250, "2.0.0", str(text))


class Pids(Handler):
    """Names the worker in the banner."""

    @inline
    def welcome(self, session: Session) -> Answer:
        return Reply(220, None, f"pid {os.getpid()}")


class Counting(Handler):
    """Counts NOOPs: of the instance, of the session, and of the worker."""

    worker = 0

    def __init__(self, name: str = "own") -> None:
        self.name = name
        self.count = 0

    @inline
    def noop(self, session: Session, argument: str) -> Answer:
        self.count += 1
        Counting.worker += 1
        counted = session.user_data.get("count", 0)
        assert isinstance(counted, int)
        session.user_data["count"] = counted + 1
        return _told(f"{self.name} {self.count} {session.user_data['count']} {Counting.worker}")


shared = Counting("shared")


def factory() -> Counting:
    return Counting("made")


def broken_factory() -> Counting:
    raise RuntimeError("no handler today")


def forgetful_factory() -> None:
    Counting("made")


async def async_factory() -> Counting:
    return Counting("made")


class Lifespan(Handler):
    """Opens something for each worker."""

    resource = "closed"

    @classmethod
    @asynccontextmanager
    async def lifespan(cls, worker: WorkerInfo) -> AsyncIterator[None]:
        note(event="entered", slot=worker.slot, pid=worker.pid, hostname=worker.hostname)
        cls.resource = f"slot {worker.slot} pid {worker.pid}"
        if gates.is_open("hold"):
            await gates.wait("lifespan")
        yield
        note(event="left", slot=worker.slot, pid=os.getpid())

    async def welcome(self, session: Session) -> Answer:
        return Reply(220, None, self.resource)


class LastMoment(Handler):
    """Its data hook returns when the worker is leaving already."""

    leaving: ClassVar[asyncio.Event]
    accepted: ClassVar[asyncio.Event]

    @classmethod
    @asynccontextmanager
    async def lifespan(cls, worker: WorkerInfo) -> AsyncIterator[None]:
        cls.leaving, cls.accepted = asyncio.Event(), asyncio.Event()
        yield
        cls.leaving.set()
        await cls.accepted.wait()

    async def data(self, session: Session, message: Message) -> Answer:
        note(event="data")
        await self.leaving.wait()
        return None

    @inline
    def closed(self, session: Session) -> None:
        self.accepted.set()


class Farewell(Handler):
    def closed(self, session: Session) -> None:
        time.sleep(0.05)
        note(event="closed")


class SlowDatabase(Handler):
    @classmethod
    @asynccontextmanager
    async def lifespan(cls, worker: WorkerInfo) -> AsyncIterator[None]:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        yield


class BrokenLifespan(Handler):
    @classmethod
    @asynccontextmanager
    async def lifespan(cls, worker: WorkerInfo) -> AsyncIterator[None]:
        if worker.pid:
            raise RuntimeError("the database is away")
        yield


class Suspending(Handler):
    """Async hooks that do what one can do on a loop; the recipient says what."""

    async def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        task = asyncio.current_task()
        answer: Answer = await getattr(self, f"_{recipient.local}")()
        assert asyncio.current_task() is task, "one hook is one task"
        return answer

    async def _sleep(self) -> Answer:
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        return _told("slept")

    async def _timeout(self) -> Answer:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return _told("timed out")
        return None

    async def _intime(self) -> Answer:
        async with asyncio.timeout(60):  # noqa: ASYNC100  # that is the case: entered and left without a wait
            pass
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return _told("in time")

    async def _waitfor(self) -> Answer:
        return _told(await asyncio.wait_for(asyncio.sleep(0.001, "waited for"), 60))

    async def _group(self) -> Answer:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(asyncio.sleep(0.001, "one"))
            two = group.create_task(asyncio.sleep(0.001, "two"))
        return _told(f"{one.result()} {two.result()}")

    async def _brokengroup(self) -> Answer:
        async def fail() -> None:
            raise LookupError

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(asyncio.sleep(60))
        except* LookupError:
            pass
        return _told("group failed")

    async def _gather(self) -> Answer:
        return _told(" ".join(await asyncio.gather(asyncio.sleep(0, "one"), asyncio.sleep(0.001, "two"))))

    async def _cancel(self) -> Answer:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        task.uncancel()
        await asyncio.sleep(0)
        return _told("still here")

    async def _latecancel(self) -> Answer:
        await asyncio.sleep(0)
        return await self._cancel()

    async def _cancelled(self) -> Answer:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)
        return None

    async def _deadfuture(self) -> Answer:
        """Awaits something that somebody has cancelled: CancelledError, without ever waiting."""
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future
        return None

    async def _latedeadfuture(self) -> Answer:
        await asyncio.sleep(0)
        return await self._deadfuture()

    async def _latefailure(self) -> Answer:
        await asyncio.sleep(0)
        raise ValueError("behind a wait")

    async def _thread(self) -> Answer:
        return _told(await asyncio.to_thread(lambda: "from a thread"))


_variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Contexts(Handler):
    """Hooks of each kind that set and read one context variable; the client's name is what they set."""

    @inline
    def helo(self, session: Session, name: str) -> Answer:
        _variable.set(f"inline {name}")
        return None

    async def mail(self, session: Session, sender: Sender) -> Answer:
        _variable.set(f"async {session.client_name}")
        await asyncio.sleep(0)
        if sender.local == "late":
            _variable.set(f"late {session.client_name}")
            await asyncio.sleep(0)
        return None

    def vrfy(self, session: Session, argument: str) -> Answer:
        _variable.set(f"thread {session.client_name}")
        return None

    @inline
    def noop(self, session: Session, argument: str) -> Answer:
        return _told(_variable.get())

    def help(self, session: Session, argument: str) -> Answer:
        return _told(_variable.get())

    async def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        await asyncio.sleep(0)
        async with asyncio.TaskGroup() as group:
            return _told(await group.create_task(self._read()))

    async def _read(self) -> str:
        return _variable.get()


class Watching(Handler):
    """Hooks that notice when another one of their session runs."""

    def __init__(self) -> None:
        self._running: list[str] = []

    def _enter(self, hook: str) -> None:
        if self._running:
            note(event="overlap", hooks=[*self._running, hook])
        self._running.append(hook)

    def _exit(self, hook: str) -> None:
        self._running.remove(hook)


class Mixed(Watching):
    """Hooks of all kinds, one behind the other."""

    async def ehlo(self, session: Session, name: str) -> Answer:
        self._enter("ehlo")
        await asyncio.sleep(0.0005)
        self._exit("ehlo")
        return None

    def mail(self, session: Session, sender: Sender) -> Answer:
        self._enter("mail")
        time.sleep(0.0005)
        self._exit("mail")
        return None

    async def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        self._enter("rcpt")
        await asyncio.sleep(0.0005 if recipient.local == "slow" else 0)
        self._exit("rcpt")
        return None

    @inline
    def noop(self, session: Session, argument: str) -> Answer:
        self._enter("noop")
        self._exit("noop")
        return _told(argument)

    def vrfy(self, session: Session, argument: str) -> Answer:
        self._enter("vrfy")
        self._exit("vrfy")
        return _told(argument)

    def data(self, session: Session, message: Message) -> Answer:
        self._enter("data")
        time.sleep(0.0005)
        self._exit("data")
        return _told(bytes(message.content).decode().strip())

    async def closed(self, session: Session) -> None:
        self._enter("closed")
        await asyncio.sleep(0)
        self._exit("closed")


class _Gated(Handler):
    """RCPT to "gate-NAME" waits at the gate NAME."""

    def _enter(self, session: Session, recipient: Recipient) -> None:
        note(event="enter", port=session.peer.port, to=recipient.local)

    def _exit(self, session: Session, recipient: Recipient) -> None:
        note(event="exit", port=session.peer.port, to=recipient.local)


class ThreadGate(_Gated):
    def mail(self, session: Session, sender: Sender) -> Answer:
        note(event="mail", port=session.peer.port)
        return None

    def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        self._enter(session, recipient)
        if recipient.local.startswith("gate-"):
            gates.stand(recipient.local.removeprefix("gate-"))
        self._exit(session, recipient)
        return None

    def data(self, session: Session, message: Message) -> Answer:
        note(event="data", port=session.peer.port)
        if message.sender.local.startswith("gate-"):
            gates.stand(message.sender.local.removeprefix("gate-"))
        note(event="data done", port=session.peer.port)
        return None


shared_gate = ThreadGate()


class AsyncGate(_Gated):
    async def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        self._enter(session, recipient)
        try:
            if recipient.local.startswith("gate-"):
                await gates.wait(recipient.local.removeprefix("gate-"))
        finally:
            self._exit(session, recipient)
        return None

    async def data(self, session: Session, message: Message) -> Answer:
        note(event="data", port=session.peer.port)
        if message.sender.local.startswith("gate-"):
            await gates.wait(message.sender.local.removeprefix("gate-"))
        note(event="data done", port=session.peer.port)
        return None


class StubbornGate(_Gated):
    """Takes no cancellation for an answer."""

    async def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        self._enter(session, recipient)
        name = recipient.local.removeprefix("gate-")
        while name != recipient.local and not gates.is_open(name):
            with suppress(asyncio.CancelledError):
                await gates.wait(name)
        self._exit(session, recipient)
        return None


class AsyncThenThread(Handler):
    """An async hook in front of a blocking one."""

    async def mail(self, session: Session, sender: Sender) -> Answer:
        note(event="mail", port=session.peer.port)
        await gates.wait("mail")
        return None

    def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        note(event="rcpt", port=session.peer.port)
        return None

    async def data(self, session: Session, message: Message) -> Answer:
        note(event="data", port=session.peer.port)
        return None

    @inline
    def closed(self, session: Session) -> None:
        note(event="closed", port=session.peer.port)


class WelcomeGate(Handler):
    def welcome(self, session: Session) -> Answer:
        note(event="welcome", port=session.peer.port)
        gates.stand("welcome")
        return None


class QueuedClosed(Handler):
    """A blocking hook that can fill the pool, and a blocking `closed`."""

    def noop(self, session: Session, argument: str) -> Answer:
        note(event="noop", port=session.peer.port)
        gates.stand("noop")
        return None

    def closed(self, session: Session) -> None:
        note(event="closed", port=session.peer.port)


class Refusing(Handler):
    """Refuses in several ways, for the access log."""

    @inline
    def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        return Reply(550, "5.1.1", "nobody") if recipient.local.startswith("nobody") else None

    @inline
    def data(self, session: Session, message: Message) -> Answer:
        return Reply(554, "5.7.1", "spam") if b"spam" in bytes(message.content) else None


class TimedOut(Handler):
    """Tells when the timeout hook ran, and whether closed came behind it."""

    async def timeout(self, session: Session) -> None:
        note(hook="timeout", port=session.peer.port)
        await asyncio.sleep(0)

    @inline
    def closed(self, session: Session) -> None:
        note(hook="closed", port=session.peer.port)

    @inline
    def data(self, session: Session, message: Message) -> None:
        note(hook="data", port=session.peer.port)


class Odd(BaseException):
    """What libraries that switch stacks raise, and nobody expects."""


def _odd(name: str) -> BaseException:
    return {"exit": SystemExit, "odd": Odd, "generator": GeneratorExit}[name]("a hook wants to exit")


class Raising(Handler):
    """Raises what is no Exception; the name in the command says what, a second one that it is late."""

    @inline
    def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        raise _odd(recipient.local)

    async def vrfy(self, session: Session, argument: str) -> Answer:
        name, _, late = argument.partition(" ")
        if late:
            await asyncio.sleep(0)
        raise _odd(name)

    def help(self, session: Session, argument: str) -> Answer:
        raise _odd(argument)


class Blocking(Handler):
    """``NOOP block`` holds the loop for a while."""

    @inline
    def noop(self, session: Session, argument: str) -> Answer:
        if argument == "block":
            time.sleep(0.15)
        return None


class Hoarding(Handler):
    """``NOOP take`` opens files until a few descriptors are left, ``NOOP give`` closes them."""

    files: ClassVar[list[int]] = []

    @inline
    def noop(self, session: Session, argument: str) -> Answer:
        word, _, few = argument.partition(" ")
        if word == "take":
            while left() > int(few or 8):
                self.files.append(os.open("/dev/null", os.O_RDONLY))
        if word == "give":
            while self.files:
                os.close(self.files.pop())
        return None


class Hooky(Handler):
    """Prints."""

    @inline
    def data(self, session: Session, message: Message) -> None:
        print("what a hook prints", flush=True)


class Environment(Handler):
    """``NOOP NAME`` tells a variable."""

    @inline
    def noop(self, session: Session, argument: str) -> Answer:
        return _told(os.environ.get(argument, "unset"))


class Parent(Handler):
    """Starts a process for each session that outlives its parent."""

    def welcome(self, session: Session) -> Answer:
        script = "sleep 0.2 & echo $!"
        with os.popen(script) as shell:
            note(event="orphan", pid=int(shell.readline()))
        return None
