"""Runs a target under atheris, which watches what code an input reaches, and tries variations of those that reach more.

    python -m tests.fuzz.session -max_total_time=60 tests/fuzz/corpus/session

Arguments are libFuzzer's. atheris is no dependency of the project: `make fuzz` installs it into a place of its own.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Final

FuzzOne = Callable[[bytes], None]

_WORDS: Final = Path(__file__).parent / "words.dict"
_MAX_OCTETS: Final = 1000  # of an input; what matters can be said in that many
_WATCHED: Final = "fastsmtp.protocol"


def run(fuzz_one: FuzzOne) -> None:
    """Fuzz until an input fails, or the arguments of the command line say that it is enough. Does not return."""
    import atheris  # type: ignore[import-untyped]  # has no annotations

    for function in gc.get_objects():
        if isinstance(function, FunctionType) and (function.__module__ or "").startswith(_WATCHED):
            atheris.instrument_func(function)
    atheris.Setup([_command(), f"-dict={_WORDS}", f"-max_len={_MAX_OCTETS}", "-timeout=10", *sys.argv[1:]], fuzz_one)
    atheris.Fuzz()


def _command() -> str:
    """What runs this target: -merge=1 and -minimize_crash=1 have a shell start it again."""
    main = sys.modules["__main__"].__spec__
    return f"{sys.executable} -m {main.name}" if main else sys.argv[0]
