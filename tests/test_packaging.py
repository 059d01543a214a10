"""The package, its lock and its container image say the same thing, and name no machine they were made on."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = [path.read_text() for path in sorted((ROOT / "requirements").glob("*.txt"))]

# Registries, mirrors and the folders of one machine: installing must work wherever the clients are set up to look.
# Each pattern holds a [class], so that it does not match itself here.
FORBIDDEN = re.compile(
    r"py[p]i\.org|py[p]i\.python|python[h]osted|deb[.]debian|security[.]debian|npm[j]s"
    r"|-[-](extra-)?index-url|-[-]find-links|[P]IP_INDEX|[P]IP_FIND_LINKS|[U]V_(DEFAULT_)?INDEX|[f]ile:///"
    r"|[/]work/(main|shared)|[/]root/|[/]opt/(wheels|pypi)"
)


def canonical(requirement: str) -> str:
    """A requirement's project name, normalized as registries do (PEP 503)."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with its arguments on one line."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    split = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(instruction.upper(), arguments.strip()) for instruction, arguments in split]


def last(instruction: str) -> str:
    return [arguments for name, arguments in dockerfile() if name == instruction][-1]


def test_installed_version_is_the_one_in_pyproject() -> None:
    assert importlib.metadata.version("fastsmtp") == PYPROJECT["project"]["version"]


def test_lock_names_every_direct_dependency() -> None:
    groups = PYPROJECT["dependency-groups"].values()
    direct = {canonical(name) for names in [PYPROJECT["project"]["dependencies"], *groups] for name in names}
    locked = {canonical(line) for lock in LOCKS for line in lock.splitlines() if re.match(r"\w", line)}
    assert direct - locked == set()


def test_lock_pins_and_hashes_every_package() -> None:
    packages = [package for lock in LOCKS for package in re.split(r"(?m)^(?=\w)", lock)[1:]]
    assert packages
    assert [text for text in packages if "==" not in text or "--hash=sha256:" not in text] == []


def test_wheel_contains_the_package_only(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    version = PYPROJECT["project"]["version"]
    assert {name.split("/")[0] for name in names} == {"fastsmtp", f"fastsmtp-{version}.dist-info"}
    assert "fastsmtp/py.typed" in names


def test_container_user_is_numeric_and_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "CMD"])
def test_container_starts_without_a_shell(instruction: str) -> None:
    # A shell as PID 1 would not pass SIGTERM on.
    words = json.loads(last(instruction))
    assert words
    assert all(isinstance(word, str) for word in words)


def test_container_entrypoint_is_an_installed_script() -> None:
    assert json.loads(last("ENTRYPOINT"))[0] in PYPROJECT["project"]["scripts"]


def test_container_copies_only_files_that_exist() -> None:
    copied = [arguments for name, arguments in dockerfile() if name in {"COPY", "ADD"} and "--from=" not in arguments]
    sources = [source for arguments in copied for source in arguments.split()[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_container_build_sees_all_that_the_wheel_is_made_of() -> None:
    project = PYPROJECT["project"]
    needed = {"pyproject.toml", "fastsmtp", *project["license-files"]} | {project.get("readme", "pyproject.toml")}
    ignored, *lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert ignored == "*"
    assert needed - {line[1:] for line in lines if line[:1] == "!"} == set()


def test_no_file_names_a_registry_or_a_machine(require_program: Callable[[str], str]) -> None:
    # What git tracks, and what the next `git add` would.
    command = [require_program("git"), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
    if listed.returncode != 0:
        pytest.skip("not a git work tree")
    paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    assert ROOT / "pyproject.toml" in paths
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        if path.is_file()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if FORBIDDEN.search(line)
    ]
    assert found == []
