"""`fastsmtp user`: what the commands do, say and exit with."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastsmtp.protocol.credentials import Credentials
from fastsmtp.protocol.events import ACCEPT
from fastsmtp.user_commands import user
from fastsmtp.users import UsersFile, list_users


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users"


class _Terminal(io.BytesIO):
    """Standard input that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def _run(*arguments: str | Path, typed: bytes | _Terminal = b"") -> Result:
    return CliRunner().invoke(user, [str(argument) for argument in arguments], input=typed)


def _may_log_in(path: Path, name: str, password: str) -> bool:
    return UsersFile(path).check(None, Credentials("PLAIN", name, password=password)) is ACCEPT


def _said(result: Result, code: int, output: str) -> None:
    assert (result.exit_code, result.output) == (code, output)


@pytest.mark.parametrize("line", [b"secret\n", b"secret", b"secret\r\n", b"secret\nand more\n"])
def test_add_takes_the_first_line_of_standard_input(path: Path, line: bytes) -> None:
    _said(_run("add", path, "alice", typed=line), 0, f"alice: added in {path}\n")
    assert _may_log_in(path, "alice", "secret")


def test_add_keeps_spaces_and_other_alphabets(path: Path) -> None:
    _run("add", path, "alice", typed=" sécret \n".encode())
    assert _may_log_in(path, "alice", " sécret ")


def test_add_again_gives_a_new_password(path: Path) -> None:
    _run("add", path, "alice", typed=b"old\n")
    _said(_run("add", path, "alice", typed=b"new\n"), 0, f"alice: replaced in {path}\n")
    assert not _may_log_in(path, "alice", "old")
    assert _may_log_in(path, "alice", "new")


def test_add_asks_twice_at_a_terminal(path: Path) -> None:
    result = _run("add", path, "alice", typed=_Terminal(b"secret\nsecret\n"))
    assert result.exit_code == 0
    assert "Password: \nRepeat for confirmation: \n" in result.output
    assert "secret" not in result.output
    assert _may_log_in(path, "alice", "secret")


def test_add_asks_until_both_are_the_same(path: Path) -> None:
    result = _run("add", path, "alice", typed=_Terminal(b"secret\nsecert\nsecret\nsecret\n"))
    assert result.exit_code == 0
    assert "do not match" in result.output
    assert _may_log_in(path, "alice", "secret")


def test_add_given_up(path: Path) -> None:
    result = _run("add", path, "alice", typed=_Terminal(b"secret\n"))
    assert result.exit_code == 1
    assert result.output.endswith("Aborted!\n")
    assert not path.exists()


def test_add_scram(path: Path) -> None:
    _said(_run("add", "--scram", path, "alice", typed=b"secret\n"), 0, f"alice: added in {path}\n")
    assert list_users(path) == {"alice": ("argon2id", "SCRAM-SHA-256")}


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("alice", b"", "password: must not be empty"),
        ("alice", b"\n", "password: must not be empty"),
        ("alice", b"secret\xff\n", "password: must be UTF-8 without NUL"),
        ("al:ice", b"secret\n", "user name 'al:ice': must not hold a colon"),
    ],
)
def test_add_refused(path: Path, name: str, typed: bytes, message: str) -> None:
    _said(_run("add", path, name, typed=typed), 1, f"Error: {message}\n")
    assert not path.exists()


def test_remove(path: Path) -> None:
    for name in ("alice", "bob"):
        _run("add", path, name, typed=b"secret\n")
    _said(_run("remove", path, "alice"), 0, f"alice: removed from {path}\n")
    assert list(list_users(path)) == ["bob"]
    _said(
        _run("remove", path, "alice"),
        1,
        f"Error: alice: no such user in {path}; 'fastsmtp user list {path}' shows all\n",
    )


def test_list(path: Path) -> None:
    _run("add", path, "bob", typed=b"secret\n")
    _run("add", "--scram", path, "alice", typed=b"secret\n")
    _said(_run("list", path), 0, "bob    argon2id\nalice  argon2id SCRAM-SHA-256\n")
    _run("remove", path, "alice")
    _run("remove", path, "bob")
    _said(_run("list", path), 0, "")


@pytest.mark.parametrize("arguments", [("remove", "alice"), ("list",)])
def test_a_missing_file_can_be_made(path: Path, arguments: tuple[str, ...]) -> None:
    command, *name = arguments
    message = f"users file {path}: No such file or directory; make it with: fastsmtp user add {path} NAME"
    _said(_run(command, path, *name), 1, f"Error: {message}\n")


@pytest.mark.parametrize("command", ["add", "remove", "list"])
def test_a_malformed_file_is_named(path: Path, command: str) -> None:
    path.write_text("malformed\n")
    name = [] if command == "list" else ["alice"]
    _said(_run(command, path, *name, typed=b"x\n"), 1, f"Error: users file {path}, line 1: expected NAME:VALUE\n")


@pytest.mark.parametrize("arguments", [(), ("add",), ("add", "users"), ("remove", "users"), ("list",), ("rename",)])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert _run(*arguments).exit_code == 2


def test_a_directory_is_no_users_file(tmp_path: Path) -> None:
    assert _run("list", tmp_path).exit_code == 2


@pytest.mark.parametrize("command", ["add", "remove", "list"])
def test_help(command: str) -> None:
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert "FILE" in result.output
