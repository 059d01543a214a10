"""Maildir: what a stored message looks like on disk."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from fastsmtp.protocol.envelope import Endpoint
from fastsmtp.store import StoreError
from fastsmtp.store.maildir import Maildir, write_fully
from fastsmtp.store.trace import trace_header
from tests.store.fakes import CONTENT, FakeSession, contents, deliver, make_message, without_trace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastsmtp.protocol.envelope import Message


def test_file_is_trace_then_content(tmp_path: Path) -> None:
    assert deliver(tmp_path / "mail", [make_message()]) == [None]
    (octets,) = contents(tmp_path / "mail")
    assert octets.startswith(b"Return-Path: <alice@example.com>\r\nReceived: from client.example ")
    assert without_trace(octets) == CONTENT


@pytest.mark.parametrize(
    "content",
    [b"", b"\r\n", bytes(range(256)) * 3, b"no line end", b".\r\n..\r\n"],
    ids=["empty", "empty-line", "all-octets", "no-line-end", "dots"],
)
def test_content_is_exact(tmp_path: Path, content: bytes) -> None:
    assert deliver(tmp_path / "mail", [make_message(content)]) == [None]
    assert without_trace(contents(tmp_path / "mail")[0]) == content


def test_large_view_is_exact(tmp_path: Path) -> None:
    content = memoryview(bytearray(os.urandom(5_000_001)))[1:]
    assert deliver(tmp_path / "mail", [make_message(content)]) == [None]
    assert without_trace(contents(tmp_path / "mail")[0]) == content


def test_batch_keeps_its_order_beyond_the_open_file_limit(tmp_path: Path) -> None:
    bodies = [b"%d\r\n" % number for number in range(150)]
    assert deliver(tmp_path / "mail", [make_message(body) for body in bodies]) == [None] * 150
    assert [without_trace(octets) for octets in contents(tmp_path / "mail")] == bodies


def test_empty_batch(tmp_path: Path) -> None:
    assert deliver(tmp_path / "mail", []) == []


def test_modes_and_names(tmp_path: Path) -> None:
    deliver(tmp_path / "mail", [make_message()])
    directories = [tmp_path / "mail", *(tmp_path / "mail" / name for name in ("tmp", "new", "cur"))]
    assert {stat.S_IMODE(directory.stat().st_mode) for directory in directories} == {0o700}
    (file,) = (tmp_path / "mail" / "new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.fullmatch(rf"\d+\.M\d+P{os.getpid()}Q\d+R[0-9a-f]{{8}}\.{re.escape(socket.gethostname())}", file.name)
    assert not list((tmp_path / "mail" / "tmp").iterdir())


def test_host_name_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "odd/%s:host")
    assert deliver(tmp_path / "mail", [make_message()]) == [None]
    (file,) = (tmp_path / "mail" / "new").iterdir()
    assert file.name.endswith(".odd\\057%s\\072host")


def test_two_stores_share_a_maildir(tmp_path: Path) -> None:
    async def main() -> None:
        async with Maildir(str(tmp_path), slot=0) as one, Maildir(str(tmp_path), slot=1) as two:
            batch = [make_message() for _ in range(20)]
            results = await asyncio.gather(*(store.store(batch) for store in (one, two) * 3))
            assert [list(result) for result in results] == [[None] * 20] * 6

    asyncio.run(main())
    assert len(contents(tmp_path)) == 120


def test_processes_share_a_maildir(tmp_path: Path) -> None:
    """Each worker forks, opens the Maildir (which may not exist yet) and delivers."""
    children = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = len([result for result in deliver(tmp_path / "mail", [make_message()] * 30) if result])
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    assert len(contents(tmp_path / "mail")) == 90


def test_relative_path_is_fixed_when_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Maildir("./mail", slot=0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    async def main() -> None:
        async with store:
            await store.store([make_message()])

    asyncio.run(main())
    assert len(contents(tmp_path / "mail")) == 1


def test_the_loop_is_not_blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is at work the loop goes on; leaving the store waits for the disk."""
    release, reached = threading.Event(), threading.Event()
    fdatasync = os.fdatasync

    def slow(descriptor: int) -> None:
        reached.set()
        assert release.wait(timeout=30)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)

    async def main() -> None:
        async with Maildir(str(tmp_path), slot=0) as store:
            pending = asyncio.create_task(_as_task(store, [make_message()]))
            await asyncio.get_running_loop().run_in_executor(None, reached.wait, 30)
            assert not pending.done()
            release.set()
        assert len(contents(tmp_path)) == 1
        assert await pending == [None]

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("maildir")]


async def _as_task(store: Maildir, batch: Sequence[Message]) -> list[StoreError | None]:
    return list(await store.store(batch))


class TestWriteFully:
    """os.writev may take less than all, anywhere."""

    @pytest.mark.parametrize("first", [0, 1, 5, 6, 7, 14, 15])
    @pytest.mark.parametrize("then", [1, 3, 100])
    def test_partial(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, then: int) -> None:
        header, content = b"header", memoryview(b"content!!")
        write = os.write

        def short_writev(descriptor: int, buffers: Sequence[bytes]) -> int:
            return write(descriptor, b"".join(buffers)[:first])

        monkeypatch.setattr(os, "writev", short_writev)
        monkeypatch.setattr(os, "write", lambda descriptor, octets: write(descriptor, octets[:then]))
        with (tmp_path / "file").open("wb", buffering=0) as file:
            write_fully(file.fileno(), header, content)
        assert (tmp_path / "file").read_bytes() == b"headercontent!!"

    def test_a_file_that_takes_nothing_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "writev", lambda _descriptor, _buffers: 0)
        monkeypatch.setattr(os, "write", lambda _descriptor, _octets: 0)
        with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="no more octets"):
            write_fully(file.fileno(), b"header", memoryview(b""))

    def test_nothing_is_joined(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The content reaches the kernel as the very memory that the message was received into."""
        message = make_message(memoryview(bytearray(1000)))
        seen: list[object] = []
        writev = os.writev

        def recorded(descriptor: int, buffers: Sequence[memoryview]) -> int:
            seen.extend(buffers)
            return writev(descriptor, buffers)

        monkeypatch.setattr(os, "writev", recorded)
        deliver(tmp_path / "mail", [message])
        assert seen[1] is message.content


def test_received_says_who_brought_it(tmp_path: Path) -> None:
    session = FakeSession(peer=Endpoint("2001:db8::5", 1), protocol="ESMTPSA")
    message = make_message(session=session)
    deliver(tmp_path / "mail", [message])
    expected = trace_header(message, 0).split(b";")[0]
    assert contents(tmp_path / "mail")[0].startswith(expected)
