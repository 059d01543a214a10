"""The states of a session: in each, what runs for which command (RFC 5321 4.1.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .session import Session

Run = Callable[["Session", bytes], None]
"""Executes a command with its argument, or raises the SMTPError that refuses it."""


class State(dict[bytes, Run]):
    """A state of the session: for each verb, what happens there.

    Attributes:
        every_line: what happens with each line where lines are no commands; else None.
    """

    def __init__(self, name: str, every_line: Run | None = None) -> None:
        super().__init__()
        self.name = name
        self.every_line = every_line


class States(NamedTuple):
    """The states of one protocol, SMTP or LMTP."""

    turned_away: State  # refused with the banner: the client may only leave (RFC 5321 3.1)
    start: State  # before EHLO, HELO or LHLO
    start_in_clear: State  # likewise, and TLS is required
    tls_first: State  # no transaction before STARTTLS
    login_first: State  # no transaction before AUTH
    ready: State  # no transaction
    mail: State  # a sender, no recipient
    rcpt: State  # at least one recipient
    chunks: State  # at least one chunk of the message (RFC 3030)
