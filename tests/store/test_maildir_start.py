"""Maildir: what it does at start-up, and when somebody takes the directory away."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastsmtp.store import StoreError
from fastsmtp.store.maildir import Maildir
from fastsmtp.store.maildir_names import Names
from fastsmtp.store.maildir_tree import STALE_AFTER
from tests.store.fakes import contents, deliver, make_message

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = socket.gethostname()


def leftover(path: Path, name: str, *, age: float = 0) -> Path:
    """A file in tmp/, last touched `age` seconds ago."""
    file = path / "tmp" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"half a message")
    moment = file.stat().st_mtime - age
    os.utime(file, (moment, moment))
    return file


def name_of(pid: int, host: str = HOST) -> str:
    return f"1763879000.M1P{pid}Q1R0badcafe.{host}"


@pytest.fixture
def dead_pid() -> int:
    """The pid of a process that has ended and been waited for."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture
def live_pid() -> Iterator[int]:
    """The pid of a process that lives as long as the test."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child.pid
        child.communicate(b"\n")


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory whose parents every user may pass; those of tmp_path are for one user only."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write everywhere, so the tests of permissions give that up for a moment."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestLeftovers:
    def test_of_a_dead_process_are_removed(self, tmp_path: Path, dead_pid: int) -> None:
        file = leftover(tmp_path, name_of(dead_pid))
        deliver(tmp_path, [])
        assert not file.exists()

    def test_of_a_live_process_stay(self, tmp_path: Path, live_pid: int) -> None:
        file = leftover(tmp_path, name_of(live_pid))
        deliver(tmp_path, [])
        assert file.exists()

    def test_of_another_users_process_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def not_permitted(_pid: int, _signal: int) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        file = leftover(tmp_path, name_of(4242))
        monkeypatch.setattr(os, "kill", not_permitted)
        deliver(tmp_path, [])
        assert file.exists()

    def test_of_our_own_pid_are_removed(self, tmp_path: Path) -> None:
        """In a container a worker has the same pid at every start."""
        file = leftover(tmp_path, name_of(os.getpid()))
        deliver(tmp_path, [])
        assert not file.exists()

    def test_impossible_pid(self, tmp_path: Path) -> None:
        file = leftover(tmp_path, name_of(10**30))
        deliver(tmp_path, [])
        assert not file.exists()

    def test_of_another_host_stay(self, tmp_path: Path, dead_pid: int) -> None:
        file = leftover(tmp_path, name_of(dead_pid, host="elsewhere.example"))
        deliver(tmp_path, [])
        assert file.exists()

    @pytest.mark.parametrize("name", ["1763879000.77_3.elsewhere.example", name_of(1, host="elsewhere.example"), "x"])
    def test_older_than_36_hours_are_removed_whoever_made_them(self, tmp_path: Path, name: str) -> None:
        file = leftover(tmp_path, name, age=STALE_AFTER + 60)
        deliver(tmp_path, [])
        assert not file.exists()

    def test_younger_ones_of_unknown_makers_stay(self, tmp_path: Path) -> None:
        file = leftover(tmp_path, "x", age=STALE_AFTER - 60)
        deliver(tmp_path, [])
        assert file.exists()

    def test_directories_and_mail_are_left_alone(self, tmp_path: Path, dead_pid: int) -> None:
        (tmp_path / "tmp" / name_of(dead_pid)).mkdir(parents=True)
        for place in ("new", "cur"):
            (tmp_path / place).mkdir()
            (tmp_path / place / name_of(dead_pid)).touch()
        deliver(tmp_path, [])
        assert len([*tmp_path.rglob(name_of(dead_pid))]) == 3

    def test_names_that_the_store_makes_are_recognised(self) -> None:
        """Else nothing would ever be swept."""
        names = Names()
        assert names.is_orphan(names.next())
        assert not names.is_orphan(names.next() + ":2,S")


class TestCannotStart:
    def start_error(self, path: Path) -> str:
        with pytest.raises(StoreError) as caught:
            deliver(path, [])
        assert caught.value.reply.code == 451
        return caught.value.reason

    def test_parent_is_missing(self, tmp_path: Path) -> None:
        """It may be a volume that is not mounted: mail must not land on the disk beneath."""
        path = tmp_path / "volume" / "mail"
        reason = self.start_error(path)
        assert str(path) in reason
        assert "No such file or directory; create it" in reason
        assert not path.parent.exists()

    def test_path_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "mail").touch()
        assert re.search(r"mail/tmp: Not a directory; create it", self.start_error(tmp_path / "mail"))

    def test_directory_that_cannot_be_synced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Some file systems answer EINVAL: a 250 would promise what the store cannot keep."""

        def invalid(_descriptor: int) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        monkeypatch.setattr(os, "fsync", invalid)
        assert "cannot be synced: Invalid argument" in self.start_error(tmp_path / "mail")

    @pytest.mark.parametrize("place", ["tmp", "new"])
    def test_read_only_directory(self, public_path: Path, place: str) -> None:
        for name in ("tmp", "new", "cur"):
            (public_path / "mail" / name).mkdir(parents=True)
        (public_path / "mail" / place).chmod(0o555)
        for directory in public_path.rglob("*"):
            if directory.name != place:
                directory.chmod(0o777)
        with as_nobody():
            reason = self.start_error(public_path / "mail")
        assert (
            f"{public_path}/mail/{place}: cannot be read and written; create it for the server's user (uid " in reason
        )

    def test_parent_that_cannot_be_written(self, public_path: Path) -> None:
        public_path.chmod(0o555)
        with as_nobody():
            reason = self.start_error(public_path / "mail")
        assert f"{public_path}/mail: Permission denied; create it" in reason

    def test_parent_that_cannot_be_read_is_no_obstacle(self, public_path: Path) -> None:
        """An administrator made the Maildir in a directory that the server may only pass through."""
        for place in ("", "tmp", "new", "cur"):
            (public_path / "mail" / place).mkdir(mode=0o777)
            (public_path / "mail" / place).chmod(0o777)
        public_path.chmod(0o711)
        with as_nobody():
            assert deliver(public_path / "mail", [make_message()]) == [None]


