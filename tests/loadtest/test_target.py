"""What --host may say."""

from __future__ import annotations

import pytest

from loadtest.smtp_users.target import Target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("smtp://mx.example", Target("mx.example", 25)),
        ("mx.example:2525", Target("mx.example", 2525)),
        ("smtps://mx.example", Target("mx.example", 465, implicit_tls=True)),
        ("smtp://mx.example:587?starttls=1", Target("mx.example", 587, starttls=True)),
        ("smtp://ann%40example.org:a%3Ab@mx.example", Target("mx.example", 25, user="ann@example.org", password="a:b")),
        ("smtp://[::1]:2525", Target("::1", 2525)),
    ],
)
def test_targets(url: str, target: Target) -> None:
    assert Target.parse(url) == target


@pytest.mark.parametrize("url", ["http://mx.example", "smtp://", "smtp://mx.example?tls=1", "smtp://a?starttls=yes"])
def test_what_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="expected smtp"):
        Target.parse(url)
