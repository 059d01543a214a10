"""The realistic user: the standard library's smtplib, as most programs in Python send mail."""

from __future__ import annotations

import functools
import smtplib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import ClassVar

import gevent
from locust import User, task
from locust.env import Environment

from . import steps as names
from .mix import Mix
from .replies import SHOWN, UnexpectedReplyError
from .rows import EventRows
from .target import RETRY_DELAY, Target, tls_context
from .transactions import Transaction

_Answer = tuple[int, bytes]


class SmtplibUser(User):
    """Sends a message in each task, over a connection that it keeps for some messages.

    Every step fires Locust's request event. A failed step ends the connection; the next task opens another.
    """

    abstract = True
    mix: ClassVar[Mix] = Mix()
    messages_per_connection: ClassVar[int] = 10
    reply_timeout: ClassVar[float] = 60.0  # seconds

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._target = Target.parse(self.host or "")
        self._plans = self.mix.plans()
        self._rows = EventRows(environment)
        self._tls_context = tls_context()
        self._client: smtplib.SMTP | None = None
        self._left = 0  # messages for this connection
        self._in_a_step = False  # a reply is awaited

    @task
    def send(self) -> None:
        """Send one message; connect before and part behind as needed."""
        try:
            if self._client is None:
                self._connect()
            self._send(Transaction.of(self._plans.draw(), self.mix))
            self._left -= 1
            if self._left == 0:
                self._quit()
        except (UnexpectedReplyError, OSError):  # its row has it
            self._abandon()
            gevent.sleep(RETRY_DELAY)

    def on_stop(self) -> None:
        """Part in peace; but who is stopped in mid-dialogue, as Locust does when its time is up, hangs up."""
        if self._in_a_step:
            self._abandon()
        elif self._client is not None:
            try:
                self._quit()
            except (UnexpectedReplyError, OSError):
                self._abandon()

    # -- the dialogue ------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        target = self._target
        self._step(names.CONNECT, "connect", 220, self._open)
        client = self._client
        assert client is not None
        self._step(names.EHLO, "EHLO", 250, client.ehlo)
        if target.starttls:
            self._step(names.STARTTLS, "STARTTLS", 220, lambda: client.starttls(context=self._tls_context))
            self._step(names.EHLO, "EHLO", 250, client.ehlo)
        if target.user:
            self._step(names.AUTH, "AUTH", 235, lambda: client.login(target.user, target.password))

    def _open(self) -> _Answer:
        """smtplib connects as it is made, and raises what is no 220."""
        target, name = self._target, "load.sender.example"
        if target.implicit_tls:
            self._client = smtplib.SMTP_SSL(
                target.host, target.port, name, timeout=self.reply_timeout, context=self._tls_context
            )
        else:
            self._client = smtplib.SMTP(target.host, target.port, name, timeout=self.reply_timeout)
        self._left = self.messages_per_connection
        return 220, b""

    def _send(self, transaction: Transaction) -> None:
        client = self._client
        assert client is not None
        octets = transaction.payload.octets
        options = [f"SIZE={len(octets)}"] if client.has_extn("size") else []
        with self._message(len(octets)):
            self._step(names.MAIL, "MAIL FROM", 250, lambda: client.mail(transaction.sender, options))
            for recipient in transaction.recipients:
                self._step(names.RCPT, "RCPT TO", 250, functools.partial(client.rcpt, recipient))
            if transaction.refused:
                code = self.mix.refused_code
                self._step(names.RCPT_REFUSED, "RCPT TO", code, lambda: client.rcpt(transaction.refused))
            self._step(names.DATA, "DATA", 354, lambda: client.docmd("DATA"))
            self._step(names.CONTENT, "content", 250, lambda: self._content(client, transaction.payload.wire))

    @staticmethod
    def _content(client: smtplib.SMTP, wire: bytes) -> _Answer:
        client.send(wire)
        return client.getreply()

    def _quit(self) -> None:
        client, self._client = self._client, None
        assert client is not None
        try:
            self._step(names.QUIT, "QUIT", 221, client.quit)
        finally:
            client.close()

    def _abandon(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # -- a step ------------------------------------------------------------------------------------------------------

    def _step(self, row: str, command: str, expected: int, ask: Callable[[], _Answer]) -> None:
        """Ask, compare, write down.

        Raises:
            UnexpectedReplyError: another reply came, or none.
        """
        began = perf_counter()
        self._in_a_step = True
        try:
            code, text = ask()
            self._in_a_step = False
            if code == expected:
                self._rows.took(row, perf_counter() - began)
                return
            failure = UnexpectedReplyError(command, expected, _shown(code, text))
        except smtplib.SMTPResponseException as error:
            failure = UnexpectedReplyError(command, expected, _shown(error.smtp_code, error.smtp_error))
        except OSError as error:  # smtplib's own errors are among them
            failure = UnexpectedReplyError(command, expected, str(error) or type(error).__name__)
        self._in_a_step = False
        self._rows.failed(row, perf_counter() - began, failure)
        raise failure

    @contextmanager
    def _message(self, octets: int) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        except UnexpectedReplyError as error:
            self._rows.failed(names.MESSAGE, perf_counter() - began, error)
            raise
        self._rows.took(names.MESSAGE, perf_counter() - began, octets)


def _shown(code: int, text: bytes | str) -> str:
    """A reply for people; smtplib has the texts of its lines joined by line ends."""
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(words.splitlines())}"[:SHOWN]
