"""What happens when the store cannot store, and that it goes on by itself (standards.md T17, E3, E5, E10)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server.client import Client
from tests.server.running import failing, running

HEADER = b"Subject: x\r\n\r\n"
BODY = (b"x" * 78 + b"\r\n") * 1000


def _refused(client: Client, body: bytes = HEADER) -> str:
    client.begin_data()
    client.send(body + b".\r\n")
    return client.reply()


@contextmanager
def _tmpfs(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _files(maildir: Path) -> list[str]:
    return [each.name for place in ("new", "tmp") for each in (maildir / place).iterdir()]


def test_a_maildir_that_has_gone_with_its_parent(tmp_path: Path) -> None:
    place, away = tmp_path / "volume", tmp_path / "away"
    place.mkdir()
    with running(tmp_path, "--store=maildir:volume/mail") as server, server.greeted() as client:
        client.deliver()
        place.rename(away)
        for _ in range(2):
            assert _refused(client).startswith("451 4.3.0 ")
        server.wait_for_log("ERROR fastsmtp.store: message \\S+ not stored: .*volume/mail")
        assert not place.exists()
        away.rename(place)
        client.deliver()
        assert len(_files(place / "mail")) == 2


def test_a_removed_maildir_is_made_anew(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.greeted() as client:
        client.deliver()
        (tmp_path / "mail").rename(tmp_path / "taken")
        client.deliver()
        assert (len(_files(tmp_path / "mail")), len(_files(tmp_path / "taken"))) == (1, 1)


def test_a_read_only_maildir(tmp_path: Path) -> None:
    with (
        _tmpfs(tmp_path / "volume", "2M") as place,
        running(tmp_path, "--store=maildir:volume/mail", "--min-free-bytes=0") as server,
        server.greeted() as client,
    ):
        client.deliver()
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        assert _refused(client).startswith("451 4.3.0 ")
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        client.deliver()
        assert len(_files(place / "mail")) == 2


def test_a_full_maildir(tmp_path: Path) -> None:
    with (
        _tmpfs(tmp_path / "volume", "1M") as place,
        running(tmp_path, "--store=maildir:volume/mail", "--min-free-bytes=0") as server,
        server.greeted() as client,
    ):
        stored = 0
        while (reply := _refused(client, BODY)).startswith("250"):
            stored += 1
            assert stored < 100
        assert reply.startswith("452 4.3.1 ")
        assert stored > 5
        files = _files(place / "mail")
        assert len(files) == stored
        assert all((place / "mail" / "new" / name).stat().st_size > len(BODY) for name in files)
        assert _refused(client, BODY).startswith("452 4.3.1 ")
        (place / "mail" / "new" / files[0]).unlink()
        client.deliver(BODY)
        assert len(_files(place / "mail")) == stored


def test_mail_is_refused_before_the_store_is_full(tmp_path: Path) -> None:
    """standards.md E7: full is said early, at MAIL, and only as long as it is true."""
    flags = ("--store=maildir:volume/mail", "--min-free-bytes=1M")
    with _tmpfs(tmp_path / "volume", "2M") as place, running(tmp_path, *flags) as server, server.greeted() as client:
        client.deliver(BODY)
        (place / "ballast").write_bytes(bytes(1_200_000))
        server.wait_for_log("free in the store: mail is refused with 452")
        client.ask("MAIL FROM:<a@a.example>", "452 4.3.1")
        (place / "ballast").unlink()
        server.wait_for_log("free in the store: mail is taken again")
        client.deliver(BODY)
        assert len(_files(place / "mail")) == 2


def test_a_full_spool_directory(tmp_path: Path) -> None:
    with _tmpfs(tmp_path / "spool", "2M") as place:
        flags = ("--store=discard:", f"--spool-dir={place}", "--spool-threshold-bytes=256K")
        with running(tmp_path, *flags) as server, server.greeted() as client:
            assert _refused(client, HEADER + BODY * 60).startswith("452 4.3.1 ")
            client.ask("NOOP", "250")
            client.deliver(HEADER + BODY * 10)
            client.deliver()
            assert list(place.iterdir()) == []


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    code, log = failing(tmp_path, "--listen=127.0.0.1:0", "--workers=1", "--store=maildir:gone/mail")
    assert code == 3
    assert "gone/mail" in log
    assert "Traceback" not in log
