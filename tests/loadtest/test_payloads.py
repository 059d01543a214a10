"""Payloads are what they say, on the wire and in the store."""

from __future__ import annotations

import email

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.smtp_users.payloads import Payload, payload_of


def unstuffed(wire: bytes) -> bytes:
    """What a server makes of it (RFC 5321 4.5.2)."""
    content, dot, rest = wire.partition(b"\r\n.\r\n")
    assert (dot, rest) == (b"\r\n.\r\n", b"")
    lines = (content + b"\r\n").split(b"\r\n")
    return b"\r\n".join(line[1:] if line[:1] == b"." else line for line in lines)


@pytest.mark.parametrize("octets", [400, 1000, 4096, 4097, 65536, 1_000_003])
def test_a_payload_has_its_size(octets: int) -> None:
    assert len(payload_of(octets).octets) == octets


@pytest.mark.parametrize("octets", [0, 1, 300, 4096, 100_000])
def test_a_server_gets_what_was_meant(octets: int) -> None:
    payload = payload_of(octets)
    assert unstuffed(payload.wire) == payload.octets
    assert payload.octets.endswith(b"\r\n")


def test_no_line_end_is_bare_and_no_line_too_long() -> None:
    octets = payload_of(50_000).octets
    assert octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 998


def test_the_large_ones_have_dots_to_stuff() -> None:
    payload = payload_of(50_000)
    assert len(payload.wire) > len(payload.octets) + len(b".\r\n")


def test_it_is_a_message() -> None:
    message = email.message_from_bytes(payload_of(4096).octets)
    assert message["subject"] == "load test"
    assert message.defects == []


@given(st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")), min_size=1))
def test_a_message_of_ones_own_survives(lines: list[bytes]) -> None:
    message = b"".join(line + b"\r\n" for line in lines)
    wire = Payload.of(message).wire
    assert wire.endswith(b"\r\n.\r\n")
    assert b"".join(_unstuffed_lines(wire)) == message


def _unstuffed_lines(wire: bytes) -> list[bytes]:
    *lines, dot = wire.removesuffix(b"\r\n").split(b"\r\n")
    assert dot == b"."
    assert b"." not in lines
    return [(line[1:] if line[:1] == b"." else line) + b"\r\n" for line in lines]
