"""The documents say what the code has: settings, files, hooks, names; their links and their Python work."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastsmtp
from docs.make_settings import PAGE, page
from fastsmtp.config import SETTINGS
from fastsmtp.protocol.events import HOOKS
from fastsmtp.server import master

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docker/README.md",
]
PYTHON = [
    pytest.param(code, id=f"{document.relative_to(ROOT)}-{number}")
    for document in DOCUMENTS
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL))
]
HANDLERS = (ROOT / "docs" / "handlers.md").read_text()


def anchors(text: str) -> set[str]:
    """What the headings of a document may be linked to as."""
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run make settings"


def test_settings_page_names_every_setting() -> None:
    assert [name for name, about in SETTINGS.items() if f"| `{name}`<br>`{about.flag}" not in page()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not link.startswith("https://") and (
            not target.exists() or (anchor and anchor not in anchors(target.read_text()))
        ):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_documents_runs(code: str) -> None:
    # Hooks, fixtures and tests are only defined here; test_examples.py and the test below run them.
    exec(compile(code, "<document>", "exec"), {"__name__": "document"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_the_package_exist(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(r"\bfastsmtp\.(?!py\b|toml\b|sqlite\b)([A-Za-z_]+)", text))
    named |= {name.strip() for names in re.findall(r"from fastsmtp import (.+)", text) for name in names.split(",")}
    assert [name for name in named if not hasattr(fastsmtp, name)] == []


def test_settings_that_the_documents_name_exist() -> None:
    flags = {about.flag for about in SETTINGS.values()} | {"--config", "--help", "--no-preload"}
    for document in DOCUMENTS:
        text = document.read_text()
        assert set(re.findall(r"fastsmtp serve[^\n`]*?(--[a-z-]+)", text)) <= flags
        assert set(re.findall(r"FASTSMTP_[A-Z0-9_]+", text)) <= {
            *(about.environment for about in SETTINGS.values()),
            "FASTSMTP_",
            "FASTSMTP_CONFIG",
        }


def test_every_hook_is_described_with_its_arguments() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \|([^|]*)\|", HANDLERS)
    described = {name: re.findall(r"`(\w+): \w+`", arguments) for name, arguments in rows if name in HOOKS}
    assert described == {
        name: list(inspect.signature(getattr(fastsmtp.Handler, name)).parameters)[2:] for name in HOOKS
    }


@pytest.mark.parametrize("name", fastsmtp.__all__)
def test_every_public_name_is_described(name: str) -> None:
    assert re.search(rf"\b{name}\b", HANDLERS) or re.search(rf"\b{name}\b", (ROOT / "README.md").read_text())


@pytest.mark.parametrize("described", [fastsmtp.Session, fastsmtp.Message, fastsmtp.Sender])
def test_public_attributes_are_described(described: type) -> None:
    driver = {"service", "closing", "deciders", "driver", "finished", "output", "pending", "reader", "said_goodbye"}
    driver |= {"stopped", "in_command"}
    properties = {name for name, value in inspect.getmembers(described) if isinstance(value, property)}
    slots = {slot for each in described.__mro__ for slot in getattr(each, "__slots__", ())}
    public = {name for name in slots | properties if not name.startswith("_")} - driver
    assert public
    assert [name for name in sorted(public) if not re.search(rf"`(?:\w+\.)?{name}`", HANDLERS)] == []


def test_every_file_is_described() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "fastsmtp"
    files = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    described = set(re.findall(r"(?m)^\| `([\w/]+\.py)` \|", text))
    assert described == {file for file in files if file == "__init__.py" or not file.endswith("/__init__.py")}


def test_exit_codes_are_described() -> None:
    codes = {value for name, value in vars(master).items() if name.startswith("EXIT_")}
    usage = 2  # click's, for a wrong command line; ours for a wrong setting
    assert {int(code) for code in re.findall(r"(?m)^\| (\d) \|", (ROOT / "README.md").read_text())} == codes | {usage}


def test_the_test_of_a_handler_works(tmp_path: Path) -> None:
    (handler,) = re.findall(r"```python\n(# inbox\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (test,) = re.findall(r"```python\n([^`]*def test_[^`]*)```", HANDLERS)
    (tmp_path / "inbox.py").write_text(handler)
    (tmp_path / "test_inbox.py").write_text(test)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
