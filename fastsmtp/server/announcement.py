"""What a person reads in the log when the server serves."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.metadata import version

from ..config import Config, Listen
from ..store import describe
from .listeners import Listener

_log = logging.getLogger("fastsmtp.master")


def announce(
    config: Config, listeners: Sequence[Listener], admin: Listener | None, workers: str, target: object | None
) -> None:
    """Say where it listens, what it does with mail, and how to try it.

    Args:
        config: the settings.
        listeners: of mail.
        admin: of the admin process.
        workers: how many, and why.
        target: the application, where it is no name in the settings.
    """
    handler = config.app or (target and getattr(target, "__qualname__", type(target).__qualname__))
    _log.info("fastsmtp %s is ready, pid %d", version("fastsmtp"), os.getpid())
    _log.info("listening on %s", ", ".join(map(str, listeners)))
    if admin:
        _log.info("admin at %s", admin)
    _log.info("workers: %s, %d threads each", workers, config.threads)
    if handler:
        _log.info("handler: %s", handler)
    _log.info("mail goes to %s", describe(config.store) if config.store else "the handler alone")
    for text, listener in zip(config.listen, listeners, strict=True):
        if _is_for_anybody(config.for_listener(Listen.parse(text))):
            _show_how_to_try(Listen.parse(listener.address))
            break


def _is_for_anybody(config: Config) -> bool:
    """Whether a client needs no more than SMTP there."""
    demanding = config.implicit_tls or config.require_tls or config.require_auth
    return not (demanding or config.lmtp or config.proxy_protocol)


def _show_how_to_try(address: Listen) -> None:
    if address.path is None:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
        _log.info(
            "try it: python3 -c \"import smtplib; smtplib.SMTP('%s', %d).sendmail('me@example.com', "
            "'you@example.com', 'Subject: hello\\r\\n\\r\\nIt works.')\"",
            host,
            address.port,
        )
