"""Where a worker's time goes: perf says in whose code (kernel, interpreter, libraries), py-spy in which function.

Both look at the worker from outside while the load generator works; the figures of the tables are not taken meanwhile.
"""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from loadtest.bench.peers import Peer, Running, fastsmtp
from loadtest.bench.programs import compiled, found
from loadtest.bench.throughput import SCENARIOS

PROFILED: Final = {
    "session": ("session", "AsyncHooks"),
    "session, hooks in threads": ("session", "ThreadHooks"),
    "stream": ("stream", "AsyncHooks"),
    "stream, hooks in threads": ("stream", "ThreadHooks"),
    "pipelined": ("pipelined", "AsyncHooks"),
    "recipients": ("recipients", "AsyncHooks"),
    "bdat": ("bdat", "AsyncHooks"),
    "large": ("large", "AsyncHooks"),
}
_SECONDS: Final = 4
_SAMPLES_PER_SECOND: Final = 499
_ENDLESS: Final = "100000000"  # messages; the load generator is stopped when we have seen enough
_MOST: Final = 14  # functions that are kept
_OWNERS: Final = [
    (r"kernel|\[unknown\]|vdso", "kernel"),
    (r"libpython|^python", "interpreter"),
    (r"^loop\.cpython", "uvloop"),
    (r"stringzilla", "stringzilla"),
    (r"libc|libpthread|ld-linux", "C library"),
]

Profile = dict[str, dict[str, float]]
"""`owners` and `functions`: shares of the worker's CPU time, largest first."""


def measure_all(python: str, py_spy: str) -> dict[str, Profile]:
    """A profile for each of `PROFILED`."""
    return {name: _measure(python, py_spy, *which) for name, which in PROFILED.items()}


def _measure(python: str, py_spy: str, scenario: str, handler: str) -> Profile:
    with Running(Peer("fastsmtp", fastsmtp(python, f"loadtest.bench_app:{handler}"), [], "")) as server:
        load = [compiled("blast"), str(server.port), "--messages", _ENDLESS, *SCENARIOS[scenario].options.split()]
        client = subprocess.Popen(load, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            (worker,) = server.workers
            with tempfile.TemporaryDirectory() as directory:
                return {
                    "owners": _owners(worker, Path(directory)),
                    "functions": _functions(worker, py_spy, Path(directory)),
                }
        finally:
            client.send_signal(signal.SIGKILL)
            client.wait()


def _owners(pid: int, directory: Path) -> dict[str, float]:
    """Whose code runs; empty without perf."""
    perf = found("perf")
    if perf is None:
        return {}
    record = [perf, "record", "-q", "-e", "cpu-clock", "-F", str(_SAMPLES_PER_SECOND), "-p", str(pid)]
    output = str(directory / "perf.data")
    _run([*record, "-o", output, "--", "sleep", str(_SECONDS)])
    report = _run([perf, "report", "-i", output, "--stdio", "-q", "--sort", "dso"])
    shares: defaultdict[str, float] = defaultdict(float)
    for share, binary in re.findall(r"^\s*([\d.]+)%\s+(\S+)", report, re.MULTILINE):
        shares[_owner(binary)] += float(share) / 100
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _owner(binary: str) -> str:
    return next((owner for pattern, owner in _OWNERS if re.search(pattern, binary)), "other libraries")


def _functions(pid: int, py_spy: str, directory: Path) -> dict[str, float]:
    """In which functions the interpreter is, without what they call in Python; what they call in C is in it."""
    output = directory / "raw"
    record = [py_spy, "record", "--pid", str(pid), "--duration", str(_SECONDS), "--rate", str(_SAMPLES_PER_SECOND)]
    _run([*record, "--gil", "--function", "--format", "raw", "--output", str(output)])
    samples: Counter[str] = Counter()
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        samples[_short(stack.split(";")[-1])] += int(count)
    total = samples.total() or 1
    return {name: count / total for name, count in samples.most_common(_MOST)}


def _short(frame: str) -> str:
    """`Turn.finish (turn.py)` of what py-spy names with the line, and maybe the whole path."""
    return re.sub(r" \((?:.*/)?([^/:]+):\d+\)$", r" (\1)", frame)


def _run(command: Sequence[str]) -> str:
    done: Any = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with exit code {done.returncode}: {done.stderr[-600:]}")
    text: str = done.stdout
    return text
