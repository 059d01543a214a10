"""URLs of next hops."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastsmtp.client.hop import Hop, parse_hop
from fastsmtp.client.secrets import read_secret


@pytest.mark.parametrize(
    ("url", "hop"),
    [
        ("smtp://relay.example", Hop("relay.example", 25)),
        ("smtp://relay.example:587/?tls=required", Hop("relay.example", 587, security="required")),
        ("smtp://[::1]:2525", Hop("::1", 2525)),
        ("smtps://relay.example", Hop("relay.example", 465, implicit_tls=True, security="required")),
        ("lmtp://127.0.0.1:24?tls=off", Hop("127.0.0.1", 24, lmtp=True, security="off")),
        ("lmtp://unix:/run/lmtp", Hop("localhost", 0, "/run/lmtp", lmtp=True, security="off")),
        ("smtp://unix:./s?connections=3", Hop("localhost", 0, "./s", security="off", connections=3)),
        (
            "smtp://me%40a.example@relay.example:587?password=env:PASSWORD&idle=0",
            Hop(
                "relay.example", 587, security="required", user="me@a.example", password="env:PASSWORD", idle_seconds=0
            ),
        ),
        (
            "smtp://h?tls=encrypt&ca=/a.pem&connections=1000",
            Hop("h", security="encrypt", ca="/a.pem", connections=1000),
        ),
    ],
)
def test_a_url_is_read(url: str, hop: Hop) -> None:
    assert parse_hop(url) == hop


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("relay.example", "expected smtp://"),
        ("http://relay.example", "expected smtp://"),
        ("smtp://", "is no HOST"),
        ("smtp://a b", "is no HOST"),
        ("smtp://h:0", "is no HOST"),
        ("smtp://h:65536", "is no HOST"),
        ("smtp://h?tls=maybe", "tls: expected"),
        ("smtp://h?colour=red", "option 'colour'"),
        ("smtp://h?tls", "NAME=VALUE"),
        ("smtp://h?connections=0", "1 to 1000"),
        ("smtp://h?connections=x", "1 to 1000"),
        ("smtp://me@h", "needs password="),
        ("smtp://h?password=env:X", "needs a user"),
        ("smtp://me@h?password=secret", "file:PATH or env:NAME"),
        ("smtp://me@h?password=env:X&tls=opportunistic", "needs tls="),
        ("smtps://h?tls=off", "smtps:// is TLS"),
        ("lmtp://unix:", "needs a path"),
        ("lmtp://unix:/s?tls=required", "neither TLS nor login"),
    ],
)
def test_what_is_wrong_is_said(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_hop(url)


def test_a_secret_is_read_where_the_url_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("correct horse\r\nsecond line\n")
    monkeypatch.setenv("SECRET", "battery")
    assert read_secret(f"file:{tmp_path}/secret") == "correct horse"
    assert read_secret("env:SECRET") == "battery"
    for source in ("env:NO_SUCH_SECRET", f"file:{tmp_path}/none"):
        with pytest.raises(ValueError, match=r"no secret|cannot be read"):
            read_secret(source)
