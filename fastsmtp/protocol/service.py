"""What all sessions of a listener share: the server's name, its limits, what it offers, and where content goes.

Everything that can be known at start-up is made here, once per process.
"""

from __future__ import annotations

from collections.abc import Callable

from .content import ContentSpace
from .extensions import EIGHTBITMIME, ENHANCEDSTATUSCODES, PIPELINING, SMTPUTF8, Offer, limits_of, size
from .limits import Limits
from .memory import BufferPool
from .replies import HostReplies, Reply


class Service:
    """The server as its sessions see it.

    Args:
        hostname: the name in the banner and in EHLO (RFC 5321 4.1.1.1).
        space: where contents find room, and the limits.
        smtputf8: whether to offer SMTPUTF8.
        clock: monotonic seconds, for the durations in the log.
    """

    def __init__(
        self,
        hostname: str,
        space: ContentSpace | None = None,
        smtputf8: bool = True,
        clock: Callable[[], float] = float,
    ) -> None:
        self.hostname = hostname
        self.clock = clock
        self.space = space or ContentSpace(Limits(), BufferPool())
        self.limits = self.space.limits
        self.replies = HostReplies(hostname)
        extensions = [PIPELINING, size(self.limits), EIGHTBITMIME, ENHANCEDSTATUSCODES, limits_of(self.limits)]
        if smtputf8:
            extensions.append(SMTPUTF8)
        self.offer = Offer(extensions, self.limits)
        self.plain_offer = Offer([], self.limits)  # to a client that said HELO
        self.helo = Reply(250, None, hostname)
        self._ehlo = self._list_keywords(hostname)

    def ehlo_reply(self, own: Reply | None) -> Reply:
        """The reply to EHLO: the server's name and a line for each keyword.

        Args:
            own: a handler's reply; its text follows the name, as a greeting may (RFC 5321 4.1.1.1).
        """
        return self._list_keywords(f"{self.hostname} {own.text}") if own else self._ehlo

    def _list_keywords(self, first_line: str) -> Reply:
        return Reply(250, None, "\n".join((first_line, *self.offer.keywords)))
