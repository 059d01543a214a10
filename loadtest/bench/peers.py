"""Who is measured: a table of commands. What is not installed is left out, and said to be."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest.bench.processes import Server, free_port
from loadtest.bench.programs import BUILD, ROOT, SOURCES, compiled, found

MOST_SESSIONS: Final = 20000  # that a scenario opens at one server
NODE_MODULES: Final = BUILD / "npm" / "node_modules"
_NO_SETTINGS: Final = {"PYTHONPATH": str(ROOT)}
Command = tuple[Sequence[str], Mapping[str, str]]
"""A program with its arguments, and additions to its environment."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server.

    Attributes:
        name: in the table.
        command: from the port and a directory of its own to what is run.
        wants: files that must be there.
        about: what it is.
    """

    name: str
    command: Callable[[int, Path], Command]
    wants: Sequence[str | None]
    about: str
    chunking: bool = False  # whether it takes BDAT

    @property
    def missing(self) -> bool:
        """Whether something that it needs is not installed."""
        return any(path is None or not os.path.exists(path) for path in self.wants)


def fastsmtp(python: str, application: str, *flags: str, workers: int = 1) -> Callable[[int, Path], Command]:
    """The command of fastsmtp; the store, if any, goes to `{directory}` in the flags."""

    def command(port: int, directory: Path) -> Command:
        settings = [flag.format(directory=directory) for flag in flags]
        listen = f"127.0.0.1:{port}"
        argv = [python, "-m", "fastsmtp", "serve", application, "--listen", listen, "--workers", str(workers)]
        argv.append(f"--max-connections={MOST_SESSIONS}")
        return [*argv, *settings], _NO_SETTINGS

    return command


def _floor(port: int, directory: Path) -> Command:
    return [compiled("floor"), str(port)], {}


def _smtp_sink(port: int, directory: Path) -> Command:
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return [found("smtp-sink") or "", *user, "-m", str(MOST_SESSIONS), f"127.0.0.1:{port}", "4096"], {}


def _aiosmtpd(python: str) -> Callable[[int, Path], Command]:
    return lambda port, directory: ([python, str(SOURCES / "peer_servers" / "aiosmtpd_server.py"), str(port)], {})


def _smtp_server(port: int, directory: Path) -> Command:
    script = str(SOURCES / "peer_servers" / "smtp_server.js")
    return [found("node") or "", script, str(port)], {"NODE_PATH": str(NODE_MODULES)}


def _haraka(port: int, directory: Path) -> Command:
    """Haraka reads its settings from files."""
    for name in ("config", "plugins"):
        (directory / name).mkdir()
    shutil.copy(NODE_MODULES / "Haraka" / "config" / "connection.ini", directory / "config")
    shutil.copy(SOURCES / "peer_servers" / "haraka_accept.js", directory / "plugins" / "accept.js")
    settings = {
        "smtp.ini": f"listen=127.0.0.1:{port}\n",
        "plugins": "accept\n",
        "me": "mx.example\n",
        "log.ini": "level=error\n",
    }
    for name, text in settings.items():
        (directory / "config" / name).write_text(text)
    return [found("node") or "", str(NODE_MODULES / "Haraka" / "bin" / "haraka"), "-c", str(directory)], {}


def peers(python: str, peer_python: str) -> list[Peer]:
    """Everybody, the floor first.

    Args:
        python: the interpreter of fastsmtp.
        peer_python: one that has aiosmtpd and uvloop.
    """
    aiosmtpd = list(Path(peer_python).parents[1].glob("lib/python*/site-packages/aiosmtpd"))
    node = found("node")
    return [
        Peer("floor", _floor, [], "a blind responder in C: what the kernel charges"),
        Peer("fastsmtp async", fastsmtp(python, "loadtest.bench_app:AsyncHooks"), [], "all hooks `async def`", True),
        Peer("fastsmtp threads", fastsmtp(python, "loadtest.bench_app:ThreadHooks"), [], "hooks in threads", True),
        Peer(
            "fastsmtp threads, one CPU",
            fastsmtp(python, "loadtest.bench_app:ThreadHooks", "--cpu-affinity"),
            [],
            "the same with `cpu_affinity`",
            True,
        ),
        Peer("smtp-sink", _smtp_sink, [found("smtp-sink")], "Postfix's test sink, in C"),
        Peer(
            "aiosmtpd", _aiosmtpd(peer_python), [str(aiosmtpd[0]) if aiosmtpd else None], "aiosmtpd (Python) on uvloop"
        ),
        Peer("smtp-server", _smtp_server, [node, str(NODE_MODULES / "smtp-server")], "nodemailer's smtp-server (Node)"),
        Peer("Haraka", _haraka, [node, str(NODE_MODULES / "Haraka")], "Haraka (Node)"),
    ]


class Running:
    """A peer that runs; a context manager, with a directory that goes with it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

    def __enter__(self) -> Server:
        port = free_port()
        try:
            command, environ = self._peer.command(port, Path(self._directory.name))
            self._server = Server(self._peer.name, command, port, environ)
        except BaseException:
            self._directory.cleanup()
            raise
        return self._server

    def __exit__(self, *details: object) -> None:
        self._server.stop()
        self._directory.cleanup()
