"""Which hosts take the mail of a domain (RFC 5321 5, RFC 7505), as a name server of the test's own tells."""

from __future__ import annotations

import pytest

from fastsmtp.client import Hop
from fastsmtp.delivery import resolver
from fastsmtp.delivery.resolver import Resolver
from fastsmtp.delivery.routes import Exchangers, NoRouteError, Relay
from tests.client.hops import run
from tests.delivery.name_server import Zone, name_server

ZONE: Zone = {
    "two.example MX": "20 b.example., 10 a.example.",
    "a.example A": "127.0.0.1",
    "b.example A": "127.0.0.2",
    "b.example AAAA": "::1",
    "equal.example MX": "10 a.example., 10 c.example.",
    "c.example A": "127.0.0.4",
    "implicit.example A": "127.0.0.5",
    "alias.example CNAME": "two.example",
    "null.example MX": "0 .",
    "half.example MX": "0 ., 10 a.example.",
    "lost.example MX": "10 nowhere.example., 20 a.example.",
    "nohost.example MX": "10 nowhere.example.",
    "broken.example MX": "SERVFAIL",
    "shaky.example MX": "10 brokenhost.example., 20 a.example.",
    "shakier.example MX": "10 brokenhost.example.",
    "brokenhost.example A": "SERVFAIL",
    "brokenhost.example AAAA": "SERVFAIL",
    "halfbroken.example A": "127.0.0.6",
    "halfbroken.example AAAA": "SERVFAIL",
    "backup.example MX": "10 a.example., 20 us.example., 30 b.example.",
    "us.example A": "127.0.0.9",
    "loop.example MX": "10 US.example., 20 a.example.",
    "many.example MX": ", ".join(f"{number} m{number}.example." for number in range(20)),
    **{f"m{number}.example A": f"127.0.1.{number}" for number in range(20)},
    "txt.example TXT": '"nothing else"',
    "xn--mller-kva.example MX": "10 a.example.",
}
PATTERN = Hop("mx", 2525, security="required")


def hosts(domain: str, times: int = 1) -> list[list[tuple[str, str]]]:
    """Host and address, in the order in which they are tried; several times."""

    async def main() -> list[list[tuple[str, str]]]:
        with name_server(ZONE) as server:
            routes = Exchangers(Resolver(server.address), PATTERN, "us.example")
            found = []
            for _ in range(times):
                hops = await routes.hops(domain)
                assert all((hop.port, hop.security) == (2525, "required") for hop in hops)
                found.append([(hop.host, hop.address) for hop in hops])
            return found

    return run(main())


A = ("a.example", "127.0.0.1")


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("two.example", [A, ("b.example", "::1"), ("b.example", "127.0.0.2")]),
        ("implicit.example", [("implicit.example", "127.0.0.5")]),
        ("halfbroken.example", [("halfbroken.example", "127.0.0.6")]),
        ("alias.example", [A, ("b.example", "::1"), ("b.example", "127.0.0.2")]),
        ("half.example", [A]),
        ("lost.example", [A]),
        ("shaky.example", [A]),
        ("backup.example", [A]),
        ("müller.example", [A]),
        ("[127.0.0.7]", [("127.0.0.7", "127.0.0.7")]),
        ("[IPv6:::1]", [("IPv6:::1", "::1")]),
    ],
)
def test_hosts_in_their_order(domain: str, expected: list[tuple[str, str]]) -> None:
    assert hosts(domain) == [expected]


def test_hosts_of_one_preference_take_turns() -> None:
    first = {found[0][0] for found in hosts("equal.example", 64)}
    assert first == {"a.example", "c.example"}  # by chance not so once in 2 ** 63


def test_not_every_host_of_many_is_tried() -> None:
    assert hosts("many.example") == [[(f"m{number}.example", f"127.0.1.{number}") for number in range(10)]]


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ("nowhere.example", "550 5.1.2"),
        ("null.example", "556 5.1.10"),
        ("nohost.example", "550 5.4.4"),
        ("txt.example", "550 5.4.4"),
        ("broken.example", "451 4.4.3"),
        ("shakier.example", "451 4.4.3"),
        ("loop.example", "554 5.4.6"),
        ("[127.0.0.300]", "550 5.1.2"),
        ("[tag:x]", "550 5.1.2"),
        ("", "550 5.1.2"),
        (f"{'x' * 64}.example", "550 5.1.2"),
    ],
)
def test_no_way(domain: str, said: str) -> None:
    with pytest.raises(NoRouteError) as caught:
        hosts(domain)
    assert str(caught.value).startswith(said)


def test_a_silent_name_server_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "_LIFETIME", 0.2)
    monkeypatch.setitem(ZONE, "silent.example MX", "SILENCE")
    with pytest.raises(NoRouteError, match=r"451 4\.4\.3 DNS does not answer: silent\.example: LifetimeTimeout"):
        hosts("silent.example")


def test_answers_are_kept() -> None:
    async def main() -> list[str]:
        with name_server(ZONE) as server:
            routes = Exchangers(Resolver(server.address), PATTERN, "us.example")
            for _ in range(3):
                await routes.hops("implicit.example")
            return server.asked

    assert sorted(run(main())) == ["implicit.example A", "implicit.example AAAA", "implicit.example MX"]


def test_a_relay_takes_everything() -> None:
    hop = Hop("relay.example")
    assert list(run(Relay(hop).hops("x.example"))) == [hop]
