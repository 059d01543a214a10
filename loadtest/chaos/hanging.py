"""Workers that stand still, and an application that fails on reload: each is survived, and the log explains it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from loadtest.chaos.load import Load
from tests.server.client import Client
from tests.server.running import Server, running

APP = "loadtest.chaos.apps:Hanging"
WATCHDOG_SECONDS = 3

Ways = dict[str, Callable[[Server, Client], None]]


def stop(server: Server, client: Client) -> None:
    """The worker of a session is stopped."""
    os.kill(_worker_of(client), signal.SIGSTOP)


def hold_the_interpreter(server: Server, client: Client) -> None:
    """A hook holds the GIL in C."""
    _worker_of(client)
    client.ask("EHLO chaos.example", "250")
    client.send(b"NOOP gil\r\n")


def block_the_loop(server: Server, client: Client) -> None:
    """An inline hook does not return."""
    _worker_of(client)
    client.ask("EHLO chaos.example", "250")
    client.send(b"NOOP loop\r\n")


WAYS: Ways = {"SIGSTOP": stop, "GIL held in C": hold_the_interpreter, "loop blocked": block_the_loop}


def _worker_of(client: Client) -> int:
    return int(client.expect("220 pid ").split()[-1])


def hang(directory: Path, way: str, sessions: int) -> tuple[float, list[tuple[str, str]], str]:
    """Have a worker hang under load.

    Returns:
        Seconds until its slot had a successor; what failed of the load; the log.
    """
    arguments = (APP, f"--watchdog-timeout={WATCHDOG_SECONDS}")
    with (
        running(directory, *arguments, workers=2) as server,
        Load(server.host_and_port, sessions) as load,
    ):
        with server.connect() as client:
            began = time.monotonic()
            WAYS[way](server, client)
            server.wait_for_log(r"died \(signal SIG(ABRT|KILL)\); its successor starts now", 30)
            took = time.monotonic() - began
        after = load.delivered
        while load.delivered < after + 50:
            time.sleep(0.05)
        failed = load.stop().failed
        assert server.stop() == 0, server.log
        return took, failed, server.log


def never_return(directory: Path) -> tuple[float, str]:
    """A `def` hook that never returns costs one thread; returns seconds until the 451, and the reply."""
    with running(directory, APP, "--hook-timeout=1") as server, server.connect() as client:
        client.greet("chaos.example")
        client.ask("MAIL FROM:<a@chaos.example>", "250")
        began = time.monotonic()
        reply = client.ask("RCPT TO:<never@chaos.example>", "451 4.3.0")
        took = time.monotonic() - began
        with server.connect() as other:
            other.greet("chaos.example").deliver()
        return took, reply


_GOOD = "from loadtest.chaos.apps import Pids as App\n"


def fail_to_load(directory: Path, sessions: int) -> tuple[list[tuple[str, str]], str]:
    """The application cannot be imported any more when HUP comes; returns what failed of the load, and the log."""
    app = directory / "app.py"
    app.write_text(_GOOD)
    with (
        running(directory, "app:App", workers=2) as server,
        Load(server.host_and_port, sessions) as load,
    ):
        before = server.workers
        app.write_text("raise RuntimeError('half a deployment')\n")
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("reload given up", 30)
        assert server.workers == before
        app.write_text(_GOOD)
        server.send_signal(signal.SIGHUP)
        server.wait_for_log("reload: done", 30)
        failed = load.stop().failed
        assert server.stop() == 0, server.log
        return failed, server.log
