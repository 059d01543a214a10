"""``--to`` and ``--dns``."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from fastsmtp.cli import main
from fastsmtp.client import Hop
from fastsmtp.delivery.targets import parse_server, parse_target


@pytest.mark.parametrize(
    ("text", "by_mx", "hop"),
    [
        ("mx:", True, Hop("mx", 25, connections=5)),
        ("mx:?port=2525&tls=required", True, Hop("mx", 2525, security="required", connections=5)),
        ("mx:?connections=2&ca=/a%26b.pem", True, Hop("mx", 25, connections=2, ca="/a&b.pem")),
        ("smtp://relay.example:587", False, Hop("relay.example", 587)),
        ("lmtp://unix:/s", False, Hop("localhost", 0, "/s", lmtp=True, security="off")),
    ],
)
def test_a_target_is_read(text: str, by_mx: bool, hop: Hop) -> None:
    assert parse_target(text, 5) == (by_mx, hop)


@pytest.mark.parametrize("text", ["mx", "mx:relay", "mx:?port=x", "mx:?port=0", "mx:?password=env:X", "relay"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|HOST|needs a user"):
        parse_target(text, 5)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("127.0.0.1", ("127.0.0.1", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("::1", ("::1", 53)),
        ("[::1]:5353", ("::1", 5353)),
        ("[::1]", ("::1", 53)),
    ],
)
def test_a_name_server_is_read(text: str, server: tuple[str, int]) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize("text", ["", ":53", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "[::1]:0", "dns.example"])
def test_what_is_no_name_server(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_server(text)


def test_what_must_be_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("fastsmtp.delivery.") or name.startswith("dns.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dns", None)
    done = CliRunner().invoke(main, ["deliver", "--from=queue:./queue", "--to=mx:"])
    assert done.exit_code == 1
    assert "pip install 'fastsmtp[delivery]'" in done.output
