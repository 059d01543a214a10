"""The parent of consumers and deliverers, in a process of its own: what must not end it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BEGINNING = """
import errno, logging, os, select, signal, sys
from pathlib import Path
from fastsmtp.supervision import Supervisor

logging.basicConfig(format="%(message)s")

def stop_all(ready):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ready()
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()
"""
DEATH_BESIDE_ITS_PIPE = """
def be(ready):
    ready()
    if Path("second").exists():
        stop_all(lambda: None)
    Path("second").touch()
    return 0

def late(*arguments, original=select.select):
    if not Path("second").exists():  # the bell has rung and the pipe has ended when we look
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    return original(*arguments)

select.select = late
sys.exit(Supervisor(1, be, 5.0).run())
"""
NO_ROOM = """
def failing(original, number):
    calls = iter(range(1, 100))
    def call():
        if next(calls) == number:
            raise OSError(errno.EAGAIN, "no room")
        return original()
    return call

before = os.listdir("/proc/self/fd")
os.NAME = failing(os.NAME, NUMBER)
code = Supervisor(1, stop_all, 5.0).run()
assert os.listdir("/proc/self/fd") == before, "something is left open"
sys.exit(code)
"""

ORPHAN = """
def be(ready):
    Path("ran").touch()
    return 0

def fork(original=os.fork):
    pid = original()
    if pid:
        os._exit(0)  # before the child can ask to hear of our death
    while os.getppid() == parent:
        pass
    return pid

parent = os.getpid()
os.fork = fork
Supervisor(1, be, 5.0).run()
"""


def play(directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGINNING + script], cwd=directory, capture_output=True, text=True, timeout=30
    )


def test_a_death_heard_before_the_end_of_its_pipe_does_not_end_the_parent(tmp_path: Path) -> None:
    done = play(tmp_path, DEATH_BESIDE_ITS_PIPE)
    assert "the next one starts now" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(("name", "number"), [("fork", 1), ("pipe", 2)])
def test_no_room_for_a_process_is_tried_again(tmp_path: Path, name: str, number: int) -> None:
    done = play(tmp_path, NO_ROOM.replace("NAME", name).replace("NUMBER", str(number)))
    assert "no process can be started (no room); next attempt in 1 s" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


def test_a_process_whose_parent_died_at_once_ends_too(tmp_path: Path) -> None:
    done = play(tmp_path, ORPHAN)  # returns when nobody holds its standard output any more
    assert done.stderr == ""
    assert not (tmp_path / "ran").exists()