class TestTakenAway:
    def test_removed_directory_is_made_again(self, tmp_path: Path) -> None:
        path = tmp_path / "mail"

        async def main() -> None:
            async with Maildir(str(path), slot=0) as store:
                assert list(await store.store([make_message()])) == [None]
                shutil.rmtree(path)
                assert list(await store.store([make_message()])) == [None]

        asyncio.run(main())
        assert len(contents(path)) == 1

    @pytest.mark.parametrize("place", ["tmp", "new", "cur"])
    def test_removed_part_is_made_again(self, tmp_path: Path, place: str) -> None:
        async def main() -> None:
            async with Maildir(str(tmp_path), slot=0) as store:
                (tmp_path / place).rmdir()
                assert list(await store.store([make_message()])) == [None]

        asyncio.run(main())
        assert (tmp_path / place).is_dir()
        assert len(contents(tmp_path)) == 1

    def test_replaced_directory_gets_the_next_batch(self, tmp_path: Path) -> None:
        path = tmp_path / "mail"

        async def main() -> None:
            async with Maildir(str(path), slot=0) as store:
                await store.store([make_message()])
                path.rename(tmp_path / "old")
                await store.store([make_message()])

        asyncio.run(main())
        assert len(contents(path)) == len(contents(tmp_path / "old")) == 1

    def test_removed_parent_is_a_refusal_until_it_is_back(self, tmp_path: Path) -> None:
        volume = tmp_path / "volume"
        volume.mkdir()

        async def main() -> None:
            async with Maildir(str(volume / "mail"), slot=0) as store:
                shutil.rmtree(volume)
                (error,) = await store.store([make_message()])
                assert error is not None
                assert error.reply.code == 451
                volume.mkdir()
                assert list(await store.store([make_message()])) == [None]

        asyncio.run(main())

    def test_removed_in_the_middle_of_a_batch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, fdatasync = tmp_path / "mail", os.fdatasync

        def removing(descriptor: int) -> None:
            fdatasync(descriptor)
            shutil.rmtree(path, ignore_errors=True)

        with monkeypatch.context() as context:
            context.setattr(os, "fdatasync", removing)
            errors = deliver(path, [make_message(), make_message()])
        assert [error and error.reply.code for error in errors] == [451, 451]
        assert deliver(path, [make_message()]) == [None]
