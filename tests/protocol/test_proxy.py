"""The PROXY protocol header, versions 1 and 2: whole, octet by octet, cut anywhere, and with SMTP behind it."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastsmtp.protocol.envelope import Endpoint
from fastsmtp.protocol.proxy import MAX_LINE, ProxyError, ProxyHeader, ProxyReader

MAX_V2_BYTES: Final = 4096
KEPT: Final = ProxyHeader(None, None)
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND: Final = (b"", b"E", b"\r", b"\n", b"EHLO a\r\nMAIL FROM:<>\r\n", b"PROXY UNKNOWN\r\n", SIGNATURE, bytes(5000))
IPV4: Final = bytes((192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0, 25))
IPV6: Final = IPv6Address("2001:db8::1").packed + IPv6Address("::1").packed + b"\xff\xff\x00\x00"

Verdict = tuple[ProxyHeader, bytes] | str | None


def _read(segments: Iterable[bytes], max_v2_bytes: int = MAX_V2_BYTES) -> Verdict:
    """The header and what came behind it, also in later segments; or why it is none; or None: more is needed."""
    reader = ProxyReader(max_v2_bytes)
    remaining = iter(segments)
    for segment in remaining:
        try:
            found = reader.feed(segment)
        except ProxyError as error:
            return str(error)
        if found:
            return found[0], found[1] + b"".join(remaining)
    return None


def _octets(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


def _cut(text: bytes, places: Sequence[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


def _v2(family: int, block: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def _tcp(source: str, source_port: int, destination: str, destination_port: int) -> ProxyHeader:
    return ProxyHeader(Endpoint(source, source_port), Endpoint(destination, destination_port))


# -- headers ----------------------------------------------------------------------------------------------------------

FOUR: Final = _tcp("192.0.2.1", 0x1234, "192.0.2.2", 25)
SIX: Final = _tcp("2001:db8::1", 65535, "::1", 0)
FULL: Final = b"ffff:" * 7 + b"ffff"
MAPPED: Final = b"0000:" * 5 + b"ffff:100.100.100.100"
MANY_TLVS: Final = _tlv(4, b"") * 1361  # with the addresses 4095 octets

HEADERS: Final = [
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 25\r\n", FOUR),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", _tcp("0.0.0.0", 0, "255.255.255.255", 65535)),
    (b"PROXY TCP4 127.0.0.1 10.20.199.249 1 59999\r\n", _tcp("127.0.0.1", 1, "10.20.199.249", 59999)),
    (b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", SIX),
    (b"PROXY TCP6 2001:0DB8:0:0:0:0:0:1 0:0::0:1 65535 0\r\n", SIX),
    (b"PROXY TCP6 :: 1:2:3:4:5:6:7:8 1 2\r\n", _tcp("::", 1, "1:2:3:4:5:6:7:8", 2)),
    (b"PROXY TCP6 %b %b 65535 65535\r\n" % (FULL, FULL), _tcp(FULL.decode(), 65535, FULL.decode(), 65535)),
    (b"PROXY UNKNOWN\r\n", KEPT),
    (b"PROXY UNKNOWN \r\n", KEPT),
    (b"PROXY UNKNOWN  192.0.2.1 TCP4 \0\xff\r\n", KEPT),
    (b"PROXY UNKNOWN %b %b 65535 65535\r\n" % (FULL, FULL), KEPT),  # 107 octets, the longest of section 2.1
    (_v2(0x11, IPV4), FOUR),
    (_v2(0x21, IPV6), SIX),
    (_v2(0x11, IPV4 + _tlv(1, b"smtp") + _tlv(4, b"") + _tlv(0xEA, bytes(300))), FOUR),
    (_v2(0x21, IPV6 + _tlv(0x20, b"\1\0\0\0\0")), SIX),
    (_v2(0x11, IPV4 + MANY_TLVS), FOUR),
    (_v2(0x11, IPV4 + _tlv(4, bytes(MAX_V2_BYTES - 15))), FOUR),
    (_v2(0x00, b""), KEPT),
    (_v2(0x00, b"\xff"), KEPT),
    (_v2(0x00, IPV4), KEPT),
    (_v2(0x31, bytes(216)), KEPT),
    (_v2(0x31, bytes(216) + _tlv(4, b"x")), KEPT),
    (_v2(0x00, b"", command=0x20), KEPT),
    (_v2(0x00, _tlv(3, b"1234"), command=0x20), KEPT),
    (_v2(0x11, IPV4, command=0x20), KEPT),
    # Section 2.2: with LOCAL the family is ignored, and so is the block behind it.
    (_v2(0x12, b"", command=0x20), KEPT),
    (_v2(0xFF, b"\xff\xff\xff\xff", command=0x20), KEPT),
    (_v2(0x21, bytes(MAX_V2_BYTES), command=0x20), KEPT),
]


@pytest.mark.parametrize(("octets", "header"), HEADERS)
@pytest.mark.parametrize("behind", BEHIND)
def test_headers(octets: bytes, header: ProxyHeader, behind: bytes) -> None:
    assert _read([octets + behind]) == (header, behind)
    assert _read(_octets(octets + behind)) == (header, behind)
    assert _read([octets, behind]) == (header, behind)
    assert _read([octets[:-1], octets[-1:] + behind]) == (header, behind)


@pytest.mark.parametrize("octets", [octets for octets, _ in HEADERS if len(octets) < 400])
def test_half_a_header_is_none(octets: bytes) -> None:
    for end in range(len(octets)):
        assert _read([octets[:end]]) is None
    assert _read(_octets(octets[:-1])) is None


def test_a_read_of_nothing_means_nothing() -> None:
    assert _read([]) is None
    assert _read([b"", b"PROXY", b"", b" UNKNOWN\r", b"", b"\n", b""]) == (KEPT, b"")


@pytest.mark.parametrize("address", ["::ffff:192.0.2.1", "0:0:0:0:0:FFFF:192.0.2.1", "::ffff:c000:201"])
def test_an_ipv4_address_within_ipv6(address: str) -> None:
    """Python versions differ in how they write it."""
    verdict = _read([f"PROXY TCP6 {address} ::2 1 2\r\n".encode()])
    assert verdict == (_tcp(str(IPv6Address("::ffff:192.0.2.1")), 1, "::2", 2), b"")


# -- what is none -----------------------------------------------------------------------------------------------------

# What may still become a header, and the octet that makes it none.
WRONG_OCTETS: Final = [
    *((b"", octet) for octet in (b"E", b"p", b"\n", b"\0", b" ", b"\x16", b"\xff", b"Q", b"X")),
    (b"P", b"\r"),
    (b"P", b"r"),
    (b"PRO", b"P"),
    (b"PROXY", b"\r"),
    (b"PROXY", b"\t"),
    (b"PROXY", b"2"),
    (b"PROXY ", b" "),
    (b"PROXY ", b"\r"),
    (b"PROXY ", b"t"),
    (b"PROXY ", b"u"),
    (b"PROXY TCP", b"5"),
    (b"PROXY TCP", b" "),
    (b"PROXY TCP4", b"\r"),
    (b"PROXY TCP4", b"\t"),
    (b"PROXY TCP4 ", b" "),
    (b"PROXY TCP4 ", b"\r"),
    (b"PROXY TCP4 ", b"a"),
    (b"PROXY TCP4 ", b":"),
    (b"PROXY TCP4 ", b"."),
    (b"PROXY TCP4 ", b"+"),
    (b"PROXY TCP4 ", b"\xd9"),  # the first octet of an Arabic digit in UTF-8
    (b"PROXY TCP4 0", b"1"),
    (b"PROXY TCP4 25", b"6"),
    (b"PROXY TCP4 30", b"0"),
    (b"PROXY TCP4 1", b" "),
    (b"PROXY TCP4 1.2.3", b" "),
    (b"PROXY TCP4 1.2.3.", b" "),
    (b"PROXY TCP4 1.2.3.4", b"."),
    (b"PROXY TCP4 1.2.3.4", b"/"),
    (b"PROXY TCP4 1.2.3.4", b"\r"),
    (b"PROXY TCP4 1.2.3.4", b"\n"),
    (b"PROXY TCP4 1.2.3.4 ", b" "),
    (b"PROXY TCP4 1.2.3.4 ", b":"),
    (b"PROXY TCP4 1.2.3.4 5.6.7", b"\r"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8", b"\r"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8", b"\t"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 ", b" "),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 ", b"+"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 ", b"-"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 ", b"x"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 ", b"\r"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 0", b"1"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 0", b"0"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1", b"_"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1", b"\xd9"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1", b"\r"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 6553", b"6"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 9999", b"9"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 12345", b"6"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 ", b" "),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 ", b"\r"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2", b" "),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2", b"\n"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2", b"\0"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r", b"\r"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r", b"E"),
    (b"PROXY TCP6 ", b" "),
    (b"PROXY TCP6 ", b"g"),
    (b"PROXY TCP6 ", b"["),
    (b"PROXY TCP6 fe80::1", b"%"),
    (b"PROXY TCP6 ::1", b"/"),
    (b"PROXY TCP6 1.2.3.4", b" "),
    (b"PROXY TCP6 :", b" "),
    (b"PROXY TCP6 ::1::", b" "),
    (b"PROXY TCP6 ::12345", b" "),
    (b"PROXY TCP6 1:2:3:4:5:6:7", b" "),
    (b"PROXY TCP6 1:2:3:4:5:6:7:8:9", b" "),
    (b"PROXY TCP6 ::ffff:192.0.2.256", b" "),
    (b"PROXY TCP6 ::1 ", b" "),
    (b"PROXY TCP6 ::1 1.2.3.4", b" "),
    (b"PROXY TCP6 ::1 ::2", b"\r"),
    (b"PROXY TCP6 ::1 ::2 1 65535", b"0"),
    (b"PROXY TCP6 " + b"0" * 45, b"0"),
    (b"PROXY UNKNOW", b"M"),
    (b"PROXY UNKNOWN", b"S"),
    (b"PROXY UNKNOWN", b"\n"),
    (b"PROXY UNKNOWN", b"\t"),
    (b"PROXY UNKNOWN x", b"\n"),
    (b"PROXY UNKNOWN\r", b"\r"),
    (b"PROXY UNKNOWN x\r", b" "),
    (b"PROXY UNKNOWN ".ljust(MAX_LINE - 2, b"x"), b"x"),
    (b"PROXY UNKNOWN ".ljust(MAX_LINE - 2, b"\xff"), b" "),
    (b"PROXY TCP6 %b %b 65" % (MAPPED, MAPPED), b"5"),  # an address of this length leaves no room for ports
    (b"\r", b"\r"),
    (b"\r\n", b"E"),
    (SIGNATURE[:4], b"\r"),
    (SIGNATURE[:-1], b"\r"),
    *((SIGNATURE, bytes((octet,))) for octet in (0x00, 0x02, 0x10, 0x11, 0x22, 0x2F, 0x31, 0xFF)),
    *((SIGNATURE + b"\x21", bytes((octet,))) for octet in (0x01, 0x10, 0x12, 0x13, 0x20, 0x22, 0x30, 0x32, 0x41, 0xFF)),
    (SIGNATURE + b"\x21\x11\x00", b"\x0b"),
    (SIGNATURE + b"\x21\x21\x00", b"\x23"),
    (SIGNATURE + b"\x21\x31\x00", b"\xd7"),
    (SIGNATURE + b"\x21\x11\x10", b"\x01"),
    (SIGNATURE + b"\x21\x11", b"\x11"),
    (SIGNATURE + b"\x21\x00\x10", b"\x01"),
    (SIGNATURE + b"\x20\x00\x10", b"\x01"),
    (SIGNATURE + b"\x20\x00", b"\xff"),
    # No TLV is shorter than three octets.
    (SIGNATURE + b"\x21\x11\x00", b"\x0d"),
    (SIGNATURE + b"\x21\x11\x00", b"\x0e"),
    (SIGNATURE + b"\x21\x31\x00", b"\xd9"),
    (_v2(0x11, IPV4 + b"\x04\x00", length=15), b"\x01"),
    (_v2(0x11, IPV4 + b"\x04", length=16), b"\x01"),
    (_v2(0x11, IPV4 + b"\x04", length=15), b"\xff"),
    (_v2(0x11, IPV4 + b"\x04\x00", length=18), b"\x01"),
    (_v2(0x11, IPV4 + b"\x04\x00", length=18), b"\x02"),
    (_v2(0x21, IPV6 + _tlv(1, b"smtp") + b"\x02\x00", length=36 + 7 + 3 + 9), b"\x0a"),
    (_v2(0x31, bytes(216) + b"\x01\x00", length=216 + 3), b"\x01"),
]


@pytest.mark.parametrize(("begun", "wrong"), WRONG_OCTETS)
def test_the_first_octet_that_cannot_belong(begun: bytes, wrong: bytes) -> None:
    assert _read([begun]) is None
    assert _read(_octets(begun)) is None
    reason = _read([begun, wrong])
    assert isinstance(reason, str)
    assert reason
    for behind in BEHIND:
        assert _read([begun + wrong + behind]) == reason
        assert _read(_octets(begun + wrong + behind)) == reason


@pytest.mark.parametrize(
    "octets",
    [b"EHLO a\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PROXY  UNKNOWN\r\n", b"proxy unknown\r\n"],
)
def test_other_protocols(octets: bytes) -> None:
    assert isinstance(_read([octets]), str)
    assert isinstance(_read(_octets(octets)), str)


def test_the_limit_of_version_2() -> None:
    octets = _v2(0x11, IPV4 + _tlv(4, b"abc"))
    assert _read([octets], 18) == (FOUR, b"")
    assert _read([octets], 17) == _read(_octets(octets), 17) == "more than 17 octets of addresses and TLVs"
    assert _read([_v2(0x00, b"", command=0x20)], 0) == (KEPT, b"")


def test_the_longest_line() -> None:
    longest = b"PROXY UNKNOWN ".ljust(MAX_LINE - 2, b"x") + b"\r\n"
    assert _read([longest + b"EHLO"]) == (KEPT, b"EHLO")
    assert isinstance(_read([b"PROXY UNKNOWN " + longest[13:]]), str)


def test_the_reason_holds_no_octets_of_the_peer() -> None:
    assert _read([b"PROXY TCP4 \x1b[31m"]) == "not an IPv4 address"


# -- properties -------------------------------------------------------------------------------------------------------

_PORTS = st.integers(0, 65535)
_ADDRESSES = st.one_of(
    st.tuples(st.just((4, 0x11)), st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.just((6, 0x21)), st.ip_addresses(v=6), st.ip_addresses(v=6)),
)
_TLVS = st.lists(st.builds(_tlv, st.integers(0, 255), st.binary(max_size=20)), max_size=5).map(b"".join)
_PLACES = st.lists(st.integers(0, 10_000), max_size=8)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(_ADDRESSES, _PORTS, _PORTS, _TLVS, _PLACES, st.binary(max_size=20))
def test_both_versions_say_the_same(
    addresses: tuple[tuple[int, int], IPv4Address | IPv6Address, IPv4Address | IPv6Address],
    source_port: int,
    destination_port: int,
    tlvs: bytes,
    places: list[int],
    behind: bytes,
) -> None:
    (version, family), source, destination = addresses
    line = f"PROXY TCP{version} {source.exploded} {destination} {source_port} {destination_port}\r\n".encode()
    block = source.packed + destination.packed + struct.pack("!HH", source_port, destination_port)
    expected = _tcp(str(source), source_port, str(destination), destination_port), behind
    for header in (line, _v2(family, block + tlvs)):
        assert _read(_cut(header + behind, places)) == expected


# Pieces of headers, whole ones among them: most of what comes out is nearly a header.
_PIECES = st.lists(
    st.one_of(
        st.sampled_from([octets for octets, _ in HEADERS if len(octets) < 300]),
        st.sampled_from([begun for begun, _ in WRONG_OCTETS]),
        st.sampled_from(
            [b"PROXY", b" ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"1.2.3.4 ", b"::1 ", b"1 2", b"\r\n", b"\r", b"\n", b"0"]
        ),
        st.sampled_from(
            [SIGNATURE, b"\x21\x11", b"\x21\x00", b"\x20", b"\x00\x0c", b"\x00\x10", IPV4, b"\x04\x00\x01"]
        ),
        st.binary(max_size=4),
    ),
    max_size=6,
).map(b"".join)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(_PIECES, _PLACES)
@example(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3" + b"x" * 100, [])  # several faults: the first one counts
@example(b"PROXY TCP6 " + b"0" * 200, [])
@example(b"PROXY TCP4 1.2.3.4\rx", [])
def test_segments_mean_nothing(octets: bytes, places: list[int]) -> None:
    whole = _read([octets])
    assert _read(_octets(octets)) == whole
    assert _read(_cut(octets, places)) == whole
    if isinstance(whole, tuple):
        assert octets.endswith(whole[1])
        assert _read([octets[: len(octets) - len(whole[1])]]) == (whole[0], b"")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", b"PROXY TCP6 ", SIGNATURE, SIGNATURE + b"\x21"]))
def test_random_octets_raise_nothing_else(octets: bytes, begun: bytes) -> None:
    assert _read(_octets(begun + octets)) == _read([begun + octets])


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(alphabet="0123456789abcdefF:.", max_size=45))
@example("::ffff:1.2.3.4")
@example("1::2::3")
def test_every_text_is_an_address_or_an_error(text: str) -> None:
    for version, parse in ((4, IPv4Address), (6, IPv6Address)):
        verdict = _read([f"PROXY TCP{version} {text} ".encode()])
        try:
            parse(text)
        except ValueError:
            assert verdict == f"not an IPv{version} address"
        else:
            assert verdict is None


def test_many_short_reads_cost_no_more() -> None:
    """Linear in the length: 0.2 s of processor time; one that began anew with each read would take minutes."""
    octets = _v2(0x11, IPV4 + _tlv(4, b"") * 21_000)
    start = time.process_time()
    assert _read(_octets(octets), 65535) == (FOUR, b"")
    assert time.process_time() - start < 5
