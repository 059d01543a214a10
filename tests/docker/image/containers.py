"""Containers of an unpacked image, run by runc as an engine would: read-only root, no capabilities, a CPU quota."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PERIOD = 100_000  # microseconds, of the CPU quota


@dataclass(frozen=True)
class Image:
    """An unpacked image.

    Args:
        root: its file system.
        config: what its Dockerfile says, in Docker's words.
    """

    root: Path
    config: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Image:
        """What `build` has left."""
        found = json.loads((folder / "image.json").read_text())
        return cls(Path(found["root"]), found["config"])


class Container:
    """A container that runs.

    Args:
        name: its own among all containers of the test.
        folder: for runc's state, the bundle and the log.
        process: runc, which ends with the container and with its exit code.
    """

    def __init__(self, name: str, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.name, self.process = name, process
        self._folder = folder

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as ``docker exec`` does."""
        return subprocess.run(
            [*self._runc(), "exec", self.name, *command], capture_output=True, text=True, timeout=30, check=False
        )

    def signal(self, name: str) -> None:
        """Send a signal to its process 1."""
        subprocess.run([*self._runc(), "kill", self.name, name], check=True)

    @property
    def log(self) -> str:
        """What it wrote: access log and log."""
        return (self._folder / f"{self.name}.log").read_text()

    def remove(self) -> None:
        subprocess.run([*self._runc(), "delete", "--force", self.name], check=False, capture_output=True)
        self.process.wait(10)

    def _runc(self) -> Sequence[str]:
        return ("runc", "--root", str(self._folder / "runc"))


@contextmanager
def running(
    image: Image,
    name: str,
    folder: Path,
    network: Path,
    *arguments: str,
    cpus: float = 1.0,
    environment: Sequence[str] = (),
    mounts: Sequence[tuple[Path, str]] = (),
) -> Iterator[Container]:
    """A container that was started.

    Args:
        image: whose.
        name: of the container and of its cgroups.
        folder: for its files.
        network: the namespace's file.
        arguments: instead of the image's CMD.
        cpus: the quota.
        environment: more variables.
        mounts: what is bound to which path; a volume has to belong to the image's user.
    """
    bundle = folder / name
    bundle.mkdir()
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    path = bundle / "config.json"
    spec = json.loads(path.read_text())
    _adapt(spec, image, network, arguments, cpus, environment, mounts)
    spec["linux"]["cgroupsPath"] = f"/fastsmtp-image-test-{os.getpid()}-{name}"
    path.write_text(json.dumps(spec))
    command = ["runc", "--root", str(folder / "runc"), "run", "--bundle", str(bundle), name]
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    container = Container(name, folder, process)
    try:
        yield container
    finally:
        container.remove()


def _adapt(
    spec: dict[str, Any],
    image: Image,
    network: Path,
    arguments: Sequence[str],
    cpus: float,
    environment: Sequence[str],
    mounts: Sequence[tuple[Path, str]],
) -> None:
    """Put the image's configuration, and what compose.yaml says of every server, into runc's template."""
    config, process = image.config, spec["process"]
    user, _, group = config["User"].partition(":")
    process["user"] = {"uid": int(user), "gid": int(group)}
    process["terminal"] = False
    process["args"] = [*config["Entrypoint"], *(arguments or config["Cmd"])]
    process["env"] = [*config["Env"], *environment]
    process["cwd"] = config["WorkingDir"]
    process["capabilities"] = {kind: [] for kind in process["capabilities"]}
    process["noNewPrivileges"] = True
    hard = min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # compose.yaml's, if this machine lets us
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": hard, "soft": 1024}]
    spec["root"] = {"path": str(image.root), "readonly": True}
    spec["mounts"] += [
        {
            "destination": "/tmp",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777", "size=256m"],
        },
        *({"destination": to, "type": "bind", "source": str(at), "options": ["rbind", "rw"]} for at, to in mounts),
    ]
    for each in spec["linux"]["namespaces"]:
        if each["type"] == "network":
            each["path"] = str(network)
    spec["linux"]["resources"] = {"cpu": {"quota": int(cpus * _PERIOD), "period": _PERIOD}}
