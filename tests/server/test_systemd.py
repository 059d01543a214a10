"""Sockets that were passed to us, and what we tell whoever started us (sd_listen_fds(3), sd_notify(3))."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastsmtp.server.systemd import Notifier, inherited
from tests.server.client import Client
from tests.server.processes import kill_session
from tests.server.running import SERVE, Server, environment, failing, starting
from tests.server.waiting import until

# Becomes the server, with the sockets as descriptors 3, 4, ...: what systemd does.
LAUNCH = """
import os, sys
numbers, names, *command = sys.argv[1:]
for place, number in enumerate(map(int, numbers.split(",")), 3):
    os.dup2(number, place)
environ = {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(numbers.count(",") + 1)}
if names:
    environ["LISTEN_FDNAMES"] = names
os.execve(command[0], command, environ)
"""


@contextmanager
def _activated(directory: Path, sockets: Sequence[socket.socket], *arguments: str, names: str = "") -> Iterator[Server]:
    """A server that has inherited these sockets."""
    high = [os.dup2(each.fileno(), 100 + each.fileno()) for each in sockets]  # out of the way of 3, 4, ...
    command = [sys.executable, "-c", LAUNCH, ",".join(map(str, high)), names]
    command += [*SERVE, "tests.server.apps:Pids", "--workers=2", *arguments]
    with open(directory / "server.log", "wb") as log, open(directory / "server.access", "wb") as access:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=access,
            stderr=log,
            start_new_session=True,
            pass_fds=high,
        )
    for number in high:
        os.close(number)
    server = Server(directory, process, "server")
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.close_clients()
        kill_session(process.pid)
        process.wait(10)


def _tcp() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def _text(listening: socket.socket) -> str:
    return "{}:{}".format(*listening.getsockname())


# -- sockets -----------------------------------------------------------------------------------------------------------


def test_a_socket_with_the_address_of_a_listener_is_used(tmp_path: Path) -> None:
    with _tcp() as one, _tcp() as other, socket.socket(socket.AF_UNIX) as path:
        path.bind(os.fspath(tmp_path / "smtp.sock"))
        path.listen()
        listen = [f"--listen={_text(other)}", "--listen=127.0.0.1:0", f"--listen=unix:{tmp_path / 'smtp.sock'}"]
        with _activated(tmp_path, [one, path, other], *listen) as server:
            assert server.addresses[0] == other.getsockname()
            for at in range(3):
                with server.connect(at=at) as client:
                    client.expect("220 pid ")
            server.wait_for_log(f"WARNING .*: a socket was passed to us that no listener names: {_text(one)}")
            assert server.stop() == 0
        # It is not ours: it is still there, and whoever connects now waits for the next server.
        assert (tmp_path / "smtp.sock").exists()
        with Client(other.getsockname()) as waiting, _activated(tmp_path, [other], listen[0]):
            waiting.expect("220 pid ")


def test_a_socket_by_its_name_and_by_its_number(tmp_path: Path) -> None:
    with _tcp() as one, _tcp() as other:
        listen = ["--listen=fd:smtp", "--listen=fd:4 lmtp"]
        with _activated(tmp_path, [one, other], *listen, names="smtp:lmtp") as server:
            assert server.addresses == [one.getsockname(), other.getsockname()]
            with server.connect(at=1) as client:
                client.expect("220")
                client.ask("LHLO client.example", "250")
            for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1)):  # one socket for all
                server.send_signal(number)
                until(lambda count=count: len(server.workers) == count, f"{count} workers")  # type: ignore[misc]
            for _ in range(8):
                server.greeted().deliver()


def test_a_descriptor_that_nobody_has_passed(tmp_path: Path) -> None:
    for name in ("7", "smtp"):
        code, log = failing(tmp_path, "--store=discard:", f"--listen=fd:{name}")
        assert (code, "Traceback" in log) == (4, False)
        assert f"cannot listen on fd:{name}: nobody has passed us such a socket" in log


def test_variables_for_another_process_are_not_ours() -> None:
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "OTHER": "kept"}
    assert inherited(environ) == {}
    assert environ == {"OTHER": "kept"}


@pytest.mark.parametrize(
    ("count", "names", "found"),
    [
        ("0", "", {}),
        ("many", "", {}),
    ],
)
def test_variables_that_say_nothing(count: str, names: str, found: dict[str, int]) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": names}
    assert inherited(environ) == found


# -- what we tell ------------------------------------------------------------------------------------------------------


class _Manager:
    """As much of a service manager as listens."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(os.fspath(path))
        self.socket.setblocking(False)
        self.words: list[str] = []

    def heard(self, pattern: str) -> bool:
        while True:
            try:
                self.words.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return any(re.search(pattern, words, re.MULTILINE) for words in self.words)

    def wait_for(self, pattern: str) -> None:
        until(lambda: self.heard(pattern), f"{pattern} is told", 20)


def test_what_the_service_manager_hears(tmp_path: Path) -> None:
    manager = _Manager(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": os.fspath(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    command = [*SERVE, "tests.server.apps:Environment", "--listen=127.0.0.1:0", "--workers=1", "--config=server.toml"]
    (tmp_path / "server.toml").write_text("drain_idle = 1\n")
    with manager.socket, starting(tmp_path, command, environ) as server:
        manager.wait_for(rf"READY=1\nMAINPID={server.pid}\nSTATUS=1 workers on 127.0.0.1:\d+$")
        server.wait_until_ready()
        until(lambda: manager.heard("x") or manager.words.count("WATCHDOG=1") >= 5, "signs of life", 10)
        with server.greeted() as client:  # it is the master's to speak
            client.ask("NOOP NOTIFY_SOCKET", "250 2.0.0 unset")
            client.ask("NOOP WATCHDOG_USEC", "250 2.0.0 unset")
        manager.words.clear()
        before = time.monotonic_ns() // 1000
        server.send_signal(signal.SIGHUP)
        manager.wait_for(r"RELOADING=1\nMONOTONIC_USEC=\d+")
        (stamp,) = re.findall(r"MONOTONIC_USEC=(\d+)", "".join(manager.words))
        assert before <= int(stamp) <= time.monotonic_ns() // 1000
        manager.wait_for("READY=1")
        (tmp_path / "server.toml").write_text("max_errors = 0\n")
        server.send_signal(signal.SIGHUP)
        manager.wait_for("STATUS=.*last reload given up: max_errors in server.toml")
        server.send_signal(signal.SIGTTIN)
        manager.wait_for("STATUS=2 workers on")
        server.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert server.wait() == 0


def test_a_manager_that_does_not_listen_stops_nobody(tmp_path: Path) -> None:
    for address in ("", os.fspath(tmp_path / "nobody"), "@nobody"):
        environ = {"NOTIFY_SOCKET": address} if address else {}
        Notifier(environ).ready("well")
        assert environ == {}


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "2000000", "NOTIFY_SOCKET": "/x"}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "NOTIFY_SOCKET": "/x", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "NOTIFY_SOCKET": "/x", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "2000000"}, None),
        ({"NOTIFY_SOCKET": "/x"}, None),
    ],
)
def test_how_often_it_wants_to_hear(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier(environ).interval == interval
