"""From settings to what the protocol wants to know: the `Service` of a listener."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from ..config import Config
from ..protocol.content import ContentSpace
from ..protocol.extensions import Switches
from ..protocol.limits import Limits
from ..protocol.memory import BufferPool
from ..protocol.policy import Policy
from ..protocol.service import Clients, Service
from .spool_buffer import SpoolFile

_Settings = TypeVar("_Settings")


def limits_of(config: Config) -> Limits:
    """The numbers that a session enforces."""
    return _settings_of(Limits, config)


def make_service(
    config: Config,
    pool: BufferPool,
    mechanisms: Sequence[str],
    clients: Clients,
    tally: Callable[[bytes], object] = len,
    authzid: bool = False,
) -> Service:
    """The service of a listener.

    Args:
        config: the settings that hold for it.
        pool: memory for messages.
        mechanisms: SASL mechanisms that the application can decide.
        clients: what is remembered of clients.
        tally: is told the verb of each command, see `Service`.
        authzid: whether the application decides who may act for whom.
    """
    directory = config.spool_dir or tempfile.gettempdir()
    policy = Policy(
        lmtp=config.lmtp,
        starttls=config.starttls and bool(config.tls_certfile) and not config.implicit_tls,
        require_tls=config.require_tls,
        require_auth=config.require_auth,
        auth_requires_tls=config.auth_requires_tls,
        authzid=authzid,
        mechanisms=tuple(mechanisms),
        vrfy=config.vrfy,
    )
    return Service(
        config.hostname or socket.getfqdn(),
        ContentSpace(limits_of(config), pool, config.spool_threshold_bytes, lambda: SpoolFile(directory)),
        _settings_of(Switches, config),
        policy,
        clients,
        time.monotonic,
        lambda: datetime.now(UTC),
        tally,
    )


def _settings_of(kind: type[_Settings], config: Config) -> _Settings:
    """Settings of the same names, put together."""
    described: Any = kind
    return kind(**{each.name: getattr(config, each.name) for each in fields(described)})
