"""What figures depend on: the machine, the kernel, the interpreter and how it was built, the libraries' versions."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

_ASK = """
import json, platform, sysconfig
from importlib.metadata import version
options = sysconfig.get_config_var("CONFIG_ARGS") or ""
print(json.dumps({
    "python": platform.python_implementation() + " " + platform.python_version(),
    "pgo": "--enable-optimizations" in options,
    "lto": "--with-lto" in options,
    "compiler": platform.python_compiler(),
    "fastsmtp": version("fastsmtp"), "uvloop": version("uvloop"), "stringzilla": version("stringzilla"),
}))
"""


def of_interpreter(python: str) -> dict[str, str | bool]:
    """What an interpreter says of itself, and of the libraries that it has."""
    done = subprocess.run([python, "-c", _ASK], check=True, capture_output=True, text=True)
    facts: dict[str, str | bool] = json.loads(done.stdout)
    return facts


def of_machine() -> dict[str, str | int | float]:
    """The processor, the memory, the kernel, and how busy it all is with other things."""
    return {
        "processor": _field("/proc/cpuinfo", "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"


def described(machine: dict[str, str | int | float], interpreter: dict[str, str | bool]) -> str:
    """All of it in a few lines."""
    flags = {"pgo": "--enable-optimizations", "lto": "--with-lto"}
    configured = " ".join(flag for name, flag in flags.items() if interpreter[name]) or "no optimisations named"
    return (
        f"{machine['cpus']} x {machine['processor']}, {machine['memory']}, {machine['kernel']};"
        f" load {machine['load']} before the run, {machine['date']}\n"
        f"{interpreter['python']} ({interpreter['compiler']}; configured with {configured}),"
        f" uvloop {interpreter['uvloop']}, stringzilla {interpreter['stringzilla']}"
    )
