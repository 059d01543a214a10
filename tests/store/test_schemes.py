"""Store URLs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fastsmtp.store import check_url, describe, open_store
from tests.store.fakes import make_message

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "url", ["maildir:mail", "maildir:./mail", "maildir:/var/mail", "maildir:///var/mail", "discard:"]
)
def test_check_url_accepts(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize("url", ["", "mail", "/var/mail", "mbox:/var/mail", "maildir"])
def test_unknown_scheme_names_those_allowed(url: str) -> None:
    for function in (check_url, describe, lambda url: open_store(url, 0)):
        with pytest.raises(ValueError, match=r"maildir:, .*discard:"):
            function(url)


@pytest.mark.parametrize("url", ["maildir:", "maildir:a\0b", "maildir://host/mail", "discard:x"])
def test_bad_location(url: str) -> None:
    for function in (check_url, lambda url: open_store(url, 0)):
        with pytest.raises(ValueError, match=f"store .*{url.partition(':')[0]}:"):
            function(url)


def test_check_url_leaves_the_disk_alone(tmp_path: Path) -> None:
    check_url(f"maildir:{tmp_path}/mail")
    describe(f"maildir:{tmp_path}/mail")
    assert not list(tmp_path.iterdir())


def test_describe() -> None:
    assert describe("maildir:./mail") == "Maildir ./mail"
    assert "discarded" in describe("discard:")


def test_open_store_delivers(tmp_path: Path) -> None:
    async def deliver() -> None:
        async with open_store(f"maildir:{tmp_path}/mail", slot=0) as store:
            assert list(await store.store([make_message()])) == [None]

    asyncio.run(deliver())
    assert len(list((tmp_path / "mail" / "new").iterdir())) == 1


def test_discard_accepts_everything() -> None:
    async def deliver() -> None:
        async with open_store("discard:", slot=0) as store:
            assert list(await store.store([make_message(), make_message()])) == [None, None]
            assert list(await store.store([])) == []

    asyncio.run(deliver())
