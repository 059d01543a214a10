"""Locust on SMTP: ``locust -f loadtest/locustfile.py --host smtp://127.0.0.1:2525 RawSmtp``.

The last word picks the user: Smtplib, the realistic one, or RawSmtp, the ceiling. docs/loadtest.md explains the
options.
"""

from __future__ import annotations

from loadtest.smtp_users import RawSmtpUser, SmtplibUser
from loadtest.smtp_users.judge import add_thresholds
from loadtest.smtp_users.options import add_options
from loadtest.smtp_users.shapes import ChosenShape

__all__ = ["ChosenShape", "RawSmtp", "Smtplib"]

add_options()
add_thresholds()


class Smtplib(SmtplibUser):
    """Most programs in Python send like this."""


class RawSmtp(RawSmtpUser):
    """As many messages as a core can send."""
