"""The attributes of XCLIENT (Postfix XCLIENT_README): what they mean, and what is refused."""

from __future__ import annotations

from dataclasses import astuple, fields
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsmtp.protocol.replies import BAD_PARAMETER, SMTPError
from fastsmtp.protocol.xclient import ATTRIBUTES, MAX_VALUE, XClient, parse_xclient
from fastsmtp.protocol.xtext import encode_xtext


def _refused(argument: bytes) -> bool:
    try:
        parse_xclient(argument)
    except SMTPError as error:
        return error.reply is BAD_PARAMETER
    return False


def test_all_attributes() -> None:
    argument = (
        b"NAME=client.example ADDR=192.0.2.1 PORT=1234 PROTO=ESMTP HELO=there LOGIN=tim DESTADDR=192.0.2.2 DESTPORT=25"
    )
    assert parse_xclient(argument) == XClient(
        name="client.example",
        address="192.0.2.1",
        port=1234,
        protocol="ESMTP",
        helo="there",
        login="tim",
        destination_address="192.0.2.2",
        destination_port=25,
    )
    assert [word.partition(b"=")[0].decode() for word in argument.split()] == list(ATTRIBUTES)
    assert len(ATTRIBUTES) == len(fields(XClient))


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        (b"name=a", XClient(name="a")),
        (b"NaMe=A.Example", XClient(name="A.Example")),
        (b" \tPORT=1 \t ADDR=1.2.3.4 ", XClient(address="1.2.3.4", port=1)),
        (b"ADDR=IPV6:::1", XClient(address="::1")),
        (b"addr=ipv6:2001:0DB8:0:0:0:0:0:A", XClient(address="2001:db8::a")),
        (b"DESTADDR=IPv6:fe80::1", XClient(destination_address="fe80::1")),
        (b"ADDR=IPV6:::ffff:192.0.2.1", XClient(address=str(IPv6Address("::ffff:192.0.2.1")))),
        (b"ADDR=+31.2.3.4", XClient(address="1.2.3.4")),
        (b"PORT=0 DESTPORT=65535", XClient(port=0, destination_port=65535)),
        (b"PORT=00025", XClient(port=25)),
        (b"PROTO=smtp", XClient(protocol="SMTP")),
        (b"PROTO=eSmTp", XClient(protocol="ESMTP")),
        (b"HELO=[192.0.2.1]", XClient(helo="[192.0.2.1]")),
        (b"HELO=a+2Bb+3Dc", XClient(helo="a+b=c")),
        (b"LOGIN=tim+40example.com", XClient(login="tim@example.com")),
        (b"LOGIN=Tim+20Tester", XClient(login="Tim Tester")),
        (b"NAME=" + b"n" * MAX_VALUE, XClient(name="n" * MAX_VALUE)),
    ],
)
def test_attributes(argument: bytes, told: XClient) -> None:
    assert parse_xclient(argument) == told


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize(
    "value", [b"[UNAVAILABLE]", b"[TEMPUNAVAIL]", b"[unavailable]", b"[TempUnavail]", b"+5BUNAVAILABLE+5D"]
)
def test_what_the_proxy_does_not_know(attribute: str, value: bytes) -> None:
    assert parse_xclient(attribute.encode() + b"=" + value) == XClient()


@pytest.mark.parametrize("argument", [b"", b" ", b" \t "])
def test_no_attribute(argument: bytes) -> None:
    assert _refused(argument)


# Refused whatever the attribute is: no value, broken xtext, controls, octets that are no ASCII, far too long.
NO_VALUES: Final = [
    b"",
    b"=",
    b"=a=b",
    b"=+",
    b"=+4",
    b"=+4g",
    b"=+4a",
    b"=+0D+0A",
    b"=a+00",
    b"=+1B",
    b"=+7F",
    b"=+80",
    b"=+C3+BC",
    b"=\xc3\xbc",
    b"=\x01",
    b"=" + b"1" * (MAX_VALUE + 1),
]


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("value", NO_VALUES)
def test_what_is_no_value(attribute: str, value: bytes) -> None:
    octets = attribute.encode() + value
    assert _refused(octets)
    assert _refused(octets + b" ")
    assert _refused(b"PROTO=SMTP " + octets)
    assert _refused(octets + b" PROTO=SMTP")


