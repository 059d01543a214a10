"""The regression gate: how many instructions the server's own code takes per message, counted by callgrind.

    make bench-check                        # compares with the committed baseline
    make bench-check AGAINST=HEAD~3         # compares with another revision, both counted now
    make bench-baseline                     # writes the baseline anew
    python -m loadtest.bench.instructions --only session stream

A count does not depend on how fast the machine is or on what else it does: two runs differ by less than 0.3 %. But it
belongs to one build of the interpreter, so the baseline has a row for each, and an interpreter that has none gets exit
code 2. Counted is what `loadtest.bench.drive` drives: no kernel, no network. Each scenario has its own process, for the
interpreter specialises its byte code for what it has seen, and would remember the scenario before.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from loadtest.bench import drive

BASELINE: Final = Path(__file__).with_name("instructions.json")
ROOT: Final = Path(__file__).parents[2]
TOLERANCE: Final = 0.03  # what a count may be over its baseline
EXIT_SLOWER: Final = 1
EXIT_NO_BASELINE: Final = 2
_MARKS: Final = Path(__file__).with_name("marks.c")
_NO_STRING_INSTRUCTIONS: Final = (
    "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824"
)

Counts = dict[str, int]
"""Instructions per message, by scenario."""


def build_of_interpreter() -> str:
    """The name under which this interpreter's counts are kept: whatever changes them without a change of ours."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    optimised = "pgo" if "--enable-optimizations" in options else "plain"
    lto = "-lto" if "--with-lto" in options else ""
    python = f"{platform.python_implementation().lower()}-{platform.python_version()}-{optimised}{lto}"
    return f"{python} {platform.machine()} uvloop-{version('uvloop')} stringzilla-{version('stringzilla')}"


# -- counting: the process that runs in valgrind ----------------------------------------------------------------------


def _count_here(name: str, library: str) -> None:
    """Drive a scenario between the two marks; prints how many messages that was."""
    marks = ctypes.PyDLL(library)
    drive.divert_access_log()
    scenario = drive.SCENARIOS[name]
    print(drive.run(scenario, scenario.messages, marks.begin_counting, marks.end_counting))


# -- counting: the process that starts it -----------------------------------------------------------------------------


def count(names: Sequence[str], source: Path = ROOT) -> Counts:
    """Count instructions per message with the code in `source`.

    Raises:
        RuntimeError: valgrind or the C compiler is missing, or the scenarios could not be driven.
    """
    valgrind, compiler = shutil.which("valgrind"), shutil.which("cc")
    if not valgrind or not compiler:
        raise RuntimeError("valgrind and cc are needed (apt-get install valgrind gcc)")
    with tempfile.TemporaryDirectory() as directory:
        library = f"{directory}/marks.so"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _MARKS], check=True)
        return {name: _count(name, source, f"{directory}/{name}", library, valgrind) for name in names}


def _count(name: str, source: Path, output: str, library: str, valgrind: str) -> int:
    callgrind = [valgrind, "--tool=callgrind", "--instr-atstart=no", "--vgdb=no", f"--callgrind-out-file={output}"]
    python = [sys.executable, "-m", "loadtest.bench.instructions", "--only", name, "--count-here", library]
    done = subprocess.run(
        [*_without_address_randomisation(), *callgrind, *python],
        cwd=source,
        env=_environment(source),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"valgrind ended with exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return round(_total(Path(f"{output}.1")) / int(done.stdout))


def _without_address_randomisation() -> list[str]:
    setarch = shutil.which("setarch")
    return [setarch, "--addr-no-randomize"] if setarch else []


def _environment(source: Path) -> dict[str, str]:
    """The modules are those in `source`, and what would change counts is fixed.

    That is the seed of hashes, and how the C library moves memory: valgrind counts each octet of a `rep movsb` as an
    instruction, though the processor takes 32 and more at a time.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    python = {"PYTHONPATH": str(source), "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}
    return {**kept, **python, "GLIBC_TUNABLES": _NO_STRING_INSTRUCTIONS}


def _total(path: Path) -> int:
    """The sum that callgrind wrote at the first mark that asked for it."""
    found = re.search(r"^(?:totals|summary): (\d+)", path.read_text(errors="replace"), re.MULTILINE)
    if not found:
        raise RuntimeError(f"callgrind has counted nothing: {path}")
    return int(found[1])


# -- comparing --------------------------------------------------------------------------------------------------------


def compare(counts: Mapping[str, int], baseline: Mapping[str, int], tolerance: float = TOLERANCE) -> list[str]:
    """Print each scenario's change; returns the scenarios that take more than they may."""
    over = []
    print(f"{'scenario':18s} {'baseline':>12s} {'now':>12s}  change   (instructions per message)")
    for name, now in counts.items():
        before = baseline.get(name)
        if before is None:
            print(f"{name:18s} {'-':>12s} {now:12,d}     new")
            continue
        change = now / before - 1
        slower = change > tolerance
        print(f"{name:18s} {before:12,d} {now:12,d} {change:+7.1%}{'   over the baseline' if slower else ''}")
        if slower:
            over.append(name)
    return over


def read_baseline(path: Path) -> dict[str, Counts]:
    """The committed counts, by build of the interpreter."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_baseline(counts: Counts, path: Path) -> None:
    """Keep these counts for this interpreter; those of others stay."""
    build, known = build_of_interpreter(), read_baseline(path)
    known[build] = {**known.get(build, {}), **counts}
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _unpack(revision: str, directory: str) -> Path:
    """The files of another revision; drivers and scenarios are those of this one."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", directory], input=archive, check=True)
    shutil.rmtree(f"{directory}/loadtest", ignore_errors=True)
    shutil.copytree(ROOT / "loadtest", f"{directory}/loadtest")
    return Path(directory)


def _count_revision(names: Sequence[str], revision: str) -> Counts:
    with tempfile.TemporaryDirectory() as directory:
        return count(names, _unpack(revision, directory))


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(drive.SCENARIOS), default=list(drive.SCENARIOS))
    parser.add_argument("--write", action="store_true", help="write the baseline anew")
    parser.add_argument("--against", metavar="REVISION", help="compare with this revision instead of the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="what a count may be over its baseline")
    parser.add_argument("--count-here", metavar="LIBRARY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count_here:
        _count_here(arguments.only[0], arguments.count_here)
        return 0
    print(build_of_interpreter())
    baseline = read_baseline(arguments.baseline).get(build_of_interpreter(), {})
    if arguments.write:
        counts = count(arguments.only)
        compare(counts, baseline)
        write_baseline(counts, arguments.baseline)
        return 0
    if arguments.against:
        baseline = _count_revision(arguments.only, arguments.against)
    if not baseline:
        print("no baseline for this interpreter: make bench-baseline, or compare with a revision: AGAINST=HEAD~1")
        return EXIT_NO_BASELINE
    return EXIT_SLOWER if compare(count(arguments.only), baseline, arguments.tolerance) else 0


if __name__ == "__main__":
    sys.exit(main())
