"""The users file: who is let in, how the file is followed, and how it is changed."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error

from fastsmtp import users
from fastsmtp.protocol.credentials import Credentials, ScramKey
from fastsmtp.protocol.events import ACCEPT, REJECT, Verdict
from fastsmtp.protocol.sasl import check_mechanisms
from fastsmtp.protocol.scram import key_of
from fastsmtp.users import UsersFile, UsersFileError, list_users, remove_user, set_password

if TYPE_CHECKING:
    from collections.abc import Callable

# As cheap as argon2 gets: these tests are not about its strength.
CHEAP: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ALICE: Final = CHEAP.hash("wonderland")
BOB: Final = CHEAP.hash("builder")
# Of the password "pencil" and the salt of RFC 7677 3.
KEY: Final = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
SESSION: Final = object()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_text(f"# who may send\n\nalice:{ALICE}\nbob:{BOB}\nbob:{KEY}\n")
    return file


def _check(file: UsersFile, name: str, password: str, mechanism: str = "PLAIN") -> Verdict | ScramKey:
    return file.check(SESSION, Credentials(mechanism, name, password=password))


def _error(call: Callable[[], object]) -> str:
    with pytest.raises(UsersFileError) as caught:
        call()
    return str(caught.value)


# -- who is let in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_passwords(path: Path, mechanism: str) -> None:
    file = UsersFile(path)
    assert _check(file, "alice", "wonderland", mechanism) is ACCEPT
    assert _check(file, "bob", "builder", mechanism) is ACCEPT
    for name, password in [("alice", "builder"), ("alice", ""), ("Alice", "wonderland"), ("carol", "wonderland")]:
        assert _check(file, name, password, mechanism) is REJECT


def test_nobody_acts_as_somebody_else(path: Path) -> None:
    credentials = Credentials("PLAIN", "alice", authzid="bob", password="wonderland")
    assert UsersFile(path).check(SESSION, credentials) is REJECT


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
def test_keys(path: Path, mechanism: str) -> None:
    file = UsersFile(path)
    salt = bytes.fromhex("5b6d99689d12358eeca04b141236fa81")
    assert file.check(SESSION, Credentials(mechanism, "bob")) == ScramKey.of("pencil", salt)
    assert file.check(SESSION, Credentials(mechanism, "alice")) is REJECT  # has a password, but no key
    assert file.check(SESSION, Credentials(mechanism, "carol")) is REJECT
    assert file.check(SESSION, Credentials(mechanism, "bob", authzid="alice")) is REJECT


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "XOAUTH2", "OAUTHBEARER"])
def test_other_mechanisms_are_refused(path: Path, mechanism: str) -> None:
    credentials = Credentials(mechanism, "alice", token="wonderland", challenge=b"c", digest="d")
    assert UsersFile(path).check(SESSION, credentials) is REJECT


def test_a_key_is_no_password(path: Path) -> None:
    path.write_text(f"alice:{ALICE}\nbob:{KEY}\n")
    file = UsersFile(path)
    assert _check(file, "bob", "pencil") is REJECT
    assert _check(file, "bob", "wonderland") is REJECT  # alice's, against which time is spent


class _Counting:
    """Verifies and remembers against what."""

    def __init__(self) -> None:
        self.verified: list[str] = []

    def verify(self, encoded: str, password: str) -> bool:
        self.verified.append(encoded)
        return CHEAP.verify(encoded, password)


@pytest.mark.parametrize(
    ("name", "password", "encoded"), [("bob", "x", BOB), ("bob", "builder", BOB), ("carol", "x", ALICE)]
)
def test_unknown_users_take_a_hash_as_well(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, password: str, encoded: str
) -> None:
    counting = _Counting()
    monkeypatch.setattr(users, "_hasher", lambda: counting)
    _check(UsersFile(path), name, password)
    assert counting.verified == [encoded]


def test_the_decoys_password_lets_nobody_in(path: Path) -> None:
    assert _check(UsersFile(path), "carol", "wonderland") is REJECT


def test_a_file_without_users_lets_nobody_in(path: Path) -> None:
    path.write_text("# nobody yet\n")
    assert _check(UsersFile(path), "alice", "wonderland") is REJECT


def test_a_damaged_hash_is_an_error_not_a_verdict(path: Path) -> None:
    path.write_text("alice:$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA\n")  # well-formed, but the salt is too short
    with pytest.raises(Argon2Error):
        _check(UsersFile(path), "alice", "wonderland")


def test_mechanisms(path: Path) -> None:
    file = UsersFile(path)
    assert file.mechanisms == ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")
    check_mechanisms(file.mechanisms)
    path.write_text(f"alice:{ALICE}\n")
    assert file.mechanisms == UsersFile(path).mechanisms == ("PLAIN", "LOGIN")


# -- following the file ----------------------------------------------------------------------------------------------


def test_changes_are_followed(path: Path) -> None:
    file = UsersFile(path)
    set_password(path, "carol", "secret")
    assert _check(file, "carol", "secret") is ACCEPT
    remove_user(path, "carol")
    assert _check(file, "carol", "secret") is REJECT


def test_another_file_of_same_size_and_time_is_noticed(path: Path) -> None:
    file = UsersFile(path)
    other = path.with_name("other")
    other.write_text(path.read_text().replace("alice", "carol"))
    before = path.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)
    assert _check(file, "carol", "wonderland") is ACCEPT
    assert _check(file, "alice", "wonderland") is REJECT


def test_an_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = UsersFile(path)
    monkeypatch.delattr(users, "_load")
    assert _check(file, "alice", "wonderland") is ACCEPT


def test_a_file_that_has_gone_is_kept_in_mind(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = UsersFile(path)
    away = path.rename(path.with_name("away"))
    for _ in range(3):
        assert _check(file, "alice", "wonderland") is ACCEPT
    (record,) = caplog.records  # said once
    assert record.levelno == logging.ERROR
    assert str(path) in record.getMessage()
    away.rename(path)
    set_password(path, "alice", "another")
    assert _check(file, "alice", "another") is ACCEPT
    assert len(caplog.records) == 1


def test_a_file_that_became_malformed_is_kept_in_mind(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = UsersFile(path)
    for text in ("malformed\n", "malformed in another way\n"):
        path.write_text(text)
        assert _check(file, "alice", "wonderland") is ACCEPT
        assert _check(file, "alice", "x") is REJECT
    assert [record.getMessage().count(f"{path}, line 1: ") for record in caplog.records] == [1, 1]
    assert file.mechanisms == ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")


def test_the_path_survives_a_change_of_directory(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    file = UsersFile(Path(path.name))
    monkeypatch.chdir("/")
    set_password(path, "alice", "another")
    assert _check(file, "alice", "another") is ACCEPT


def test_threads_share_it_while_it_changes(path: Path) -> None:
    file = UsersFile(path)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(_check, file, "alice", "wonderland") for _ in range(200)]
        for number in range(10):
            set_password(path, f"user{number}", "x")
        assert {answer.result() for answer in answers} == {ACCEPT}
    assert _check(file, "user9", "x") is ACCEPT


# -- changing the file -----------------------------------------------------------------------------------------------


def test_a_user_is_added_and_listed(path: Path) -> None:
    before = path.read_text()
    assert set_password(path, "carol d", "secret", scram=True) is False
    assert path.read_text().startswith(before)
    assert list_users(path) == {
        "alice": ("argon2id",),
        "bob": ("argon2id", "SCRAM-SHA-256"),
        "carol d": ("argon2id", "SCRAM-SHA-256"),
    }
    file = UsersFile(path)
    assert _check(file, "carol d", "secret") is ACCEPT
    key = file.check(SESSION, Credentials("SCRAM-SHA-256", "carol d"))
    assert isinstance(key, ScramKey)
    assert key == ScramKey.of("secret", key.salt)


def test_a_user_is_replaced_where_it_stands(path: Path) -> None:
    path.write_text(f"# first\nbob:{BOB}\n\n  \n#bob:{ALICE}\nalice:{ALICE}\nbob:{KEY}\n# last")
    assert set_password(path, "bob", "secret") is True
    first, bob, *rest = path.read_text().split("\n")
    assert first == "# first"
    assert bob.startswith("bob:$argon2id$")
    assert rest == ["", "  ", f"#bob:{ALICE}", f"alice:{ALICE}", "# last", ""]


def test_no_old_password_stays_valid(path: Path) -> None:
    set_password(path, "bob", "secret")  # without --scram: the old key must not stay
    file = UsersFile(path)
    assert file.check(SESSION, Credentials("SCRAM-SHA-256", "bob")) is REJECT
    assert _check(file, "bob", "builder") is REJECT
    assert _check(file, "bob", "secret") is ACCEPT


def test_a_user_is_removed_with_everything(path: Path) -> None:
    assert remove_user(path, "bob") is True
    assert path.read_text() == f"# who may send\n\nalice:{ALICE}\n"
    before = path.stat().st_ino
    assert remove_user(path, "bob") is False
    assert path.stat().st_ino == before


def test_scram_keys_are_made_of_the_prepared_password(path: Path) -> None:
    """RFC 5802 2.2: clients normalize a password with SASLprep before they prove that they know it."""
    set_password(path, "carol", "\N{ANGSTROM SIGN}\N{NO-BREAK SPACE}x", scram=True)
    key = UsersFile(path).check(SESSION, Credentials("SCRAM-SHA-256", "carol"))
    assert isinstance(key, ScramKey)
    assert key == key_of("Å x", key.salt)
    with pytest.raises(ValueError, match="SASLprep"):
        ScramKey.of("Å x", key.salt)


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        set_password(tmp_path / "users", "alice", "secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "users").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["users"]


def test_mode_of_an_old_file_is_kept(path: Path) -> None:
    path.chmod(0o640)
    set_password(path, "alice", "secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_owner_of_an_old_file_is_kept(path: Path) -> None:
    os.chown(path, 12345, 54321)
    set_password(path, "alice", "secret")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_a_symbolic_link_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path.name)
    set_password(link, "carol", "secret")
    assert link.is_symlink()
    assert "carol" in list_users(path)


def test_a_change_that_fails_leaves_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    assert _error(lambda: set_password(path, "alice", "x")) == f"users file {path}: No space left on device"
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_file_and_name_are_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    set_password(path, "alice", "x")
    assert synced == [False, True]


def test_writers_wait_for_each_other(path: Path) -> None:
    names = [f"user{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:  # each opens the file for itself, as processes would
        list(pool.map(lambda name: set_password(path, name, "x"), names))
    assert set(list_users(path)) == {"alice", "bob", *names}


def test_a_malformed_file_is_not_changed(path: Path) -> None:
    path.write_text("malformed\n")
    assert "line 1: " in _error(lambda: set_password(path, "alice", "x"))
    assert "line 1: " in _error(lambda: remove_user(path, "alice"))
    assert path.read_text() == "malformed\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "must not be empty"),
        ("a:b", "must not hold a colon"),
        ("#a", "must not begin with #"),
        (" a", "must not begin or end with a space"),
        ("a\u00a0", "must not begin or end with a space"),
        ("a\nb", "without control or invisible"),
        ("a\u202eb", "without control or invisible"),
        ("a\udcffb", "must be UTF-8"),
    ],
)
def test_names_that_do_not_do(path: Path, name: str, reason: str) -> None:
    before = path.read_bytes()
    message = _error(lambda: set_password(path, name, "secret"))
    assert message.startswith(f"user name {name!r}: ")
    assert reason in message
    assert path.read_bytes() == before


@pytest.mark.parametrize("password", ["", "secret\0", "secret\udcff"])
def test_passwords_that_do_not_do(path: Path, password: str) -> None:
    assert "secret" not in _error(lambda: set_password(path, "alice", password))


@pytest.mark.parametrize(
    ("name", "password"), [("carol", "secret\u0007"), ("\ufb01sh", "secret"), ("a\U0001f600", "x")]
)
def test_what_scram_clients_would_change(path: Path, name: str, password: str) -> None:
    message = _error(lambda: set_password(path, name, password, scram=True))
    assert "SASLprep" in message
    assert "secret" not in message
    assert name not in list_users(path)
    assert set_password(path, name, password) is False


# -- reading the file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("dave", "expected NAME:VALUE"),
        ("dave:", "expected $argon2id$"),
        ("dave:secret", "expected $argon2id$"),
        ("dave:$2b$12$abcdefghijklmnopqrstuv", "expected $argon2id$"),
        (f"dave:{ALICE}x y", "expected $argon2id$"),
        (f"dave: {ALICE}", "expected $argon2id$"),
        (f":{ALICE}", "the name must not be empty"),
        (f" dave:{ALICE}", "the name must not begin or end with a space"),
        (f"\ufeffdave:{ALICE}", "the name must be UTF-8 without control or invisible"),
        (f"alice:{ALICE}", "the user is on line 3 already"),
        (f"bob:{KEY}", "the user is on line 5 already"),
        (f"dave:{KEY.replace('SHA-256', 'SHA-1')}", "expected $argon2id$"),
        (f"dave:{KEY.replace('4096', '04096')}", "expected $argon2id$"),
        (f"dave:{KEY.replace('4096', '409')}", "there must be 4096"),
        (f"dave:{KEY.replace('4096', '99999999')}", "to 10000000 iterations"),
        (f"dave:{KEY.replace('W22ZaJ0SNY7soEsUEjb6gQ==', 'W22Z')}", "12 octets"),
        (f"dave:{KEY.replace('W22Z', 'W2Z')}", "not in base64"),
        (f"dave:{KEY.replace('WG5d', '')}", "32 octets"),
    ],
)
def test_malformed_lines_are_named(path: Path, line: str, reason: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    message = _error(lambda: UsersFile(path))
    assert message.startswith(f"users file {path}, line 6: ")
    assert reason in message
    assert "secret" not in message
    assert _error(lambda: list_users(path)) == message


def test_a_line_that_is_not_utf8_is_named(path: Path) -> None:
    path.write_bytes(b"# caf\xe9\n")
    assert _error(lambda: UsersFile(path)) == f"users file {path}, line 1: not UTF-8"


def test_lines_may_end_in_windows_fashion(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert _check(UsersFile(path), "alice", "wonderland") is ACCEPT


def test_a_missing_file_can_be_made(tmp_path: Path) -> None:
    path = tmp_path / "users"
    hint = f"users file {path}: No such file or directory; make it with: fastsmtp user add {path} NAME"
    for call in (lambda: UsersFile(path), lambda: list_users(path), lambda: remove_user(path, "alice")):
        assert _error(call) == hint
    assert not path.exists()
    path = tmp_path / "missing" / "users"
    assert _error(lambda: set_password(path, "alice", "x")) == f"users file {path}: No such file or directory"


def test_a_directory_is_no_users_file(tmp_path: Path) -> None:
    assert _error(lambda: UsersFile(tmp_path)) == f"users file {tmp_path}: Is a directory"


def test_secrets_are_not_shown(path: Path) -> None:
    file = UsersFile(path)
    shown = repr(file) + repr(file._content)
    assert "alice" in shown
    assert "$argon2id$" not in shown
    assert "WG5d" not in shown


def test_without_argon2_it_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)
    install = r"pip install 'fastsmtp[auth]'"
    assert install in _error(lambda: UsersFile(path))
    assert install in _error(lambda: set_password(path, "alice", "x"))


def test_without_scramp_it_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scramp", None)
    assert r"pip install 'fastsmtp[auth]'" in _error(lambda: set_password(path, "alice", "x", scram=True))
