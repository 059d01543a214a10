"""Maildir: None means durable, a refusal leaves nothing, and neither touches the neighbours (standards.md, E 1-5)."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from fastsmtp.protocol.envelope import Recipient
from fastsmtp.protocol.replies import INSUFFICIENT_STORAGE, TEMPORARY_FAILURE, Reply
from fastsmtp.store.maildir import Maildir
from tests.store.fakes import CONTENT, contents, deliver, make_message, without_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastsmtp.store import StoreError


def leftovers(path: Path) -> list[str]:
    """Every file that a Maildir holds."""
    return [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]


def replies(results: list[StoreError | None]) -> list[Reply | None]:
    return [None if result is None else result.reply for result in results]


def failing_for(
    monkeypatch: pytest.MonkeyPatch, name: str, code: int, *, calls: set[int] | None = None, directories: bool = False
) -> list[int]:
    """Makes os.NAME fail with `code`, on the calls counted (all if None); returns the descriptors it was called with.

    os.fsync serves directories only; `directories` lets the calls pass that the start-up makes.
    """
    original: Callable[..., object] = getattr(os, name)
    seen: list[int] = []

    def failing(first: int, *args: object, **kwargs: object) -> object:
        if directories and not os.readlink(f"/proc/self/fd/{first}").endswith("/new"):
            return original(first, *args, **kwargs)
        seen.append(first)
        if calls is None or len(seen) - 1 in calls:
            raise OSError(code, os.strerror(code))
        return original(first, *args, **kwargs)

    monkeypatch.setattr(os, name, failing)
    return seen


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the store did to the disk: (call, place) in order."""
    calls: list[tuple[str, str]] = []
    fdatasync, fsync, rename = os.fdatasync, os.fsync, os.rename

    def place(descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}")

    def recorded_fdatasync(descriptor: int) -> None:
        calls.append(("fdatasync", os.path.basename(place(descriptor))))
        fdatasync(descriptor)

    def recorded_fsync(descriptor: int) -> None:
        calls.append(("fsync", place(descriptor)))
        fsync(descriptor)

    def recorded_rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        assert place(src_dir_fd).endswith("/tmp")
        assert place(dst_dir_fd).endswith("/new")
        calls.append(("rename", target))
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fdatasync", recorded_fdatasync)
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    return calls


def test_everything_is_synced_before_the_answer(tmp_path: Path, journal: list[tuple[str, str]]) -> None:
    """Content first, then the name, then the directory once, then the answer."""

    async def main() -> None:
        async with Maildir(str(tmp_path / "mail"), slot=0) as store:
            assert journal == [("fsync", str(tmp_path)), ("fsync", str(tmp_path / "mail"))]
            journal.clear()
            await store.store([make_message() for _ in range(3)])
            journal.append(("answer", ""))

    asyncio.run(main())
    names = sorted(file.name for file in (tmp_path / "mail" / "new").iterdir())
    assert [call for call, _ in journal] == ["fdatasync"] * 3 + ["rename"] * 3 + ["fsync", "answer"]
    assert sorted(place for call, place in journal if call == "fdatasync") == names
    assert sorted(place for call, place in journal if call == "rename") == names
    assert journal[-2] == ("fsync", str(tmp_path / "mail" / "new"))


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        (errno.ENOSPC, INSUFFICIENT_STORAGE),
        (errno.EDQUOT, INSUFFICIENT_STORAGE),
        (errno.EIO, TEMPORARY_FAILURE),
        (errno.EACCES, TEMPORARY_FAILURE),
        (errno.EROFS, TEMPORARY_FAILURE),
        (errno.ENOENT, TEMPORARY_FAILURE),
    ],
)
@pytest.mark.parametrize("call", ["writev", "fdatasync", "rename"])
def test_one_failure_of_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, reply: Reply
) -> None:
    failing_for(monkeypatch, call, code, calls={1})
    results = deliver(tmp_path, [make_message(body) for body in (b"one", b"two", b"three")])
    assert replies(results) == [None, reply, None]
    assert [without_trace(octets) for octets in contents(tmp_path)] == [b"one", b"three"]
    assert len(leftovers(tmp_path)) == 2