@pytest.mark.parametrize(
    "argument",
    [
        b"REVERSE_NAME=a",
        b"REVERSE-NAME=a",
        b"NAMES=a",
        b"X=1",
        b"=a",
        b"NAME =a",
        b"NAME= a",
        b"NAME=a,ADDR=1.2.3.4",
        b"N\xc3\x84ME=a",
        # Twice, in any case, also where one of them is not known.
        b"NAME=a NAME=a",
        b"NAME=a name=b",
        b"ADDR=1.2.3.4 PORT=1 ADDR=[UNAVAILABLE]",
        b"LOGIN=[UNAVAILABLE] LOGIN=tim",
        # No words.
        b"NAME=a+20b",
        b"HELO=+20",
        # Nearly what a proxy says when it does not know.
        b"ADDR=UNAVAILABLE",
        b"PORT=[UNAVAILABLE",
        b"PROTO=[UNKNOWN]",
    ],
)
def test_what_is_refused(argument: bytes) -> None:
    assert _refused(argument)


@pytest.mark.parametrize("attribute", [b"ADDR=", b"DESTADDR="])
@pytest.mark.parametrize(
    "address",
    [
        b"1.2.3",
        b"1.2.3.4.5",
        b"1.2.3.256",
        b"01.2.3.4",
        b"1.2.3.4/32",
        b"[1.2.3.4]",
        b"1.2.3.4]",
        b"IPV4:1.2.3.4",
        b"::1",
        b"IPV6:",
        b"IPV6:1.2.3.4",
        b"IPV6:::12345",
        b"IPV6:1::2::3",
        b"IPV6:fe80::1%eth0",
        b"IPV6:::1/128",
        b"[IPV6:::1]",
        b"IPV6:[::1]",
        b"IPV6:+20::1",
        b"client.example",
        b"unix",
    ],
)
def test_what_is_no_address(attribute: bytes, address: bytes) -> None:
    assert _refused(attribute + address)


@pytest.mark.parametrize("attribute", [b"PORT=", b"DESTPORT="])
@pytest.mark.parametrize(
    "port", [b"65536", b"99999", b"000025", b"-1", b"+2B1", b"1_0", b"0x1", b"1.0", b"+201", b"smtp"]
)
def test_what_is_no_port(attribute: bytes, port: bytes) -> None:
    assert _refused(attribute + port)


@pytest.mark.parametrize("protocol", [b"LMTP", b"ESMTPS", b"SMTP+20", b"E", b"1"])
def test_what_is_no_protocol(protocol: bytes) -> None:
    assert _refused(b"PROTO=" + protocol)


# -- properties -------------------------------------------------------------------------------------------------------

_PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=80).filter(
    lambda text: text.upper() not in ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
)
_WORDS = _PRINTABLE.map(lambda text: text.replace(" ", "_"))
_ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
_PORTS = st.integers(0, 65535)


def _written(address: IPv4Address | IPv6Address) -> str:
    return str(address) if address.version == 4 else f"IPV6:{address.exploded}"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    _WORDS, _ADDRESSES, _PORTS, st.sampled_from(["SMTP", "ESMTP"]), _WORDS, _PRINTABLE, _ADDRESSES, _PORTS, st.data()
)
def test_what_is_written_is_read(
    name: str,
    address: IPv4Address | IPv6Address,
    port: int,
    protocol: str,
    helo: str,
    login: str,
    destination: IPv4Address | IPv6Address,
    destination_port: int,
    data: st.DataObject,
) -> None:
    """In any order, and with any of them left out."""
    values = (name, _written(address), port, protocol, helo, login, _written(destination), destination_port)
    meanings = (name, str(address), port, protocol, helo, login, str(destination), destination_port)
    given_ones = data.draw(st.permutations(range(8)))[: data.draw(st.integers(1, 8))]
    argument = " ".join(f"{ATTRIBUTES[at]}={encode_xtext(str(values[at]))}" for at in given_ones)
    expected = [meanings[at] if at in given_ones else None for at in range(8)]
    assert list(astuple(parse_xclient(argument.encode()))) == expected


_PIECES = st.lists(
    st.one_of(
        st.sampled_from([f"{attribute}=".encode() for attribute in ATTRIBUTES]),
        st.sampled_from(
            [b" ", b"=", b"+", b"+41", b"+0A", b"1.2.3.4", b"IPV6:", b"::1", b"25", b"ESMTP", b"[UNAVAILABLE]"]
        ),
        st.binary(max_size=4),
    ),
    max_size=10,
).map(b"".join)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(st.one_of(_PIECES, st.binary(max_size=100)))
def test_whatever_comes_out_may_stand_in_a_log(argument: bytes) -> None:
    """And nothing but SMTPError is raised."""
    if _refused(argument):
        return
    told = parse_xclient(argument)
    for value in astuple(told):
        assert value is None or (str(value).isascii() and str(value).isprintable() and str(value))
    for word in (told.name, told.helo, told.address, told.destination_address):
        assert word is None or " " not in word
