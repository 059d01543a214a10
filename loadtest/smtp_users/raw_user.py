"""The user that costs least: raw sockets in the hub, messages made before, statistics in batches."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

import gevent
from gevent.event import Event
from locust import User, task
from locust.env import Environment
from locust.user.task import LOCUST_STATE_STOPPING

from .conversation import Conversation
from .mix import Mix, Plans
from .rows import FLUSH_INTERVAL, BatchedRows
from .target import RETRY_DELAY, Target, tls_context


class RawSmtpUser(User):
    """Sends messages as fast as the server answers, over one or more connections, until it is stopped.

    What it leaves out to be cheap: it renders no message, and of a reply it reads the code alone. docs/loadtest.md has
    what it reaches. `wait_time` does not apply, since its one task lasts as long as the user; pace it by
    `messages_per_second`.
    """

    abstract = True
    mix: ClassVar[Mix] = Mix.fixed(octets=4096)
    connections: ClassVar[int] = 1  # of one user, all at the same time
    messages_per_connection: ClassVar[int] = 100
    messages_per_second: ClassVar[float | None] = None  # of one user; None: the next as soon as one is done
    pipelining: ClassVar[bool] = False  # MAIL, RCPT and DATA in one flight, where the server offers it
    reply_timeout: ClassVar[float] = 60.0  # seconds

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._target = Target.parse(self.host or "")
        self._rows = BatchedRows(environment)
        self._tls_context = tls_context()
        self._lines: list[_Line] = []

    @task
    def send(self) -> None:
        """The user's only task."""
        found = socket.getaddrinfo(self._target.host, self._target.port, type=socket.SOCK_STREAM)
        address = str(found[0][4][0]), self._target.port
        self._lines = [_Line(self, address) for _ in range(self.connections)]
        try:
            while not all(line.done.is_set() for line in self._lines):
                gevent.wait([line.done for line in self._lines], timeout=FLUSH_INTERVAL)
                self._rows.flush()
                for line in self._lines:
                    line.check()
        finally:
            for line in self._lines:
                line.close()
            self._rows.flush()

    def converse(
        self,
        address: tuple[str, int],
        plans: Plans,
        next_in: Callable[[], float | None],
        on_end: Callable[[bool], None],
    ) -> Conversation:
        """Open a connection."""
        return Conversation(
            self._target, address, self.mix, plans, self._rows, next_in, self.pipelining, self._tls_context, on_end
        )

    @property
    def stopping(self) -> bool:
        """Whether Locust wants this user to end after the message it is at."""
        return self._state == LOCUST_STATE_STOPPING


class _Line:
    """The place of one connection: when one has ended the next is opened, until the user stops.

    Args:
        user: whose it is.
        address: to connect to.
    """

    def __init__(self, user: RawSmtpUser, address: tuple[str, int]) -> None:
        self.done = Event()
        self._user, self._address = user, address
        self._plans = user.mix.plans()
        self._left = 0  # messages for this connection
        self._due = perf_counter()  # when the next message is to begin, if paced
        self._conversation: Conversation | None = None
        self._timer: Any = None
        self._open()

    def check(self) -> None:
        """Give up a connection whose reply is overdue."""
        conversation, seconds = self._conversation, self._user.reply_timeout
        if conversation is not None and perf_counter() - conversation.waits_since > seconds:
            conversation.time_out(seconds)

    def close(self) -> None:
        """Cut off what is left; no reply is waited for."""
        if self._conversation is not None:
            self._conversation.close()
        if self._timer is not None:
            self._timer.close()

    def _open(self) -> None:
        self._left = self._user.messages_per_connection
        self._conversation = self._user.converse(self._address, self._plans, self._next_in, self._ended)

    def _ended(self, well: bool) -> None:
        self._conversation = None
        if self._user.stopping:
            self.done.set()
        else:  # by the hub, in a turn of its own: thousands of short connections must not nest
            self._timer = gevent.get_hub().loop.timer(0.0 if well else RETRY_DELAY)
            self._timer.start(self._open_or_stop)

    def _open_or_stop(self) -> None:
        self._timer.close()
        if self._user.stopping:
            self.done.set()
        else:
            self._open()

    def _next_in(self) -> float | None:
        if self._left == 0 or self._user.stopping:
            return None
        self._left -= 1
        rate = self._user.messages_per_second
        if rate is None:
            return 0.0
        now = perf_counter()
        pause = max(0.0, self._due - now)
        self._due = max(self._due, now - 1.0) + self._user.connections / rate  # what is late by more is not caught up
        return pause
