"""Where to listen: addresses, the options behind them, and the way from text to Listen and back."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.config import SETTINGS, Config, ConfigError, Listen

TCP = [
    ("127.0.0.1:1025", Listen("127.0.0.1", 1025), "127.0.0.1:1025"),
    ("localhost:0", Listen("localhost", 0), "localhost:0"),
    ("mx_1.example.com:65535", Listen("mx_1.example.com", 65535), "mx_1.example.com:65535"),
    (":2525", Listen("0.0.0.0", 2525), "0.0.0.0:2525"),
    ("*:2525", Listen("0.0.0.0", 2525), "0.0.0.0:2525"),
    ("[::1]:25", Listen("::1", 25), "[::1]:25"),
    ("[::]:25", Listen("::", 25), "[::]:25"),
    ("[fe80::1%eth0]:25", Listen("fe80::1%eth0", 25), "[fe80::1%eth0]:25"),
]
UNIX = [
    ("unix:/run/mail.sock", Listen("", 0, "/run/mail.sock"), "unix:/run/mail.sock"),
    ("unix:mail:25", Listen("", 0, "mail:25"), "unix:mail:25"),
    ("unix:" + "x" * 107, Listen("", 0, "x" * 107), "unix:" + "x" * 107),
]


@pytest.mark.parametrize(("text", "parsed", "canonical"), TCP + UNIX)
def test_listen_addresses(text: str, parsed: Listen, canonical: str) -> None:
    assert Listen.parse(text) == parsed
    assert str(parsed) == canonical
    assert Listen.parse(canonical) == parsed


@pytest.mark.parametrize(
    ("text", "explained"),
    [
        ("", "HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N"),
        ("1025", "HOST:PORT"),
        ("localhost:", "HOST:PORT"),
        ("localhost:smtp", "HOST:PORT"),
        ("local host:25", "HOST:PORT"),
        ("localhost:-1", "HOST:PORT"),
        ("localhost:\u0662\u0665", "HOST:PORT"),
        ("localhost:65536", "a port from 0 to 65535"),
        ("localhost:99999", "a port from 0 to 65535"),
        ("::1:25", "brackets around an IPv6 address"),
        ("[::1]", "[IPV6]:PORT"),
        ("[]:25", "an IPv6 address between the brackets"),
        ("[127.0.0.1]:25", "an IPv6 address between the brackets"),
        ("[::g]:25", "an IPv6 address between the brackets"),
        ("unix:", "unix:PATH with a path of 1 to 107 octets"),
        ("unix:a\0b", "unix:PATH with a path of 1 to 107 octets"),
        ("unix:" + "x" * 108, "unix:PATH with a path of 1 to 107 octets"),
        ("unix:" + "\u00e9" * 54, "unix:PATH with a path of 1 to 107 octets"),
    ],
)
def test_what_is_no_listen_address_is_explained(text: str, explained: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(explained)) as caught:
        Listen.parse(text)
    assert str(caught.value).endswith(f"got {text!r}")


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_can_be_listened_on(address: object, port: int) -> None:
    where = Listen(str(address), port)
    assert Listen.parse(str(where)) == where


# Options


@pytest.mark.parametrize(
    ("text", "address", "options", "canonical"),
    [
        ("0.0.0.0:25", "0.0.0.0:25", (), "0.0.0.0:25"),
        ("127.0.0.1:24 lmtp", "127.0.0.1:24", (("lmtp", ""),), "127.0.0.1:24 lmtp"),
        (":465 implicit-tls", "0.0.0.0:465", (("implicit_tls", ""),), "0.0.0.0:465 implicit_tls"),
        ("[::1]:25 lmtp=no", "[::1]:25", (("lmtp", "no"),), "[::1]:25 lmtp=no"),
        ("unix:/run/mail.sock lmtp", "unix:/run/mail.sock", (("lmtp", ""),), "unix:/run/mail.sock lmtp"),
        (
            "  a:1\t require_auth\n max-errors=5 ",
            "a:1",
            (("require_auth", ""), ("max_errors", "5")),
            "a:1 require_auth max_errors=5",
        ),
        (
            "a:1 xclient_networks=::1,10.0.0.0/8 xclient_networks=192.0.2.1",
            "a:1",
            (("xclient_networks", "::1,10.0.0.0/8"), ("xclient_networks", "192.0.2.1")),
            "a:1 xclient_networks=::1,10.0.0.0/8 xclient_networks=192.0.2.1",
        ),
        ("a:1 users=x=y-z", "a:1", (("users", "x=y-z"),), "a:1 users=x=y-z"),
    ],
)
def test_options_stand_behind_the_address(
    text: str, address: str, options: tuple[tuple[str, str], ...], canonical: str
) -> None:
    listen = Listen.parse(text)
    assert listen.address == address
    assert listen.options == options
    assert str(listen) == canonical
    assert Listen.parse(canonical) == listen


@pytest.mark.parametrize("option", ["=x", "lmtp=", "=", "-lmtp", "--lmtp", "1mtp", "lmtp,vrfy", "lm\u00e9tp", ","])
def test_what_is_no_option_is_explained(option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Listen.parse(f"a:1 {option} vrfy")
    expected = f"expected NAME or NAME=VALUE behind the address, not {option!r}, got {f'a:1 {option} vrfy'!r}"
    assert str(caught.value) == expected


# Several listeners in one text


@pytest.mark.parametrize(
    ("text", "listeners"),
    [
        ("127.0.0.1:25,127.0.0.1:26", ("127.0.0.1:25", "127.0.0.1:26")),
        (
            "a:1 lmtp , [::1]:2 vrfy=no,unix:/run/x lmtp,*:3",
            ("a:1 lmtp", "[::1]:2 vrfy=no", "unix:/run/x lmtp", "0.0.0.0:3"),
        ),
        ("a:1 lmtp\n,\n:2 lmtp", ("a:1 lmtp", "0.0.0.0:2 lmtp")),
        # Commas within a value: what follows is no address.
        (
            "a:1 exempt_networks=10.0.0.0/8,::1,fe80::/10,192.0.2.1, b:2 tls_certfile=a.pem,b.pem",
            ("a:1 exempt_networks=10.0.0.0/8,::1,fe80::/10,192.0.2.1", "b:2 tls_certfile=a.pem,b.pem"),
        ),
        ("a:1 auth_mechanisms=PLAIN,LOGIN,c:3", ("a:1 auth_mechanisms=PLAIN,LOGIN", "c:3")),
        ("unix:/run/a,b", ("unix:/run/a,b",)),
    ],
)
def test_a_comma_in_front_of_an_address_begins_a_listener(text: str, listeners: tuple[str, ...]) -> None:
    assert SETTINGS["listen"].read(text, "") == listeners
    assert SETTINGS["listen"].read([text, "z:9"], "") == (*listeners, "z:9")
    assert SETTINGS["listen"].read(", ".join(listeners), "") == listeners


@pytest.mark.parametrize("text", ["a:1,", ",a:1", "a:1,,b:2", "a:1,b", "a:1,::1:2", "a:1 lmtp,"])
def test_a_comma_in_front_of_anything_else_does_not(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^HERE: expected "):
        SETTINGS["listen"].read(text, "HERE")


# What holds at a listener


def test_what_a_client_meets_may_be_set_for_one_listener() -> None:
    own = {about.section for about in SETTINGS.values() if about.per_listener} - {"Server"}
    assert own == {"Message", "Session", "Extensions", "TLS", "Authentication", "Networks", "Timeouts"}
    server_wide = [name for name, about in SETTINGS.items() if about.section in own and not about.per_listener]
    assert server_wide == ["users", "auth_failures_window"]
    assert [name for name, about in SETTINGS.items() if about.per_listener and about.section == "Server"] == [
        "hostname",
        "socket_mode",
    ]


def test_a_listener_without_options_has_the_values_of_the_server() -> None:
    config = Config.of(listen="a:1, b:2 lmtp")
    assert config.for_listener(Listen.parse("a:1")) == config


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("lmtp", "lmtp", True),
        ("lmtp=yes", "lmtp", True),
        ("vrfy=off", "vrfy", False),
        ("early-talker=REJECT", "early_talker", "reject"),
        ("max_message_bytes=1M", "max_message_bytes", 2**20),
        ("command-timeout=10m", "command_timeout", 600.0),
        ("hostname=mx.example.com", "hostname", "mx.example.com"),
        ("tls_certfile=b.pem,c.pem", "tls_certfile", ("b.pem", "c.pem")),
        ("tls_certfile=b.pem tls-certfile=c.pem", "tls_certfile", ("b.pem", "c.pem")),
        ("tls_certfile=none", "tls_certfile", ()),
        ("tls_client_ca=none", "tls_client_ca", None),
        ("xclient_networks=10.0.0.0/8 xclient_networks=::1", "xclient_networks", ("10.0.0.0/8", "::1/128")),
        ("xclient_networks=10.0.0.0/8,::1", "xclient_networks", ("10.0.0.0/8", "::1/128")),
        ("exempt_networks=none", "exempt_networks", ()),
    ],
)
def test_a_listener_has_its_own_values(option: str, name: str, value: Any) -> None:
    config = Config.of(listen=["a:1", f"b:2 {option}"], tls_certfile="a.pem", tls_client_ca="c.pem", max_errors=7)
    own = config.for_listener(Listen.parse(config.listen[1]))
    assert own == replace(config, **{name: value})
    assert own != config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("lmtp=maybe", "lmtp: expected true or false, yes or no, on or off, 1 or 0, got 'maybe'"),
        ("max_errors=0", "max_errors: expected a whole number from 1 to 2147483647, got '0'"),
        ("max_errors", "max_errors: needs a value, max_errors=N"),
        ("tls_certfile", "tls_certfile: needs a value, tls_certfile=FILE"),
        ("hostname", "hostname: needs a value, hostname=NAME"),
        ("tls_min_version", "tls_min_version: needs a value, tls_min_version=1.2|1.3"),
        ("max_errors=1 vrfy max-errors=2", "max_errors: is given twice"),
        ("lmtp lmtp", "lmtp: is given twice"),
        ("lmpt", "lmpt: no such setting, did you mean lmtp?"),
        ("workers=2", "workers: is set for the whole server only"),
        ("max_connections=2", "max_connections: is set for the whole server only"),
        ("listen=b:2", "listen: is set for the whole server only"),
    ],
)
def test_a_wrong_option_is_named_with_its_listener(options: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.of(listen=f"a:1, [::1]:2 {options}")
    assert str(caught.value) == f"listener [::1]:2: {message}"
    with pytest.raises(ConfigError) as later:
        Config().for_listener(Listen.parse(f"[::1]:2 {options}"))
    assert str(later.value) == str(caught.value)


CONTRADICTIONS = [
    ("proxy_protocol=on", "proxy_protocol needs proxy_networks", "proxy_networks=::1"),
    ("implicit_tls=on", "implicit_tls needs tls_certfile", "tls_certfile=a.pem"),
    ("require_tls=on", "require_tls needs tls_certfile", "tls_certfile=a.pem"),
    ("tls_keyfile=a.key", "tls_keyfile needs a file for each tls_certfile, or none", "tls_certfile=a.pem"),
    (
        "tls_certfile=a.pem,b.pem tls_keyfile=a.key",
        "tls_keyfile needs a file for each tls_certfile, or none",
        None,
    ),
    ("tls_verify_client=optional", "tls_verify_client needs tls_client_ca", "tls_client_ca=ca.pem"),
    ("tls_verify_client=required", "tls_verify_client needs tls_client_ca", "tls_client_ca=ca.pem"),
    ("binarymime=on chunking=off", "binarymime needs chunking", None),
    ("lmtp=on", "lmtp must not be on TCP port 25 (RFC 2033 5)", None),
]


@pytest.mark.parametrize(("options", "message", "cure"), CONTRADICTIONS)
def test_the_values_of_a_listener_must_not_contradict_each_other(options: str, message: str, cure: str | None) -> None:
    of_server = dict(option.split("=") for option in options.split())
    for listener, settings in [(f"a:25 {options}", {}), ("a:25", of_server)]:
        with pytest.raises(ConfigError) as caught:
            Config.of(listen=listener, **settings)
        assert str(caught.value) == f"listener a:25: {message}"
        if cure:
            Config.of(listen=f"{listener} {cure}", **settings)


def test_a_listener_may_lift_what_holds_for_the_server() -> None:
    Config.of(implicit_tls=True, tls_certfile="a.pem", listen="a:25, b:26 tls_certfile=none implicit_tls=no")
    Config.of(lmtp=True, listen="a:24, b:25 lmtp=no")
    with pytest.raises(ConfigError, match=r"^listener b:26: implicit_tls needs tls_certfile$"):
        Config.of(implicit_tls=True, tls_certfile="a.pem", listen="a:25, b:26 tls_certfile=none")


@pytest.mark.parametrize("listener", ["a:24 lmtp", "unix:/run/mail:25 lmtp", "a:0 lmtp", "a:2525 lmtp"])
def test_lmtp_may_be_anywhere_but_on_port_25(listener: str) -> None:
    assert Config.of(listen=listener).for_listener(Listen.parse(listener)).lmtp


def test_listeners_of_every_kind_side_by_side() -> None:
    config = Config.of(
        tls_certfile="mx.pem",
        listen=[
            "0.0.0.0:25",
            "0.0.0.0:465 implicit_tls require_auth",
            "127.0.0.1:24 lmtp",
            "0.0.0.0:2525 proxy_protocol proxy_networks=10.0.0.0/8",
            "unix:/run/fastsmtp.sock lmtp",
        ],
    )
    mx, submissions, local, proxied, unix = (config.for_listener(Listen.parse(text)) for text in config.listen)
    assert mx == config
    assert submissions == replace(config, implicit_tls=True, require_auth=True)
    assert local == unix == replace(config, lmtp=True)
    assert proxied == replace(config, proxy_protocol=True, proxy_networks=("10.0.0.0/8",))


# Invariants

_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
_VALUES = st.text().filter(lambda text: not any(character.isspace() for character in text))
_OPTIONS = st.lists(st.tuples(_NAMES, _VALUES)).map(tuple)
_HOSTS = st.ip_addresses().map(str) | st.from_regex(r"[A-Za-z0-9_.-]{1,30}", fullmatch=True)
_PATHS = st.from_regex(r"[!-~\u00e9]{1,50}", fullmatch=True)
_PLACES = st.builds(Listen, _HOSTS, st.integers(0, 65535), st.none(), _OPTIONS) | st.builds(
    Listen, st.just(""), st.just(0), _PATHS, _OPTIONS
)


@given(_PLACES)
def test_a_listener_survives_being_written_and_read(listen: Listen) -> None:
    assert Listen.parse(str(listen)) == listen
    assert Listen.parse(listen.address) == Listen(listen.host, listen.port, listen.path)


@given(st.text() | st.text("a:1[]., =-\n*/lmtp"))
def test_what_is_read_is_written_in_one_way(text: str) -> None:
    try:
        listeners = SETTINGS["listen"].read(text, "")
    except ConfigError:
        return
    assert isinstance(listeners, tuple)
    assert tuple(str(Listen.parse(each)) for each in listeners) == listeners
    assert SETTINGS["listen"].read(listeners, "") == listeners


_REAL = st.sampled_from(
    [
        "lmtp",
        "vrfy=no",
        "max_errors=5",
        "exempt_networks=10.0.0.0/8,::1",
        "xclient_networks=::1",
        "tls_client_ca=/a",
        "size=on",
    ]
)


@given(st.lists(st.tuples(_HOSTS, st.integers(26, 65535), st.sets(_REAL)), min_size=1))
def test_listeners_may_be_joined_by_commas(places: list[tuple[str, int, set[str]]]) -> None:
    listeners = tuple(" ".join([Listen(host, port).address, *options]) for host, port, options in places)
    assert Config.of(listen=",".join(listeners)).listen == listeners
