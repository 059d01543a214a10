"""Connections to one next hop that are kept for the next message."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from fastsmtp.protocol.envelope import Recipient

from .connection import Connection
from .dialogue import Patience
from .errors import TransferError
from .hop import Hop
from .outgoing import Outgoing
from .responses import Response

_MAX_MESSAGES: Final = 100  # over one connection; many servers stop there


_Talk = Callable[[Connection], Awaitable[list[Response]]]


class Sent(NamedTuple):
    """What came of one message.

    Attributes:
        answers: for each recipient, in their order.
        is_tls: TLS protected the conversation.
        told_on: the hop was told who wants which reports (DSN, RFC 3461), and will see to them.
    """

    answers: list[Response]
    is_tls: bool
    told_on: bool


class Pool:
    """Sends messages to one hop over a bounded number of connections. It is used on one event loop.

    Args:
        hop: where to, over how many connections, and for how long an idle one is kept.
        patience: how long to wait for the hop; None: as long as RFC 5321 asks for.
    """

    def __init__(self, hop: Hop, patience: Patience | None = None) -> None:
        self.hop = hop
        self._busy = 0  # messages that wait or are on their way
        self._patience = patience or Patience()
        self._idle_seconds = hop.idle_seconds
        self._places = asyncio.Semaphore(hop.connections)
        self._idle: deque[tuple[Connection, float]] = deque()  # since when; the longest idle one first
        self._sweeper: asyncio.TimerHandle | None = None
        self._goodbyes: set[asyncio.Task[None]] = set()

    async def send(self, outgoing: Outgoing, name: str) -> Sent:
        """One transaction, over a connection that is there or a new one; see `Connection.send`.

        A hop may hang up on an idle connection at any time. If it does so before it had the content, the message is
        sent once more, over a new connection.

        Args:
            outgoing: the message.
            name: who we say we are, where a new connection is made.

        Raises:
            HopError: there is no connection to be had.
            TransferError: nobody knows what became of the message.
        """
        answers, connection = await self._talk(lambda connection: connection.send(outgoing), name)
        return Sent(answers, connection.is_tls, "DSN" in connection.extensions)

    async def verify(self, recipient: Recipient, name: str) -> Response:
        """What the hop says to a recipient, without a message: RCPT from the null sender, and RSET.

        Args:
            recipient: who.
            name: as for `send`.

        Raises:
            HopError, TransferError: nobody answers.
        """
        answers, _ = await self._talk(lambda connection: connection.verify(recipient), name)
        return answers[0]

    @property
    def is_unused(self) -> bool:
        """Whether there are neither messages on their way nor connections."""
        return not self._idle and not self._goodbyes and not self._busy

    async def close(self) -> None:
        """Says goodbye to the idle connections; those in use go when their message is through."""
        self._idle_seconds = 0.0
        self._sweep()
        if self._goodbyes:
            await asyncio.wait(self._goodbyes)

    async def _talk(self, talk: _Talk, name: str) -> tuple[list[Response], Connection]:
        """Over a connection that is there, or a new one; and over a new one if the hop has left the other one."""
        self._busy += 1
        try:
            async with self._places:
                connection = self._take()
                answers = await self._talk_over_kept(connection, talk) if connection else []
                if connection is None or not answers:
                    connection = await Connection.open(self.hop, name, self._patience)
                    answers = await talk(connection)
                    self._keep(connection)
                return answers, connection
        finally:
            self._busy -= 1

    async def _talk_over_kept(self, connection: Connection, talk: _Talk) -> list[Response]:
        """The answers, or none if the connection was of no use any more."""
        try:
            answers = await talk(connection)
        except TransferError as error:
            if error.before_content:
                return []
            raise
        # RFC 5321 3.8: with 421 it says goodbye; if it took nobody it has nothing.
        if any(answer.code == 421 for answer in answers) and not any(answer.is_ok for answer in answers):
            connection.abort()
            return []
        self._keep(connection)
        return answers

    def _take(self) -> Connection | None:
        """The idle connection that was used last."""
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_stale:
                return connection
            connection.abort()
        return None

    def _keep(self, connection: Connection) -> None:
        if connection.is_stale:
            connection.abort()
        elif connection.messages >= _MAX_MESSAGES or not self._idle_seconds:
            self._say_goodbye(connection)
        else:
            self._idle.append((connection, time.monotonic()))
            self._wait_to_sweep()

    def _wait_to_sweep(self) -> None:
        if self._sweeper is None and self._idle:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self._idle[0][1] + self._idle_seconds - time.monotonic(), self._sweep)

    def _sweep(self) -> None:
        """Closes what has been idle for too long."""
        if self._sweeper:
            self._sweeper.cancel()
            self._sweeper = None
        oldest = time.monotonic() - self._idle_seconds
        while self._idle and self._idle[0][1] <= oldest:
            self._say_goodbye(self._idle.popleft()[0])
        self._wait_to_sweep()

    def _say_goodbye(self, connection: Connection) -> None:
        task = asyncio.get_running_loop().create_task(connection.quit())
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)
