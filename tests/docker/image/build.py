"""Builds the Dockerfile without a Docker engine and without an image registry: ``python -m tests.docker.image.build
FOLDER``.

The base image comes from Debian's packages: debootstrap makes it, it gets Python and pip where the official image has
them, and the official image's name. buildah then runs the Dockerfile as it is. Needs root.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
BASE, IMAGE = "python:3.13-slim", "fastsmtp"
_SUITE = "trixie"  # of Debian; its Python is 3.13
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# Of pip's configuration, what holds in another file system, too.
_PIP_SETTINGS = {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout"}


class Buildah:
    """buildah with a storage of its own.

    Args:
        folder: where everything is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._global = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"), "--storage-driver", "vfs")

    def __call__(self, command: str, *arguments: str) -> str:
        """Run a command; returns what it prints."""
        done = subprocess.run(
            ["buildah", *self._global, command, *arguments], check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    def build(self, context: Path, tag: str, *arguments: str) -> None:
        """Build the Dockerfile of a folder; the bases must be there."""
        self(
            "bud",
            "--format=docker",
            "--isolation=chroot",
            "--network=host",
            "--pull-never",
            *arguments,
            "-t",
            tag,
            str(context),
        )

    def unpacked(self, tag: str) -> tuple[Path, dict[str, object]]:
        """The root file system of an image, and its configuration."""
        container = self("from", "--pull-never", f"localhost/{tag}")
        root = Path(self("mount", container))
        configuration = json.loads(self("inspect", "--type=image", f"localhost/{tag}"))["Docker"]["config"]
        assert isinstance(configuration, dict)
        return root, configuration


def make_base(buildah: Buildah, folder: Path) -> None:
    """Bootstrap Debian, put pip into /usr/local, and tag it as the official image is."""
    root = folder / "base"
    if not (root / "usr/local/bin/pip").exists():
        shutil.rmtree(root, ignore_errors=True)  # of a run that was broken off
        subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=python3,ca-certificates", _SUITE, str(root)], check=True
        )
        (root / "usr/local/bin/python").symlink_to("../../bin/python3")
        for marker in root.glob("usr/lib/python3.*/EXTERNALLY-MANAGED"):  # no such thing in the official image
            marker.unlink()
        wheels = root / "tmp"
        subprocess.run(
            [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "--dest", str(wheels), "pip"], check=True
        )
        (wheel,) = wheels.glob("pip-*.whl")
        install = ["python", f"/tmp/{wheel.name}/pip", "-q", "install", "--no-index", "--root-user-action=ignore"]
        path = {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin"}
        subprocess.run(["chroot", str(root), *install, f"/tmp/{wheel.name}"], check=True, env=path)
        wheel.unlink()
    container = buildah("from", "scratch")
    buildah("copy", "-q", container, str(root), "/")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
    buildah("commit", "-q", "--rm", container, BASE)


def pip_configuration() -> str:
    """This machine's, as far as it holds elsewhere: the build is to find packages where this machine does."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    lines = ["[global]", f"cert = {_CERTIFICATES}"]
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        setting, text = name.rpartition(".")[2], value.strip("'")
        if setting in _PIP_SETTINGS and "file:" not in text:
            lines.append(f"{setting} = {text}")
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Build base and image into a folder; unpack the image, and say where in FOLDER/image.json."""
    folder.mkdir(parents=True, exist_ok=True)
    buildah = Buildah(folder)
    make_base(buildah, folder)
    secret = folder / "pip.conf"
    secret.write_text(pip_configuration())
    buildah.build(
        ROOT, IMAGE, f"--secret=id=pip,src={secret}", f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro", "--layers=false"
    )
    secret.unlink()
    root, configuration = buildah.unpacked(IMAGE)
    (folder / "image.json").write_text(json.dumps({"root": str(root), "config": configuration}))


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("make image-test needs root: it bootstraps a file system, makes namespaces and cgroups")
    main(Path(sys.argv[1]).resolve())
