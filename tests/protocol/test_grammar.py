"""Paths, mailboxes, literals, client names and parameters (RFC 5321 4.1.2, 4.1.3)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsmtp import Reply, SMTPError
from fastsmtp.protocol.grammar import (
    SIMPLE_PATH,
    is_literal,
    parse_client_name,
    parse_mailbox,
    parse_parameters,
    split_path,
)
from fastsmtp.protocol.replies import ADDRESS_NOT_ALLOWED, BAD_PARAMETER, BAD_RECIPIENT, BAD_UTF8
from tests.protocol.driver import Driver


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"<a@b>", (b"a@b", b"")),
        (b" \t<a@b>", (b"a@b", b"")),
        (b"<a@b> ", (b"a@b", b"")),
        (b"<a@b> SIZE=1", (b"a@b", b"SIZE=1")),
        (b"<a@b>\t \tX  Y", (b"a@b", b"X  Y")),
        (b"<>", (b"", b"")),
        (b"< >", (b" ", b"")),
        (b'<"a>b"@c> X', (b'"a>b"@c', b"X")),
        (b'<"a\\">"@c>', (b'"a\\">"@c', b"")),
        (b'<"a\\\\">', (b'"a\\\\"', b"")),
        (b"<a@b> <x>", (b"a@b", b"<x>")),
    ],
)
def test_a_path_and_its_parameters(text: bytes, parts: tuple[bytes, bytes]) -> None:
    assert split_path(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"a@b",
        b"<a@b",
        b"a@b>",
        b"<<a@b>>",
        b"<a@b>>",
        b"<a@b>X",
        b"x<a@b>",
        b'<"a@b>',
        b'<a"@b>',
        b'<"a\\"@b>',
        b"><",
    ],
)
def test_what_has_no_path(text: bytes) -> None:
    assert split_path(text) is None


@pytest.mark.parametrize(
    ("path", "local", "domain"),
    [
        (b"a@b", "a", "b"),
        (b"A.b@C.Example", "A.b", "c.example"),
        (b".a..b.@c", ".a..b.", "c"),
        (b"!#$%&'*+-/=?^_`{|}~@b", "!#$%&'*+-/=?^_`{|}~", "b"),
        (b'"a b"@c', "a b", "c"),
        (b'"a\\"b\\\\c"@d', 'a"b\\c', "d"),
        (b'"\\a\\b"@c', "ab", "c"),
        (b'""@b', "", "b"),
        (b'"a@b"@c', "a@b", "c"),
        (b"@r:a@b", "a", "b"),
        (b"@r,@s.t:a@b", "a", "b"),
        (b'@[1.2.3.4]:"@x:y"@b', "@x:y", "b"),
        (b"a@[192.0.2.1]", "a", "[192.0.2.1]"),
        (b"a@[IPv6:2001:DB8::1]", "a", "[IPv6:2001:DB8::1]"),
        (b"a" * 510 + b"@b", "a" * 510, "b"),
        (b"a@" + b".".join([b"b" * 63] * 4)[:255], "a", ".".join(["b" * 63] * 4)[:255]),
    ],
)
def test_mailboxes(path: bytes, local: str, domain: str) -> None:
    assert parse_mailbox(path, False, BAD_RECIPIENT) == (local, domain)
    assert parse_mailbox(path, True, BAD_RECIPIENT) == (local, domain)


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        (path, BAD_RECIPIENT)
        for path in (b"a", b"@", b"a@", b"@b", b"a@b@c", b"a b@c", b"a@b c", b"a,b@c", b"a:b@c", b"a;b@c")
    ]
    + [
        (path, BAD_RECIPIENT)
        for path in (b"a@.b", b"a@b.", b"a@b..c", b"a@" + b"b" * 64, b"a@b:c", b"a(b)@c", b"a@b!c")
    ]
    + [
        (path, BAD_RECIPIENT)
        for path in (b'"a@b', b'a"@b', b'"a"b@c', b'"a""b"@c', b'"a\tb"@c', b'"a\\\tb"@c', b'"a"@')
    ]
    + [
        (path, BAD_RECIPIENT)
        for path in (b"@r:", b"@r", b"@:a@b", b"@r,:a@b", b"@r,s:a@b", b"r:a@b", b"@r@s:a@b", b":a@b")
    ]
    + [
        (path, BAD_RECIPIENT)
        for path in (b"a@[]", b"a@[1.2.3]", b"a@[::1]", b"a@[b]", b"a@[1.2.3.4", b"a@[1.2.3.4]]", b"a@[[::1]]")
    ]
    + [(path, BAD_RECIPIENT) for path in (b"a" * 511 + b"@b", b"a@" + b".".join([b"b" * 31] * 7 + [b"b" * 32]), b"")]
    + [
        (path, ADDRESS_NOT_ALLOWED)
        for path in (b"\xc3\xbc@b", b"a@\xc3\xbc", b'"\xc3\xbc"@b', b"@\xc3\xbc:a@b", b"\xff")
    ],
)
def test_what_is_no_mailbox(path: bytes, reply: Reply) -> None:
    with pytest.raises(SMTPError) as caught:
        parse_mailbox(path, False, BAD_RECIPIENT)
    assert caught.value.reply is reply


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("\u00fc@\u00fc.example", ("\u00fc", "\u00fc.example")),
        ("\u00dc@\u00dc.Example", ("\u00dc", "\u00dc.example")),
        ('"\u20ac \u200d"@b', ("\u20ac \u200d", "b")),
        ("\U0001f4e7@b", ("\U0001f4e7", "b")),
        ("a\u200b@b", ADDRESS_NOT_ALLOWED),
        ("a@b\u202e", ADDRESS_NOT_ALLOWED),
        ("\ufeffa@b", ADDRESS_NOT_ALLOWED),
        ("a\u0085@b", ADDRESS_NOT_ALLOWED),
        ("\u00fc" * 256 + "@b", BAD_RECIPIENT),
        ("a@" + "\u00fc" * 32, BAD_RECIPIENT),
        ("a@\u00fc..b", BAD_RECIPIENT),
    ],
)
def test_utf8(path: str, expected: tuple[str, str] | Reply) -> None:
    try:
        found: tuple[str, str] | Reply = parse_mailbox(path.encode(), True, BAD_RECIPIENT)
    except SMTPError as error:
        found = error.reply
    assert found == expected


@pytest.mark.parametrize(
    "octets", [b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xc3"]
)
def test_octets_that_are_no_utf8(octets: bytes) -> None:
    for path in (octets + b"@b", b"a@" + octets, b'"' + octets + b'"@b'):
        with pytest.raises(SMTPError) as caught:
            parse_mailbox(path, True, BAD_RECIPIENT)
        assert caught.value.reply is BAD_UTF8


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("[0.0.0.0]", True),
        ("[255.255.255.255]", True),
        ("[IPv6:::]", True),
        ("[ipv6:2001:db8::1]", True),
        ("[IPv6:::ffff:192.0.2.1]", True),
        ("[IPv6:1:2:3:4:5:6:7:8]", True),
        ("[256.0.0.0]", False),
        ("[1.2.3]", False),
        ("[1.2.3.4.5]", False),
        ("[01.2.3.4]", False),
        ("[+1.2.3.4]", False),
        ("[\u0661.2.3.4]", False),
        ("[1.2.3.4\n]", False),
        ("[::1]", False),
        ("[IPv6:]", False),
        ("[IPv6:1.2.3.4]", False),
        ("[IPv6:1:2:3:4:5:6:7:8:9]", False),
        ("[IPv6:::1%eth0]", False),
        ("[IPv6:::1/64]", False),
        ("[IPv6: ::1]", False),
        ("[IPv6:::12345]", False),
        ("[IPv6:::ffff:192.0.2.256]", False),
        ("[tag:x]", False),
        ("[]", False),
    ],
)
def test_literals(text: str, literal: bool) -> None:
    assert is_literal(text) is literal


@pytest.mark.parametrize("name", ["a", "a.b", "A_b-c.0", "-", "_", "1.2.3.4", "[1.2.3.4]", "[IPv6:::1]", "a" * 255])
def test_client_names(name: str) -> None:
    assert parse_client_name(name.encode()) == name


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"a b",
        b"a\tb",
        b"\xc3\xbc",
        b"a;b",
        b"a(b",
        b"<a>",
        b"a@b",
        b"[a]",
        b"[1.2.3.4",
        b"1.2.3.4]",
        b"a" * 256,
        b"a\n",
        b"[::1]",
    ],
)
def test_client_names_that_are_none(text: bytes) -> None:
    assert parse_client_name(text) is None


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        (b"", []),
        (b" \t ", []),
        (b"SIZE=1", [(b"SIZE", b"1")]),
        (b"size=1  smtputf8\tX-1=a+2B/!<>\xff", [(b"SIZE", b"1"), (b"SMTPUTF8", None), (b"X-1", b"a+2B/!<>\xff")]),
        (b"A A A=1", [(b"A", None), (b"A", None), (b"A", b"1")]),
        (b"8BITMIME 0-=x", [(b"8BITMIME", None), (b"0-", b"x")]),
    ],
)
def test_parameters(text: bytes, parameters: list[tuple[bytes, bytes | None]]) -> None:
    assert list(parse_parameters(text)) == parameters


@pytest.mark.parametrize(
    "text", [b"=", b"A=", b"=1", b"A=1=2", b"A==1", b"-A=1", b"A_B", b"A.B=1", b"\xc3\xbc=1", b"A=\x01", b"X <a>"]
)
def test_parameters_that_are_none(text: bytes) -> None:
    with pytest.raises(SMTPError) as caught:
        list(parse_parameters(text))
    assert caught.value.reply is BAD_PARAMETER


# -- the quick way and the thorough one -------------------------------------------------------------------------------

_PATHS = st.lists(
    st.sampled_from(
        [*'ab.@<> \t"\\:,[]1_-+=()', "xn--", "a@b", "<a@b>", "<a@b> X=1", "b" * 63, "c" * 64, "A", "\u00fc"]
    ),
    max_size=12,
).map(lambda parts: "".join(parts).encode())


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(_PATHS)
def test_the_quick_pattern_takes_nothing_that_the_thorough_one_would_not(text: bytes) -> None:
    for argument in (text, b"<" + text + b"@b>", b"<a@" + text + b">", b"<a@b>" + text):
        quick = SIMPLE_PATH.fullmatch(argument)
        if quick is None:
            continue
        parts = split_path(argument)
        assert parts is not None
        local, domain, parameters = quick.groups()
        assert parse_mailbox(parts[0], False, BAD_RECIPIENT) == (local.decode(), domain.decode().lower())
        assert (parameters or b"").split() == parts[1].split()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_PATHS)
def test_a_command_reads_the_same_address_in_any_spelling(text: bytes) -> None:
    """``MAIL FROM:`` may take the quick way, ``mail from:`` never does."""
    drivers = [Driver(), Driver()]
    for driver, verb in zip(drivers, (b"MAIL FROM:", b"mail from:"), strict=True):
        driver.send(b"EHLO a\r\n" + verb + b"<" + text + b"@b>\r\nRCPT TO:<b@b>\r\nDATA\r\n.\r\n")
    assert drivers[0].output == drivers[1].output
    assert drivers[0].messages == drivers[1].messages


@pytest.mark.parametrize(
    "argument",
    [
        b"<" + b"a." * 1000,
        b"<" + b'"a"' * 600 + b">",
        b'<"' + b"\\a" * 900 + b"@b>",
        b"<@" + b"a." * 900 + b":",
        b"<" + b"@a," * 600 + b":a@b>",
        b"<a@" + b"b-" * 900 + b"!>",
        b"<" + b"a" * 1900 + b"@>",
        b"<a@b> " + b"X=" * 900,
        b"<a@b>" + b" \t" * 900 + b"=",
    ],
)
def test_no_path_keeps_a_pattern_busy(argument: bytes) -> None:
    """Linear in the length: 0.1 ms of processor time; a pattern that backtracks takes hours."""
    driver = Driver()
    driver.send(b"EHLO a\r\n")
    start = time.process_time()
    driver.send(b"MAIL FROM:" + argument + b"\r\n")
    assert time.process_time() - start < 0.5
    assert driver.output.splitlines()[-1][:2] == b"50"
