"""Serving from Python, without the command line."""

from __future__ import annotations

from .config import Config


def run(target: object, **settings: object) -> int:
    """Serve until SIGTERM or SIGINT. It forks: call it from the main thread of a program without other threads.

    Args:
        target: a `Handler` class (an instance for each session), an instance (shared), or a callable that makes one.
        settings: as on the command line: ``listen="127.0.0.1:2525"``, ``workers=2``, ``store="maildir:./mail"``, ...

    Returns:
        The exit code: 0, 1 if sessions had to be cut, 2 if a setting cannot be met (a user, a log file), 3 if the
        application does not come up, 4 if an address is taken.

    Raises:
        ConfigError: a setting is unknown or its value is wrong.
    """
    from .server.master import run as serve  # the handler's module may be imported where no server runs

    return serve(Config.of(**settings), target)
