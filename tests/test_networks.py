"""Sets of networks: what is in them, what is refused, and IPv4 addresses in either spelling."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastsmtp.networks import Networks, address_octets

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

IPV4 = st.ip_addresses(v=4)
IPV6 = st.ip_addresses(v=6)


@pytest.mark.parametrize(
    ("networks", "host", "inside"),
    [
        (["10.0.0.0/8"], "10.0.0.0", True),
        (["10.0.0.0/8"], "10.255.255.255", True),
        (["10.0.0.0/8"], "11.0.0.0", False),
        (["10.0.0.0/8"], "9.255.255.255", False),
        (["192.0.2.1"], "192.0.2.1", True),
        (["192.0.2.1"], "192.0.2.2", False),
        (["0.0.0.0/0"], "203.0.113.9", True),
        (["2001:db8::/32"], "2001:db8:ffff::1", True),
        (["2001:db8::/32"], "2001:db9::", False),
        (["::1"], "::1", True),
        (["::1"], "0:0:0:0:0:0:0:1", True),
        (["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"], "192.0.2.77", True),
        (["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"], "2001:db8::77", True),
        (["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"], "198.51.100.1", False),
        # an IPv4 address is one in either spelling, on both sides
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "::FFFF:0a01:0203", True),
        (["10.0.0.0/8"], "::ffff:11.1.2.3", False),
        (["::ffff:10.0.0.0/104"], "10.1.2.3", True),
        (["::ffff:10.0.0.0/104"], "::ffff:10.1.2.3", True),
        (["::ffff:10.0.0.0/104"], "::ffff:11.1.2.3", False),
        # one family is not in the other, whatever the numbers
        (["0.0.0.0/0"], "::1", False),
        (["0.0.0.0/0"], "::10.1.2.3", False),
        (["::/0"], "10.1.2.3", False),
        (["::/0"], "::ffff:10.1.2.3", False),
        (["0.0.0.1"], "::1", False),
        # a zone says by which interface, not who
        (["fe80::/10"], "fe80::1%eth0", True),
        (["fe80::/10"], "fe80::1%", True),
        (["::1"], "::1%lo%lo", True),
        ([], "192.0.2.1", False),
    ],
)
def test_what_is_in_a_network(networks: list[str], host: str, inside: bool) -> None:
    found = Networks(networks)
    assert (host in found) is inside
    assert (host in found) is inside  # remembered


NO_ADDRESSES = (
    *("unix", "", "localhost", "10.1", "10.1.2", "10.1.2.3.4", "010.1.2.3", "10.1.2.03", "10.1.2.256", " 10.1.2.3"),
    *("10.1.2.3 ", "10.1.2.3\n", "10.1.2.3\0", "10.1.2.3/32", "10.1.2.3%eth0", "0x0a010203", "167838211"),
    *("\u0661\u0660.1.2.3", "\ud800", "::1::", ":", "%", "%:", "[::1]", "::ffff:10.1.2", "::\0", "1:2:3:4:5:6:7:8:9"),
)


@pytest.mark.parametrize("host", NO_ADDRESSES)
def test_no_address_is_in_no_network(host: str) -> None:
    assert host not in Networks(["0.0.0.0/0", "::/0"])
    assert address_octets(host) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a network such as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32, got ''"),
        ("ten", "expected a network such as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32, got 'ten'"),
        ("10.0.0.0/33", "expected a network such as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32, got '10.0.0.0/33'"),
        ("10.0.0.0/8 ", "expected a network such as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32, got '10.0.0.0/8 '"),
        ("fe80::%1/64", "expected a network such as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32, got 'fe80::%1/64'"),
        ("10.0.0.1/8", "bits are set behind the prefix of '10.0.0.1/8'; the network is 10.0.0.0/8"),
        ("2001:db8::1/32", "bits are set behind the prefix of '2001:db8::1/32'; the network is 2001:db8::/32"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="network") as caught:
        Networks(["192.0.2.0/24", text])
    assert str(caught.value) == message


def test_an_empty_set_is_false() -> None:
    assert not Networks()
    assert not Networks([])
    assert Networks(["0.0.0.0/0"])


def test_networks_are_listed_once_as_they_are_usually_written() -> None:
    networks = Networks(["10.0.0.0/255.0.0.0", "192.0.2.1", "10.0.0.0/8", "2001:DB8:0::/32", "::ffff:192.0.2.1"])
    assert list(networks) == ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]
    assert str(networks) == "10.0.0.0/8, 192.0.2.1/32, 2001:db8::/32"
    assert str(Networks()) == ""
    assert list(Networks(networks)) == list(networks)


def test_what_is_remembered_is_bounded_and_right() -> None:
    networks = Networks(["10.0.0.0/17"])
    hosts = [f"10.0.{number >> 8}.{number & 255}" for number in range(0, 65536, 7)]
    for _ in range(2):
        assert sum(host in networks for host in hosts) == len(range(0, 32768, 7))


def _is_mapped(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(IPV4 | IPV6, st.integers(0, 128)), max_size=6), IPV4 | IPV6, st.integers(0, 128))
def test_the_same_as_ipaddress_says(pairs: list[tuple[Address, int]], host: Address, shared: int) -> None:
    assume(not any(map(_is_mapped, (host, *(address for address, _ in pairs)))))  # ipaddress keeps these apart
    made = [_network(address, bits) for address, bits in pairs]
    assert (str(host) in Networks(map(str, made))) == any(host in network for network in made)
    # Hardly ever is it in one by chance.
    assert str(host) in Networks(map(str, [*made, _network(host, shared)]))


def _network(address: Address, bits: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network((address.packed, min(bits, address.max_prefixlen)), strict=False)
