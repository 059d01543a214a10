"""SMTP users for Locust: the realistic one, the cheap one, and what both are made of.

    from loadtest.smtp_users import Mix, SmtplibUser

    class Customer(SmtplibUser):
        host = "smtp://127.0.0.1:2525"
        mix = Mix.fixed(octets=4096, recipients=2)

What needs Locust is imported when it is asked for, so that payloads, shapes and targets can be used, and tested,
without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .mix import Mix
from .payloads import Payload, payload_of
from .replies import UnexpectedReplyError
from .target import Target

if TYPE_CHECKING:
    from .raw_user import RawSmtpUser
    from .smtplib_user import SmtplibUser

__all__ = [
    "Mix",
    "Payload",
    "RawSmtpUser",
    "SmtplibUser",
    "Target",
    "UnexpectedReplyError",
    "payload_of",
]


def __getattr__(name: str) -> object:
    if name == "RawSmtpUser":
        from .raw_user import RawSmtpUser

        return RawSmtpUser
    if name == "SmtplibUser":
        from .smtplib_user import SmtplibUser

        return SmtplibUser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
