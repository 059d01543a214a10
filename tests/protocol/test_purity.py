"""What may import what: the protocol knows neither sockets nor time, and packages know each other one way only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import fastsmtp

PACKAGE: Final = Path(fastsmtp.__file__).parent
FORBIDDEN: Final = {"asyncio", "socket", "ssl", "threading", "time", "logging", "selectors", "select", "uvloop", "os"}

# Whom each part may know besides itself; a part that is not listed here fails the test, and gets its line.
MAY_IMPORT: Final[dict[str, set[str]]] = {
    "protocol": set(),
    "networks": set(),
    "settings": set(),
    "listen": {"settings"},
    "config": {"settings", "listen"},
    "handler": {"protocol"},
    "users": {"protocol"},
    "user_commands": {"users"},
    "control_commands": {"config"},
    "queue": {"protocol"},
    "store": {"protocol", "handler", "queue"},
    "server": {"protocol", "handler", "queue", "store", "config", "networks", "users"},
    "serving": {"server", "config"},
    "supervision": {"server"},
    "consumer": {"queue"},
    "queue_commands": {"queue", "config"},
    "consume_commands": {"queue", "queue_commands", "consumer", "server", "supervision"},
    "cli": {"server", "config", "user_commands", "control_commands", "queue_commands", "consume_commands"},
    "__main__": {"cli"},
    "__init__": {"protocol", "handler", "serving"},
}
MODULES: Final = sorted(PACKAGE.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The absolute name, in parts, of every module that one names; also within functions and for type checkers."""
    package = ("fastsmtp", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            yield from ((*module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = _part(path)
    known = {name[1] for name in _imports(path) if name[0] == "fastsmtp" and len(name) > 1}
    assert known <= MAY_IMPORT[part] | {part}


@pytest.mark.parametrize("path", [path for path in MODULES if _part(path) == "protocol"], ids=lambda path: path.name)
def test_the_protocol_is_pure(path: Path) -> None:
    assert {name[0] for name in _imports(path)} & FORBIDDEN == set()


def test_the_order_has_no_circle() -> None:
    order = [
        "protocol",
        "networks",
        "settings",
        "listen",
        "config",
        "handler",
        "users",
        "user_commands",
        "queue",
        "store",
    ]
    order += ["control_commands"]
    order += ["server", "serving", "supervision", "consumer", "queue_commands", "consume_commands", "cli", "__main__"]
    for position, part in enumerate(order):
        assert MAY_IMPORT[part] <= set(order[:position])


def test_nothing_is_imported_by_name_at_run_time() -> None:
    """`import_module` would get past this test; only the user's application is found by its name."""
    users = {path.name for path in MODULES if "import_module(" in path.read_text("utf-8")}
    assert users <= {"application.py"}


def test_relative_imports_are_seen(tmp_path: Path) -> None:
    assert ("fastsmtp", "protocol", "lines", "Fault") in set(_imports(PACKAGE / "protocol" / "commands.py"))
    assert ("fastsmtp", "store", "Store") in set(_imports(PACKAGE / "server" / "intake.py"))
