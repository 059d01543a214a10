"""The C programs of the harness, compiled when they are wanted."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent
ROOT: Final = SOURCES.parents[1]
BUILD: Final = ROOT / "build" / "bench"


def compiled(name: str) -> str:
    """The path of a program of ours, compiled anew if its source is newer.

    Raises:
        RuntimeError: there is no C compiler.
    """
    source, program = SOURCES / f"{name}.c", BUILD / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc")
        if compiler is None:
            raise RuntimeError("cc is needed (apt-get install gcc libc6-dev)")
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
    return str(program)


def found(name: str) -> str | None:
    """The path of a program of the system; Debian keeps servers where not every PATH looks."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
