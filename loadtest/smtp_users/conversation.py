"""One connection of a `RawSmtpUser`: a generator that says what the client says, from the banner to QUIT.

The generator sends a command and yields; the hub sends the reply into it. So the dialogue reads from top to bottom
and no greenlet is switched. A step that fails, by its reply or because the connection ends, is written down in its
row and, within a transaction, in the row of the message. It ends the conversation.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Generator, Sequence
from time import perf_counter
from typing import Any, NamedTuple, NoReturn

import gevent

from . import steps as names
from .channel import Channel
from .mix import Mix, Plan, Plans
from .replies import UnexpectedReplyError, end_of_reply
from .rows import BatchedRows
from .target import Target
from .transactions import Transaction

_HELLO = b"EHLO load.sender.example\r\n"


class _EndedError(Exception):
    """The connection has ended, or the time has run out."""


class Step(NamedTuple):
    """Something that is sent, and the reply that is expected.

    Args:
        row: where it is written down.
        command: what failures call it.
        octets: to send; nothing where the reply comes by itself, or to what an earlier step has sent.
        expected: the code.
    """

    row: str
    command: str
    octets: bytes
    expected: bytes


def steps_of(transaction: Transaction, refused_code: int, size_offered: bool, pipelining: bool) -> list[Step]:
    """The steps of a message. With `pipelining` all commands leave with the first one (RFC 2920)."""
    steps = [Step(names.MAIL, "MAIL FROM", transaction.mail(size_offered), b"250")]
    steps += [Step(names.RCPT, "RCPT TO", _rcpt(recipient), b"250") for recipient in transaction.recipients]
    if transaction.refused:
        steps.append(Step(names.RCPT_REFUSED, "RCPT TO", _rcpt(transaction.refused), b"%d" % refused_code))
    steps.append(Step(names.DATA, "DATA", b"DATA\r\n", b"354"))
    if pipelining:
        flight = b"".join(step.octets for step in steps)
        steps = [steps[0]._replace(octets=flight), *(step._replace(octets=b"") for step in steps[1:])]
    return [*steps, Step(names.CONTENT, "content", transaction.payload.wire, b"250")]


def _rcpt(recipient: str) -> bytes:
    return f"RCPT TO:<{recipient}>\r\n".encode()


class Conversation:
    """A connection that is opened at once.

    Args:
        target: what is spoken.
        address: where it is.
        mix: what is sent.
        plans: draws from the mix.
        rows: where steps are written down.
        next_in: asked before each message: seconds until it is to begin; None if there is to be none.
        pipelining: several commands in one flight (RFC 2920), where the server offers it.
        tls_context: for STARTTLS and implicit TLS.
        on_end: called when it is over; with whether it went well.
    """

    def __init__(
        self,
        target: Target,
        address: tuple[str, int],
        mix: Mix,
        plans: Plans,
        rows: BatchedRows,
        next_in: Callable[[], float | None],
        pipelining: bool,
        tls_context: ssl.SSLContext,
        on_end: Callable[[bool], None],
    ) -> None:
        self._target, self._mix, self._plans, self._rows = target, mix, plans, rows
        self._next_in, self._on_end, self._tls_context = next_in, on_end, tls_context
        self._took = rows.seconds_of
        self._asked_for_pipelining = pipelining
        self._size_offered = self._pipelining = False
        self._steps: dict[Plan, list[Step]] = {}  # made once for each plan: few differ
        self._unread = b""
        self.waits_since = perf_counter()
        self._timer: Any = None
        self._channel = Channel(address, self._received, self._ended)
        self._dialogue = self._speak()
        next(self._dialogue)

    def time_out(self, seconds: float) -> None:
        """Give up: the reply has taken too long."""
        self._ended(f"no reply within {seconds:g} s")

    def close(self) -> None:
        """Cut it off, without a word."""
        self._release()
        self._dialogue.close()

    # -- what the hub calls ------------------------------------------------------------------------------------------

    def _received(self, octets: bytes) -> None:
        if self._unread:
            octets = self._unread + octets
        start = 0
        while (end := end_of_reply(octets, start)) >= 0:
            self._resume(octets[start:end])
            start = end
        self._unread = octets[start:]

    def _resume(self, reply: bytes) -> None:
        try:
            self._dialogue.send(reply)
        except StopIteration:
            self._finish(True)
        except (UnexpectedReplyError, _EndedError):
            self._finish(False)

    def _ended(self, reason: str) -> None:
        try:
            self._dialogue.throw(_EndedError(reason))
        except (UnexpectedReplyError, StopIteration, _EndedError):
            self._finish(False)

    def _finish(self, well: bool) -> None:
        self._release()
        self._on_end(well)

    def _release(self) -> None:
        self._channel.close()
        if self._timer is not None:
            self._timer.close()

    # -- the dialogue ------------------------------------------------------------------------------------------------

    def _speak(self) -> Generator[None, bytes, None]:
        target, began = self._target, perf_counter()
        if target.implicit_tls:
            yield from self._shake_hands(names.CONNECT)
        yield from self._take([Step(names.CONNECT, "connect", b"", b"220")], began)
        yield from self._greet()
        if target.starttls:
            yield from self._start_tls()
            yield from self._greet()
        if target.user:
            login = base64.b64encode(f"\0{target.user}\0{target.password}".encode())
            yield from self._take([Step(names.AUTH, "AUTH PLAIN", b"AUTH PLAIN %s\r\n" % login, b"235")])
        while (pause := self._next_in()) is not None:
            if pause > 0:
                yield from self._wait(pause)
            yield from self._send_message()
        yield from self._take([Step(names.QUIT, "QUIT", b"QUIT\r\n", b"221")])

    def _greet(self) -> Generator[None, bytes, None]:
        reply = yield from self._take([Step(names.EHLO, "EHLO", _HELLO, b"250")])
        keywords = {line[4:].split(b" ")[0].upper() for line in reply.splitlines()[1:]}
        self._size_offered = b"SIZE" in keywords
        self._pipelining = self._asked_for_pipelining and b"PIPELINING" in keywords
        self._steps = {}

    def _start_tls(self) -> Generator[None, bytes, None]:
        began = perf_counter()
        self._channel.send(b"STARTTLS\r\n")
        reply = yield
        if not reply.startswith(b"220"):
            self._fail(Step(names.STARTTLS, "STARTTLS", b"", b"220"), began, reply)
        yield from self._shake_hands(names.STARTTLS)
        self._took[names.STARTTLS](perf_counter() - began)

    def _shake_hands(self, row: str) -> Generator[None, bytes, None]:
        began = perf_counter()
        self._channel.start_tls(self._tls_context, self._target.host, lambda: self._resume(b""))
        try:
            yield
        except _EndedError as error:
            self._fail(Step(row, "TLS handshake", b"", b"220"), began, str(error))

    def _wait(self, seconds: float) -> Generator[None, bytes, None]:
        self.waits_since = perf_counter() + seconds
        self._timer = gevent.get_hub().loop.timer(seconds)
        self._timer.start(self._resume, b"")
        reply = yield
        self._timer.close()
        if reply:  # 421: the server ends an idle session
            raise _EndedError("the server has closed")

    def _send_message(self) -> Generator[None, bytes, None]:
        plan = self._plans.draw()
        steps = self._steps.get(plan)
        if steps is None:
            transaction = Transaction.of(plan, self._mix)
            code = self._mix.refused_code
            steps = self._steps[plan] = steps_of(transaction, code, self._size_offered, self._pipelining)
        began = perf_counter()
        try:
            yield from self._take(steps, began)
        except UnexpectedReplyError as error:
            self._rows.failed(names.MESSAGE, perf_counter() - began, error)
            raise
        self._rows.took(names.MESSAGE, perf_counter() - began, plan.octets)

    # -- steps -------------------------------------------------------------------------------------------------------

    def _take(self, steps: Sequence[Step], began: float = 0.0) -> Generator[None, bytes, bytes]:
        """Send, wait and write down, step by step; a step's time is that from what was sent last to its own reply.

        Args:
            steps: what is said.
            began: when the first was, where it has nothing to send.

        Returns:
            The last reply.

        Raises:
            UnexpectedReplyError: another reply came, or none; its row has it.
        """
        # Hot path: one frame for all steps of a message. Generators for each step cost 1.8 us more of a message.
        send, took, reply = self._channel.send, self._took, b""
        for step in steps:
            row, _, octets, expected = step
            if octets:
                self.waits_since = began = perf_counter()
                send(octets)
            try:
                reply = yield
            except _EndedError as error:
                self._fail(step, began, str(error))
            if not reply.startswith(expected):
                self._fail(step, began, reply)
            took[row](perf_counter() - began)
        return reply

    def _fail(self, step: Step, began: float, got: bytes | str) -> NoReturn:
        failure = UnexpectedReplyError(step.command, int(step.expected), got)
        self._rows.failed(step.row, perf_counter() - began, failure)
        raise failure
