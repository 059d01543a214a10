"""`fastsmtp queue`: what people see of a queue, and what they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fastsmtp.cli import main
from fastsmtp.queue import Queue
from tests.queue.mails import CONTENT, counts, drain, mail, run, take


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["queue", *arguments])


def answer(*arguments: str) -> Any:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.fixture
def filled(url: str) -> str:
    """A queue with an item that is ready, one that is deferred, and one that is dead."""

    async def fill() -> None:
        async with Queue.open(url) as queue:
            await queue.put([mail("dead", "a@dead.example"), mail("deferred", "b@deferred.example")])
            for item in await take(queue, 2):
                if item.message_id == "dead":
                    await item.reject("no such user")
                else:
                    await item.retry(4e9, "greylisted")
            await queue.put([mail("ready", "c@ready.example", accepted_at=1.0)])

    run(fill())
    return url


def states(url: str) -> dict[str, int]:
    async def look() -> dict[str, int]:
        async with Queue.open(url) as queue:
            return await counts(queue)

    return run(look())


def test_ls(filled: str) -> None:
    items = answer("ls", "--from", filled)
    assert [item["message_id"] for item in items] == ["ready", "dead", "deferred"]
    (dead,) = answer("ls", "--from", filled, "--state", "dead")
    assert (dead["state"], dead["reason"], dead["recipients"]) == ("dead", "no such user", ["a@dead.example"])
    assert len(answer("ls", "--from", filled, "--limit", "1")) == 1
    text = call("ls", "--from", filled, "--destination", "deferred.example").output
    assert "deferred until 2096-10-02T07:06:40Z" in text
    assert "    greylisted" in text


def test_show(filled: str) -> None:
    (item,) = answer("ls", "--from", filled, "--state", "ready")
    assert answer("show", item["id"], "--from", filled) == item
    assert call("show", item["id"], "--from", filled, "--content").stdout_bytes == CONTENT
    assert "c@ready.example" in call("show", item["id"], "--from", filled).output
    result = call("show", "0000-1", "--from", filled)
    assert (result.exit_code, result.output) == (1, "Error: no item 0000-1\n")


def test_stats(filled: str) -> None:
    found = answer("stats", "--from", filled)
    assert found["items"] == {"ready": 1, "deferred": 1, "leased": 0, "held": 0, "dead": 1}
    assert found["oldest_age_seconds"] > 1e9
    assert "ready     1\n" in call("stats", "--from", filled).output


def test_changes(filled: str) -> None:
    items = {item["message_id"]: item["id"] for item in answer("ls", "--from", filled)}
    assert answer("hold", items["ready"], "--from", filled) == {"done": [items["ready"]], "not_done": []}
    assert states(filled) == {"HELD": 1, "DEFERRED": 1, "DEAD": 1}
    assert call("release", "--state", "held", "--from", filled).output == "1 items\n"
    assert call("retry", "--state", "dead", "--from", filled).exit_code == 0
    assert states(filled) == {"READY": 2, "DEFERRED": 1}
    assert call("drop", "--destination", "deferred.example", "--from", filled).exit_code == 0
    assert states(filled) == {"READY": 2}
    missed = call("drop", items["deferred"], "--from", filled)
    assert missed.exit_code == 1
    assert f"not {items['deferred']}" in missed.output


def test_without_a_choice_nothing_is_changed(filled: str) -> None:
    assert call("drop", "--from", filled).exit_code == 2
    assert states(filled) == {"READY": 1, "DEFERRED": 1, "DEAD": 1}


def test_the_queue_of_the_settings_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "name a queue" in call("stats").output
    monkeypatch.setenv("FASTSMTP_STORE", "queue:./mine")
    assert "No such file or directory" in call("stats").output
    assert not (tmp_path / "mine").exists()

    async def fill() -> None:
        async with Queue.open("queue:./mine") as queue:
            await queue.put([mail("ID1")])

    run(fill())
    assert answer("stats")["items"]["ready"] == 1


def test_a_database_that_is_away_is_an_error() -> None:
    result = call("stats", "--from", "postgresql://nobody:secret@127.0.0.1:1/none")
    assert result.exit_code != 0
    assert "secret" not in result.output


def test_retried_items_can_be_consumed(filled: str) -> None:
    call("retry", "--state", "dead", "--from", filled)
    call("drop", "--state", "deferred", "--from", filled)

    async def look() -> list[str]:
        async with Queue.open(filled) as queue:
            return sorted(item.message_id for item in await drain(queue))

    assert run(look()) == ["dead", "ready"]


def test_check_config_hides_the_password_of_a_database() -> None:
    result = CliRunner().invoke(main, ["check-config", "--store", "postgresql://app:secret@db.example/mail"])
    assert "postgresql://app:***@db.example/mail" in result.output
    assert "secret" not in result.output
