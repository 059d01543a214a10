"""Return-Path and Received, RFC 5321 4.4."""

from __future__ import annotations

import dataclasses
import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.protocol.envelope import Endpoint, Recipient, Sender
from fastsmtp.protocol.session import Session
from fastsmtp.store.trace import trace_header
from tests.store.fakes import ALICE, FakeSession, make_message

NOW = 1763879000.75  # Sun, 23 Nov 2025 06:23:20 UTC


def test_the_whole_of_it() -> None:
    assert trace_header(make_message(id="abc123"), NOW) == (
        b"Return-Path: <alice@example.com>\r\n"
        b"Received: from client.example ([192.0.2.7])\r\n"
        b"\tby mx.example with ESMTP id abc123\r\n"
        b"\tfor <bob@example.org>;\r\n"
        b"\tSun, 23 Nov 2025 06:23:20 +0000\r\n"
    )


def test_several_recipients_are_not_named() -> None:
    """RFC 5321 7.6: that would show blind copies."""
    two = (Recipient("bob", "example.org"), Recipient("carol", "example.org"))
    header = trace_header(make_message(recipients=two), NOW)
    assert b"for" not in header
    assert b"id M1;\r\n\tSun, 23 Nov 2025" in header


def test_null_sender() -> None:
    assert trace_header(make_message(sender=Sender("", "")), NOW).startswith(b"Return-Path: <>\r\nReceived: ")


def test_postmaster_without_domain() -> None:
    assert b"\tfor <Postmaster>;\r\n" in trace_header(make_message(recipients=(Recipient("Postmaster", ""),)), NOW)


def test_quoted_local_part() -> None:
    header = trace_header(make_message(sender=Sender('a "b" c', "example.com")), NOW)
    assert header.startswith(b'Return-Path: <"a \\"b\\" c"@example.com>\r\n')


@pytest.mark.parametrize(
    ("host", "clause"),
    [
        ("192.0.2.7", b"([192.0.2.7])"),
        ("2001:db8::1", b"([IPv6:2001:db8::1])"),
        ("fe80::1%eth0", b"([IPv6:fe80::1])"),
        ("unix", b"(unix)"),
    ],
)
def test_peer(host: str, clause: bytes) -> None:
    header = trace_header(make_message(session=FakeSession(peer=Endpoint(host, 1))), NOW)
    assert b"from client.example " + clause + b"\r\n\tby " in header


def test_smtputf8_address_is_utf8() -> None:
    sender = Sender("jörg", "bücher.example", smtputf8=True)
    header = trace_header(make_message(sender=sender, session=FakeSession(protocol="UTF8SMTP")), NOW)
    assert header.startswith("Return-Path: <jörg@bücher.example>\r\n".encode())
    assert b" with UTF8SMTP id " in header


def test_utf8_without_smtputf8_raises() -> None:
    with pytest.raises(ValueError, match="ascii"):
        trace_header(make_message(recipients=(Recipient("jörg", "example.com"),)), NOW)


@pytest.mark.parametrize("octet", ["\r", "\n", "\0", "\x1b", "\x7f", "\x85", "\u2028"])
@pytest.mark.parametrize("field", ["client_name", "protocol", "server_name", "id", "sender", "recipient", "peer"])
def test_control_character_raises(field: str, octet: str) -> None:
    """standards.md, U23: nothing that a client says can begin a header line."""
    session = FakeSession()
    sender, recipient, message_id = Sender("a", "b.example", smtputf8=True), Recipient("c", "d.example"), "M1"
    match field:
        case "sender":
            sender.local += octet
        case "recipient":
            recipient.domain += octet
        case "id":
            message_id += octet
        case "peer":
            session.peer = Endpoint("192.0.2.7" + octet, 1)
        case _:
            setattr(session, field, getattr(session, field) + octet)
    message = make_message(id=message_id, sender=sender, recipients=(recipient,), session=session)
    with pytest.raises(ValueError, match="control character"):
        trace_header(message, NOW)


@given(
    local=st.text(min_size=1, max_size=64),
    domain=st.text(min_size=1, max_size=255),
    name=st.text(min_size=1, max_size=255),
)
def test_it_is_two_fields_or_an_error(local: str, domain: str, name: str) -> None:
    """Whatever the values, there are five lines, of which two begin a field, and none is too long (RFC 5322 2.1.1)."""
    sender = Sender(local, domain, smtputf8=True)
    try:
        header = trace_header(make_message(sender=sender, session=FakeSession(client_name=name)), NOW)
    except ValueError:
        return
    lines = header.split(b"\r\n")
    assert [line[:1] for line in lines] == [b"R", b"R", b"\t", b"\t", b"\t", b""]
    assert b"\r" not in header.replace(b"\r\n", b"")
    assert b"\n" not in header.replace(b"\r\n", b"")


def test_longest_values_stay_under_998_octets() -> None:
    """RFC 5322 2.1.1, with the longest path and name that the grammar lets through."""
    recipient = Recipient("ü" * 32, "ü" * 127)
    sender = Sender("ü" * 32, "ü" * 127, smtputf8=True)
    session = FakeSession(client_name="c" * 255, server_name="s" * 255)
    header = trace_header(make_message(sender=sender, recipients=(recipient,), session=session), NOW)
    assert max(map(len, header.split(b"\r\n"))) <= 998


def test_standard_library_reads_it_back() -> None:
    header = trace_header(make_message(sender=ALICE), NOW)
    parsed = email.message_from_bytes(header + b"\r\n", policy=email.policy.SMTP)
    assert parsed.keys() == ["Return-Path", "Received"]
    assert email.utils.parsedate_to_datetime(str(parsed["Received"]).rpartition(";")[2]).timestamp() == int(NOW)


def test_date_follows_the_clock() -> None:
    first, second = (trace_header(make_message(), NOW + seconds) for seconds in (0, 1))
    assert first.endswith(b"06:23:20 +0000\r\n")
    assert second.endswith(b"06:23:21 +0000\r\n")


def test_the_fake_session_has_what_a_session_has() -> None:
    assert {field.name for field in dataclasses.fields(FakeSession)} <= set(dir(Session))