def test_file_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def full(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT and dir_fd is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return original(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", full)
    assert replies(deliver(tmp_path, [make_message()])) == [INSUFFICIENT_STORAGE]
    assert not leftovers(tmp_path)


def test_close_reports_a_full_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems say so only at close."""
    original = os.close

    def close(descriptor: int) -> None:
        is_message = os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{tmp_path}/tmp/")
        original(descriptor)
        if is_message:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "close", close)
    assert replies(deliver(tmp_path, [make_message()])) == [INSUFFICIENT_STORAGE]
    assert not leftovers(tmp_path)


def test_failed_sync_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would call the second one a success, though the page is lost."""
    seen = failing_for(monkeypatch, "fdatasync", errno.EIO)
    assert replies(deliver(tmp_path, [make_message()])) == [TEMPORARY_FAILURE]
    assert len(seen) == 1
    assert not leftovers(tmp_path)


def test_failed_directory_sync_refuses_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = failing_for(monkeypatch, "fsync", errno.EIO, directories=True)
    results = deliver(tmp_path, [make_message() for _ in range(3)])
    assert replies(results) == [TEMPORARY_FAILURE] * 3
    assert len(seen) == 1
    assert not leftovers(tmp_path)


def test_directory_sync_keeps_an_earlier_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_for(monkeypatch, "writev", errno.ENOSPC, calls={0})
    failing_for(monkeypatch, "fsync", errno.EIO, directories=True)
    results = deliver(tmp_path, [make_message(), make_message()])
    assert replies(results) == [INSUFFICIENT_STORAGE, TEMPORARY_FAILURE]


def test_unwritable_trace_refuses_its_message_only(tmp_path: Path) -> None:
    bad = make_message(recipients=(Recipient("a\r\nBcc: b", "example.org"),), id="bad1")
    results = deliver(tmp_path, [bad, make_message()])
    assert replies(results) == [TEMPORARY_FAILURE, None]
    assert results[0] is not None
    assert "bad1" in results[0].reason
    assert len(leftovers(tmp_path)) == 1


def test_reason_is_for_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_for(monkeypatch, "fdatasync", errno.EIO)
    (error,) = deliver(tmp_path, [make_message(id="M42")])
    assert error is not None
    assert str(error) == error.reason == f"message M42: Maildir {tmp_path}: [Errno 5] Input/output error"


def test_service_resumes_when_the_cause_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Maildir(str(tmp_path), slot=0) as store:
            with monkeypatch.context() as broken:
                failing_for(broken, "fdatasync", errno.EIO)
                assert replies(list(await store.store([make_message()]))) == [TEMPORARY_FAILURE]
            assert list(await store.store([make_message()])) == [None]

    asyncio.run(main())
    assert len(leftovers(tmp_path)) == 1


@pytest.mark.parametrize("call", ["writev", "fdatasync", "rename"])
def test_a_bug_leaves_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """It shows with the second message, when the first is on its way."""
    original: Callable[..., object] = getattr(os, call)
    descriptors = os.listdir("/proc/self/fd")
    calls = iter(range(2))

    def broken(*args: object, **kwargs: object) -> object:
        if next(calls):
            raise AssertionError("a bug")
        return original(*args, **kwargs)

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(AssertionError, match="a bug"):
        deliver(tmp_path, [make_message(), make_message()])
    assert not leftovers(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


def test_no_descriptor_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = os.listdir("/proc/self/fd")
    failing_for(monkeypatch, "fdatasync", errno.EIO, calls={1})
    deliver(tmp_path, [make_message() for _ in range(3)])
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


class TestCancellation:
    """A cancelled call has answered nothing, so nothing of it may stay."""

    @pytest.mark.parametrize("call", ["writev", "fdatasync", "rename", "fsync"])
    def test_at_work(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        asyncio.run(self._cancel_during(call, tmp_path, monkeypatch))
        assert not leftovers(tmp_path)

    async def _cancel_during(self, call: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        reached, release = threading.Event(), threading.Event()
        original: Callable[..., object] = getattr(os, call)

        def held(*args: object, **kwargs: object) -> object:
            reached.set()
            assert release.wait(timeout=30)
            return original(*args, **kwargs)

        async with Maildir(str(path), slot=0) as store:
            monkeypatch.setattr(os, call, held)
            pending = asyncio.create_task(_store_one(store))
            await asyncio.to_thread(reached.wait, 30)
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending
            release.set()

    def test_before_its_turn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The batch in front of it is delivered."""

        async def main() -> None:
            release = threading.Event()
            fdatasync = os.fdatasync

            def held(descriptor: int) -> None:
                assert release.wait(timeout=30)
                fdatasync(descriptor)

            monkeypatch.setattr(os, "fdatasync", held)
            async with Maildir(str(tmp_path), slot=0) as store:
                first, second = (asyncio.create_task(_store_one(store)) for _ in range(2))
                await asyncio.sleep(0)  # one turn of the loop: both are handed to the thread
                second.cancel()
                release.set()
                with pytest.raises(asyncio.CancelledError):
                    await second
                assert await first is None

        asyncio.run(main())
        assert len(leftovers(tmp_path)) == 1

    def test_delivered_but_unheard(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message is durable and the thread has ended, but its caller is cancelled before it is told."""

        async def main() -> None:
            release = threading.Event()
            fdatasync = os.fdatasync

            def held(descriptor: int) -> None:
                assert release.wait(timeout=30)
                fdatasync(descriptor)

            monkeypatch.setattr(os, "fdatasync", held)
            store = await Maildir(str(tmp_path), slot=0).__aenter__()
            pending = asyncio.create_task(_store_one(store))
            leaving = asyncio.create_task(store.__aexit__())
            await asyncio.sleep(0)  # one turn of the loop: both wait for the thread
            leaving.cancel()
            release.set()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert len(leftovers(tmp_path)) == 1
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending

        asyncio.run(main())
        assert not leftovers(tmp_path)


async def _store_one(store: Maildir) -> StoreError | None:
    (result,) = await store.store([make_message()])
    return result


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        reason = f"cannot mount a tmpfs: {mount.stderr.strip()}"
        if os.environ.get("FASTSMTP_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(small_disk: Path) -> None:
    """What does not fit gets 452 and leaves nothing, what fits is stored; with space again, service goes on."""
    path = small_disk / "mail"
    too_large = make_message(bytes(400_000))

    async def main() -> None:
        async with Maildir(str(path), slot=0) as store:
            results = list(await store.store([make_message(), too_large, make_message()]))
            # The large one takes all there is until it is removed, so the third may find the disk full.
            assert replies(results)[:2] == [None, INSUFFICIENT_STORAGE]
            assert len(leftovers(path)) == len([result for result in results if result is None])
            assert list(await store.store([make_message()])) == [None]

    asyncio.run(main())
    assert {without_trace(octets) for octets in contents(path)} == {CONTENT}
