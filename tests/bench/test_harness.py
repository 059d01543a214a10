"""A small run of the harness against real servers gives sane figures, and a server that misbehaves gives none."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest.bench import handshakes, idle
from loadtest.bench.peers import Peer, peers
from loadtest.bench.processes import tree
from loadtest.bench.programs import compiled
from loadtest.bench.throughput import SCENARIOS, Scenario, measure
from tests.server.processes import is_alive
from tests.server.running import ROOT, environment
from tests.server.waiting import until


@pytest.fixture(autouse=True)
def _compiler(require_program: Callable[[str], str]) -> None:
    require_program("cc")


def _those(*names: str) -> list[Peer]:
    return [peer for peer in peers(sys.executable, sys.executable) if peer.name in names]


@pytest.mark.parametrize("name", ["session", "pipelined"])
def test_figures_are_sane(name: str) -> None:
    rows = measure(SCENARIOS[name], _those("floor", "fastsmtp async"), rounds=1, scale=0.1)
    assert list(rows) == ["floor", "fastsmtp async"]
    assert rows["floor"]["x_floor"] == 1
    assert 1 < rows["fastsmtp async"]["x_floor"] < 100
    for row in rows.values():
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["p999_us"]
        assert row["rate"] > 0


def test_a_server_that_does_not_come_up_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Peer("broken", lambda port, directory: (["false"], {}), [], "")
    rows = measure(Scenario("", 10, "--sessions 1"), [*_those("floor"), broken], rounds=1)
    assert list(rows) == ["floor"]
    assert "left out: broken" in capsys.readouterr().out


def test_idle_sessions_are_counted_and_still_served() -> None:
    (peer,) = _those("fastsmtp async")
    row = idle.measure(peer, 100)
    assert row["served"] == row["sessions"] == 100
    assert 500 < row["bytes_per_session"] < 100_000


def test_handshakes_are_compared(require_program: Callable[[str], str]) -> None:
    require_program("openssl")
    rows = handshakes.measure(sys.executable, "P-256", rounds=1, scale=0.1)
    assert rows["fastsmtp"]["cpu_us"] > 0
    assert 0.3 < rows["fastsmtp"]["x_openssl"] < 30


def _serves(pid: int) -> bool:
    """Whether a process is one of fastsmtp's; it may be gone by now."""
    with contextlib.suppress(OSError):
        return b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_a_run_that_is_ended_ends_its_servers() -> None:
    """Also those that have a session of their own, which no Ctrl-C of a terminal reaches."""
    command = [sys.executable, "-m", "loadtest.bench", "session"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL) as run:
        try:
            until(lambda: any(_serves(pid) for pid in tree(run.pid)), "fastsmtp is measured", 60)
            servers = tree(run.pid)[1:]
            run.terminate()
            assert run.wait(30) == 143
        finally:
            run.kill()
    until(lambda: not any(is_alive(pid) for pid in servers), "they have ended")


@contextmanager
def _server_that_says(*replies: bytes) -> Iterator[int]:
    """A server with one client that says these things, one for each read."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                for reply in replies:
                    client.sendall(reply)
                    client.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ((b"554 no\r\n",), "an unexpected reply (phase 0): 554 no"),
        ((b"220 hi\r\n", b"250 hi\r\n", b"451 later\r\n"), "an unexpected reply (phase 2): 451 later"),
        ((b"220 hi\r\n", b"what?\r\n"), "not a reply (phase 1): what?"),
        ((b"220 hi\r\n",), "the server closed the connection"),
    ],
)
def test_the_load_generator_takes_no_other_reply(replies: tuple[bytes, ...], why: str) -> None:
    with _server_that_says(*replies) as port:
        done = subprocess.run([compiled("blast"), str(port), "--messages", "1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert why in done.stderr
