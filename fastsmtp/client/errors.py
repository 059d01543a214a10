"""What can go wrong between us and the next hop, as opposed to what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .responses import Response


class HopError(Exception):
    """The next hop cannot be used, whatever the message: no connection, no greeting, no TLS, no login.

    Attributes:
        response: what may be said of it to others.
        reason: for the log.
    """

    def __init__(self, response: Response, reason: str) -> None:
        super().__init__(reason)
        self.response = response
        self.reason = reason


class HandshakeError(Exception):
    """No TLS came about: no handshake, or a certificate that is not good."""


class TransferError(Exception):
    """The connection broke, timed out or went out of step: what became of the message is for the caller to assume.

    Attributes:
        reason: for the log.
        before_content: nothing of the message can have been taken, so it may be sent again at once.
    """

    def __init__(self, reason: str, before_content: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.before_content = before_content
