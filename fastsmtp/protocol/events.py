"""What a session asks its driver to decide, and the answers it takes.

A question is asked only where somebody decides it: a hook that the handler implements, a store that is configured.
Everything else the session decides itself, as if the answer had been ACCEPT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from .credentials import ScramKey
from .replies import Reply

if TYPE_CHECKING:
    from .session import Session


class Verdict(Enum):
    """A hook's answer where no text of its own is needed."""

    ACCEPT = "accept"
    REJECT = "reject"
    CLOSE = "close"


ACCEPT: Final = Verdict.ACCEPT
REJECT: Final = Verdict.REJECT
CLOSE: Final = Verdict.CLOSE

Answer = Verdict | Reply | None  # None accepts
"""What a hook returns. A `Reply` of 2xx accepts with a text of its own, one of 4xx or 5xx refuses."""

AuthAnswer = Answer | ScramKey
"""What the `auth` hook returns: for SCRAM it hands out the key, and the session finds out whether the client has it."""

DataAnswer = Answer | Sequence[Answer]
"""What the `data` hook returns: one answer, or one for each recipient, in their order."""

# Every hook there is, with its subject: what it is given behind the session. "store" is no hook of the handler:
# it is the question that follows an accepted message where a store is configured.
HOOKS: Final = (
    "welcome",  # ()                    a client has connected; before the banner
    "helo",  # (name: str)
    "ehlo",  # (name: str)
    "auth",  # (credentials: Credentials)
    "mail",  # (sender: Sender)
    "rcpt",  # (recipient: Recipient)
    "data",  # (message: Message)       the content is complete; the client waits for its 250
    "rset",  # ()
    "noop",  # (argument: str)
    "vrfy",  # (argument: str)
    "help",  # (argument: str)
    "error",  # (reply: Reply)          the protocol is about to refuse a command with it
    "timeout",  # ()                    a deadline of the session has passed
    "closed",  # ()                     the connection is gone; the last call, the answer does not matter
)
STORE: Final = "store"  # (message: Message)
WITHOUT_SUBJECT: Final = frozenset(("welcome", "rset", "timeout", "closed"))


class Waiting(Enum):
    """What a decider returns where there is no answer."""

    PENDING = "pending"  # `Session.answer` will bring it
    FAILED = "failed"  # there will be none: 451


PENDING: Final = Waiting.PENDING
FAILED: Final = Waiting.FAILED

Decider = Callable[["Session", Any], Any]
"""Decides one question: takes the session and the question's subject, None where it has none; returns an `Answer`,
PENDING or FAILED."""
