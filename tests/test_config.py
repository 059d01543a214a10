"""Settings: what each spelling means, which values are refused and in which words, and which source wins."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.config import SETTINGS, Config, ConfigError, load
from fastsmtp.protocol.limits import Limits


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pyproject.toml but the test's own is found."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("app", "inbox:Inbox", "inbox:Inbox"),
        ("app", "mail.inbox:site.make", "mail.inbox:site.make"),
        ("app", None, None),
        ("listen", "127.0.0.1:0", ("127.0.0.1:0",)),
        ("listen", ":25, [::]:25", ("0.0.0.0:25", "[::]:25")),
        ("listen", ["a:1", "b:2"], ("a:1", "b:2")),
        ("listen", ("a:1", "b:2,c:3"), ("a:1", "b:2", "c:3")),
        ("workers", "auto", None),
        ("workers", "AUTO", None),
        ("workers", None, None),
        ("workers", "4", 4),
        ("hostname", "mx1.example.com", "mx1.example.com"),
        ("hostname", "[192.0.2.1]", "[192.0.2.1]"),
        ("hostname", "[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("backlog", 1, 1),
        ("admin", "127.0.0.1:8025", "127.0.0.1:8025"),
        ("admin", ":8025", "0.0.0.0:8025"),
        ("admin", "unix:/run/admin.sock", "unix:/run/admin.sock"),
        ("admin", "none", None),
        ("admin_token", "0123456789abcdef", "0123456789abcdef"),
        ("admin_mode", "0660", "0660"),
        ("admin_mode", "600", "600"),
        ("max_messages", " 0 ", 0),
        ("max_errors", 2**31 - 1, 2**31 - 1),
        ("max_recipients", 100, 100),
        ("max_message_bytes", 1000, 1000),
        ("max_message_bytes", "1000", 1000),
        ("max_message_bytes", "64K", 65536),
        ("max_message_bytes", "64 KiB", 65536),
        ("max_message_bytes", "32M", 33554432),
        ("max_message_bytes", "32MiB", 33554432),
        ("max_message_bytes", "1G", 1073741824),
        ("max_message_bytes", "1GiB", 1073741824),
        ("hook_timeout", 7, 7.0),
        ("hook_timeout", 0.25, 0.25),
        ("hook_timeout", "7", 7.0),
        ("hook_timeout", "0.25", 0.25),
        ("hook_timeout", "500ms", 0.5),
        ("hook_timeout", "30s", 30.0),
        ("hook_timeout", "1.5m", 90.0),
        ("hook_timeout", "1 h", 3600.0),
        ("drain_timeout", 0, 0.0),
        *(("preload", word, True) for word in (True, "true", "Yes", "on", "1", 1)),
        *(("smtputf8", word, False) for word in (False, "false", "NO", "off", "0", 0)),
        ("log_level", "WARNING", "warning"),
        ("bare_newline", "normalize", "normalize"),
        ("store", "maildir:/var/mail/in", "maildir:/var/mail/in"),
        ("store", "discard:", "discard:"),
        ("spool_dir", "/var/spool", "/var/spool"),
        ("futurerelease", "5m", 300),
        ("futurerelease", 999999999, 999999999),
        ("deliverby_min", "2h", 7200),
        ("greet_wait", 0, 0.0),
        ("stress_at", "0.5", 0.5),
        ("stress_at", 1, 1.0),
        ("min_free_bytes", None, None),
        ("min_free_bytes", 0, 0),
        ("min_free_bytes", "100G", 100 * 2**30),
        ("tls_min_version", 1.3, "1.3"),
        ("tls_certfile", "a.pem", ("a.pem",)),
        ("tls_certfile", "a.pem, b.pem", ("a.pem", "b.pem")),
        ("tls_certfile", ["a.pem", "b.pem,c.pem", "a.pem"], ("a.pem", "b.pem", "c.pem", "a.pem")),
        ("tls_certfile", "none", ()),
        ("users", "/etc/users", "/etc/users"),
        ("users", "none", None),
        ("auth_mechanisms", "plain,Scram-Sha-256,PLAIN", ("PLAIN", "SCRAM-SHA-256")),
        ("auth_mechanisms", [], ()),
        ("exempt_networks", "none", ()),
        ("exempt_networks", "192.0.2.7,::1, 10.0.0.0/255.0.0.0", ("192.0.2.7/32", "::1/128", "10.0.0.0/8")),
        ("xclient_networks", ["2001:DB8:0::/32", "::1", "2001:db8::/32"], ("2001:db8::/32", "::1/128")),
    ],
)
def test_accepted_spellings(name: str, given: object, expected: object) -> None:
    value = getattr(Config.of(**{name: given}), name)
    assert value == expected
    assert type(value) is type(expected)


REFUSED: list[tuple[str, str, tuple[object, ...]]] = [
    ("app", "module:attribute", ("inbox", "inbox:", ":Inbox", "a:b c", "a:b:c", "", 5)),
    ("listen", "one or more of HOST:PORT", ([], (), None, 25, ["a:1", 2], {})),
    ("listen", "HOST:PORT", ("",)),
    ("listen", "HOST:PORT", ("a:1,",)),
    ("workers", '(or "auto")', (0, "0", "-1", "many", 1.0, True)),
    ("hostname", "a host name", ("", "a b", "mx\r\nX", "mx\n", "x" * 256, "[a b]", 5)),
    ("max_errors", "from 1 to", (0, "-1", "+1", "1_0", "0x10", "1K", "", None, 2.0, True, [])),
    ("max_errors", "to 2147483647", (2**31, 10**400, "9" * 5000, "\u0662")),
    ("max_recipients", "from 100 to", (99, "99")),
    ("max_command_octets", "from 512 to", (511, "511")),
    ("max_message_bytes", "64K, 32MiB or 1G", (0, "32MB", "32m", "1.5M", "K", "4G", -1, None)),
    ("hook_timeout", "30, 500ms, 5m or 1h", (0, "0", "5M", "s", "5d", "-1", "1h30m", True, None)),
    ("hook_timeout", "30, 500ms", (math.nan, math.inf, "nan", "inf", "1e3", 2**31, 10**400)),
    ("drain_timeout", "at least 0 seconds", (-1, -0.001)),
    ("preload", "yes or no, on or off, 1 or 0", ("maybe", "", 2, None)),
    ("bare_newline", "reject or normalize or keep", ("accept", "", None, True)),
    ("nul_in_data", "reject or keep", ("normalize",)),
    ("log_level", "debug or info or warning or error", ("trace", 10)),
    ("store", "one of maildir:PATH, ", ("maildir:", "discard", "discard:x", "./mail", "")),
    ("spool_dir", "a directory", ("", "a\0b", 5)),
    ("futurerelease", "to 999999999, also written 30s, 5m or 1h", (-1, 10**9, "1.5s", "500ms", 1.0, None, True)),
    ("proxy_v2_max_bytes", "from 216 to", (0, 215)),
    ("max_auth_octets", "from 512 to", (511,)),
    ("auth_failures_per_client", "from 1 to", (0,)),
    ("min_free_bytes", "to 9223372036854775807, also written 64K", (-1, 2**63, "none", 1.0)),
    ("stress_at", "above 0 and at most 1", (0, 0.0, -0.1, 1.01, 2, "x", "80%", None, True, math.nan)),
    ("tls_min_version", "1.2 or 1.3", ("1.1", 1, "TLSv1.2")),
    ("tls_verify_client", "off or optional or required", ("on", False)),
    ("tls_certfile", "files, separated by commas", ("", "a,", "a,,b", "a\0b", None, 5, ["a", 5], {})),
    ("users", "a file", ("", "a\0b", 5, ["a"])),
    ("auth_mechanisms", "PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256,", ("", "PLAIN,", "DIGEST-MD5", "PLAIN LOGIN", None)),
    ("xclient_networks", "no bits set behind the prefix", ("10.0.0.1/8", "::1/64")),
    ("xclient_networks", "10.0.0.0/8", ("", "10", "10.0.0.0/33", "localhost", "fe80::%eth0/64", "none,::1", None, 5)),
]


@pytest.mark.parametrize(
    ("name", "allowed", "given"), [(name, allowed, bad) for name, allowed, given in REFUSED for bad in given]
)
def test_refused_values_are_named_and_explained(name: str, allowed: str, given: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.of(**{name: given})
    assert str(caught.value).startswith(f"{name}: expected ")
    assert allowed in str(caught.value)
    assert "got " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "suggestion"), [("max_error", ", did you mean max_errors?"), ("max-errors", "max_errors?"), ("zzz", "")]
)
def test_an_unknown_name_suggests_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.of(**{name: 1})
    assert str(caught.value).startswith(f"{name}: no such setting")
    assert str(caught.value).endswith(suggestion or "setting")


def test_a_config_error_is_a_value_error_and_a_config_is_frozen() -> None:
    assert issubclass(ConfigError, ValueError)
    with pytest.raises(FrozenInstanceError):
        Config().workers = 2  # type: ignore[misc]  # what is tested


def test_of_a_list_the_wrong_item_is_named() -> None:
    with pytest.raises(ConfigError, match=r"got '10\.0\.0\.1/8'$"):
        Config.of(xclient_networks=["::1", "10.0.0.0/8,10.0.0.1/8"])


@pytest.mark.parametrize(
    ("settings", "store"),
    [
        ({}, "maildir:./mail"),
        ({"app": "inbox:Inbox"}, None),
        ({"store": "discard:"}, "discard:"),
        ({"app": "inbox:Inbox", "store": "discard:"}, "discard:"),
    ],
)
def test_mail_without_an_application_is_stored(settings: dict[str, object], store: str | None) -> None:
    assert Config.of(**settings).effective_store == store


@pytest.mark.parametrize("name", list(SETTINGS))
def test_each_setting_is_described(name: str) -> None:
    about = SETTINGS[name]
    assert about.name == name
    assert re.fullmatch(r"[A-Z\[].+\.", about.help)
    assert about.default == getattr(Config(), name)
    assert about.environment == f"FASTSMTP_{name.upper()}"


@pytest.mark.parametrize("name", list(SETTINGS))
def test_each_default_is_itself_allowed(name: str) -> None:
    default = SETTINGS[name].default
    assert SETTINGS[name].read(default, name) == default
    if default is not None and not isinstance(default, tuple):
        assert SETTINGS[name].read(str(default), name) == default


def test_choices_are_those_of_the_type() -> None:
    assert SETTINGS["bare_newline"].choices == ("reject", "normalize", "keep")
    assert SETTINGS["log_format"].choices == ("text", "json")
    assert SETTINGS["hostname"].choices == ()


def test_flags() -> None:
    assert SETTINGS["max_message_bytes"].flag == "--max-message-bytes"
    assert SETTINGS["app"].flag == "APP"


def test_every_field_is_a_setting() -> None:
    assert [one.name for one in fields(Config)] == list(SETTINGS)


def test_the_limits_of_a_session_are_settings_with_the_same_defaults() -> None:
    assert {one.name: getattr(Config(), one.name) for one in fields(Limits)} == {
        one.name: getattr(Limits(), one.name) for one in fields(Limits)
    }


# Sources


def _toml(text: str, name: str = "mail.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults() -> None:
    resolved = load({}, {})
    assert resolved.config == Config()
    assert set(resolved.sources.values()) == {"default"}
    assert resolved.unknown_environment == ()


@pytest.mark.parametrize(
    ("arguments", "environ", "file", "value", "source"),
    [
        ({"max_errors": "1"}, {"FASTSMTP_MAX_ERRORS": "2"}, "max_errors = 3", 1, "command line"),
        ({"max_errors": None}, {"FASTSMTP_MAX_ERRORS": "2"}, "max_errors = 3", 2, "environment FASTSMTP_MAX_ERRORS"),
        ({}, {"FASTSMTP_MAX_ERRORS": ""}, "max_errors = 3", 3, "file mail.toml"),
        ({}, {}, "", 20, "default"),
    ],
)
def test_precedence(arguments: dict[str, object], environ: dict[str, str], file: str, value: int, source: str) -> None:
    resolved = load(arguments, environ, _toml(file))
    assert resolved.config.max_errors == value
    assert resolved.sources["max_errors"] == source


def test_each_setting_has_its_own_source() -> None:
    resolved = load({"workers": "2"}, {"FASTSMTP_LISTEN": "a:1,b:2"}, _toml('hook_timeout = "5m"'))
    assert resolved.config == Config.of(workers=2, listen=("a:1", "b:2"), hook_timeout=300)
    assert {name: source for name, source in resolved.sources.items() if source != "default"} == {
        "workers": "command line",
        "listen": "environment FASTSMTP_LISTEN",
        "hook_timeout": "file mail.toml",
    }


@pytest.mark.parametrize("spelling", ['["a:1", "b:2"]', '"a:1, b:2"'])
def test_a_list_in_toml_is_an_array_or_a_string(spelling: str) -> None:
    assert load({}, {}, _toml(f"listen = {spelling}")).config.listen == ("a:1", "b:2")


@pytest.mark.parametrize(
    ("arguments", "environ", "file"),
    [
        ({"xclient_networks": ("::1", "10.0.0.0/8")}, {}, ""),
        ({"xclient_networks": ("::1,10.0.0.0/8",)}, {}, ""),
        ({}, {"FASTSMTP_XCLIENT_NETWORKS": "::1, 10.0.0.0/8"}, ""),
        ({}, {}, 'xclient_networks = "::1,10.0.0.0/8"'),
        ({}, {}, 'xclient_networks = ["::1", "10.0.0.0/8"]'),
        ({}, {"FASTSMTP_XCLIENT_NETWORKS": ""}, 'xclient_networks = ["::1", "10.0.0.0/8"]'),
    ],
)
def test_a_list_has_the_same_value_from_everywhere(
    arguments: dict[str, object], environ: dict[str, str], file: str
) -> None:
    assert load(arguments, environ, _toml(file)).config.xclient_networks == ("::1/128", "10.0.0.0/8")


def test_listeners_with_options_come_from_everywhere() -> None:
    listeners = ("127.0.0.1:25", "127.0.0.1:24 lmtp exempt_networks=::1,10.0.0.0/8", "b:1")
    assert load({}, {"FASTSMTP_LISTEN": ",".join(listeners)}).config.listen == listeners
    assert load({"listen": listeners}, {}).config.listen == listeners
    assert load({}, {}, _toml(f"listen = {list(listeners)}")).config.listen == listeners


@pytest.mark.parametrize(
    ("arguments", "environ", "file", "where"),
    [
        ({"max_errors": "x"}, {}, "", "--max-errors: "),
        ({"app": "x"}, {}, "", "APP: "),
        ({}, {"FASTSMTP_MAX_ERRORS": "x"}, "", "FASTSMTP_MAX_ERRORS: "),
        ({}, {}, 'max_errors = "x"', "max_errors in mail.toml: "),
    ],
)
def test_a_wrong_value_is_named_as_the_user_wrote_it(
    arguments: dict[str, object], environ: dict[str, str], file: str, where: str
) -> None:
    with pytest.raises(ConfigError, match=r"got 'x'$") as caught:
        load(arguments, environ, _toml(file))
    assert str(caught.value).startswith(where)


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^worker: no such setting, did you mean workers\?$"):
        load({"worker": "2"}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_error = 3", r"^max_error in mail\.toml: no such setting, did you mean max_errors\?$"),
        ("[fastsmtp]\nmax_errors = 3", r"^fastsmtp in mail\.toml: no such setting"),
        ("[max_errors]\nx = 3", r"^max_errors in mail\.toml: expected a whole number"),
        ("max_errors", r"^mail\.toml: Expected '='"),
    ],
)
def test_a_file_with_anything_but_settings_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load({}, {}, _toml(text))


def test_a_file_that_is_not_utf8_is_refused() -> None:
    Path("mail.toml").write_bytes(b"app = '\xff'")
    with pytest.raises(ConfigError, match=r"^mail\.toml: 'utf-8' codec"):
        load({}, {}, Path("mail.toml"))


def test_a_missing_file_is_an_error_if_somebody_named_it() -> None:
    with pytest.raises(ConfigError, match=r"^gone\.toml: cannot be read: No such file"):
        load({}, {}, Path("gone.toml"))
    with pytest.raises(ConfigError, match=r"^gone\.toml: cannot be read: No such file"):
        load({}, {"FASTSMTP_CONFIG": "gone.toml"})


def test_the_environment_names_a_file_unless_the_command_line_does() -> None:
    _toml("threads = 1", "one.toml")
    _toml("threads = 2", "two.toml")
    environ = {"FASTSMTP_CONFIG": "two.toml"}
    assert load({}, environ).config.threads == 2
    assert load({}, environ).unknown_environment == ()
    assert load({}, environ, Path("one.toml")).config.threads == 1


def test_pyproject_has_its_own_table_and_is_found_by_itself() -> None:
    path = _toml("[project]\nname = 'x'\n[tool.fastsmtp]\nthreads = 3", "pyproject.toml")
    assert load({}, {}).config.threads == 3
    assert load({}, {}).sources["threads"] == "file pyproject.toml"
    assert load({}, {}, path).config.threads == 3


def test_a_named_file_stands_in_for_pyproject() -> None:
    _toml("[tool.fastsmtp]\nthreads = 3", "pyproject.toml")
    assert load({}, {}, _toml("backlog = 5")).config == Config(backlog=5)


@pytest.mark.parametrize("text", ["", "tool = 3", "[tool]\nfastsmtp = 3", "[tool.other]\nthreads = 3"])
def test_a_pyproject_without_the_table_counts_only_if_named(text: str) -> None:
    path = _toml(text, "pyproject.toml")
    assert load({}, {}).config == Config()
    with pytest.raises(ConfigError, match=r"^pyproject\.toml: has no table \[tool\.fastsmtp\]$"):
        load({}, {}, path)


def test_unknown_variables_are_collected() -> None:
    environ = {"FASTSMTP_WORKER": "2", "FASTSMTP_PORT": "tcp://10.0.0.1:25", "FASTSMTPX": "1", "PATH": "/bin"}
    assert load({}, environ).unknown_environment == ("FASTSMTP_PORT", "FASTSMTP_WORKER")


# Invariants


@given(st.sampled_from(list(SETTINGS)), st.text() | st.integers() | st.floats() | st.booleans() | st.lists(st.text()))
def test_a_value_is_refused_as_what_it_is_named_or_read_for_good(name: str, value: object) -> None:
    about = SETTINGS[name]
    with contextlib.suppress(ConfigError):
        read = about.read(value, "HERE")
        assert about.read(read, "HERE") == read
        return
    with pytest.raises(ConfigError, match=r"^HERE: expected "):
        about.read(value, "HERE")


@given(st.integers(1, 2**20 - 1))
def test_sizes_are_powers_of_1024(number: int) -> None:
    assert Config.of(max_message_bytes=f"{number}K").max_message_bytes == number * 1024


@given(st.integers(1, 500_000))
def test_durations_agree(hours: int) -> None:
    def seconds(text: str) -> float:
        return cast(float, SETTINGS["hook_timeout"].read(text, ""))

    assert (
        seconds(f"{hours}h") == seconds(f"{hours * 60}m") == seconds(f"{hours * 3600}s") == seconds(f"{hours * 3600}")
    )


@pytest.mark.parametrize("name", ["admin", "admin_mode"])
@pytest.mark.parametrize("value", ["", "nonsense", "a:1 lmtp", "a:1,b:2", "0o600", "9999", 600, True, ["a:1"]])
def test_admin_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        Config.of(**{name: value})


@pytest.mark.parametrize("value", ["", "too-short", "with spaces in it!", "ümlaut-in-a-token", "a" * 513, 10**16])
def test_a_wrong_token_is_not_shown(value: object) -> None:
    with pytest.raises(ConfigError, match="admin_token: expected 16 to 512 of") as refused:
        Config.of(admin_token=value)
    assert not value or str(value) not in str(refused.value)
