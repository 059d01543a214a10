"""The command line, run whole in this process against a stand-in for the master."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from fastsmtp.cli import main
from fastsmtp.config import SETTINGS, Config


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither settings nor sys.path of whoever runs the tests matter or change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("FASTSMTP_REQUIRE_ALL", raising=False)  # the test suite's own


def _run(*arguments: str, **environ: str) -> Result:
    settings: dict[str, str | None] = {about.environment: None for about in SETTINGS.values()}
    return CliRunner().invoke(main, arguments, env={**settings, **environ})


class _Master(ModuleType):
    """Stands in for fastsmtp.server.master; run() keeps what it was given and exits with 7."""

    config: Config | None = None
    path: str = ""

    def run(self, config: Config, target: object | None, read_anew: object) -> int:
        self.config, self.path = config, sys.path[0]
        return 7


@pytest.fixture
def master(monkeypatch: pytest.MonkeyPatch) -> _Master:
    module = _Master("fastsmtp.server.master")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def _line(result: Result, name: str) -> str:
    return next(line for line in result.stdout.splitlines() if line.split()[0] == name)


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_help_names_every_setting(command: str) -> None:
    text = " ".join(_run(command, "--help").stdout.split())
    for about in SETTINGS.values():
        assert f"{about.environment}; default" in text
        assert about.flag in text
        assert " ".join(about.help.split()) in text
    assert "FASTSMTP_CONFIG" in text


def test_help_is_grouped_by_section() -> None:
    headings = [
        line[:-1] for line in _run("serve", "--help").stdout.splitlines() if line[:1].strip() and line[-1] == ":"
    ]
    assert headings == [*dict.fromkeys(about.section for about in SETTINGS.values()), "Options"]


@pytest.mark.parametrize(
    "text",
    [
        "--smtputf8 / --no-smtputf8",
        "--bare-newline reject|normalize|keep",
        "--max-command-octets OCTETS",
        "default 2048 octets; at least 512]",
        "--hook-timeout SECONDS",
        "default 60 seconds]",
        "default 127.0.0.1:1025; may be given several times]",
        "default auto; at least 1]",
        "default false]",
        "default 8 per worker; at least 1]",
        "default none; may be given several times]",
        "default 127.0.0.0/8, ::1/128; may be given several times]",
        "default in tls_certfile; may be given several times]",
        "--tls-min-version 1.2|1.3",
        "--auth-mechanisms MECHANISM",
        "default 0.8 of max_connections]",
    ],
)
def test_help_shows_units_choices_and_defaults(text: str) -> None:
    assert text in " ".join(_run("serve", "--help").stdout.split())


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"fastsmtp": "1.2.3"}.__getitem__)
    result = _run("--version")
    assert (result.exit_code, result.stdout) == (0, "fastsmtp 1.2.3\n")


def test_serve_runs_the_master_with_the_config(master: _Master) -> None:
    arguments = [
        "inbox:Inbox",
        "--listen",
        ":25",
        "--listen",
        "[::]:25",
        "--workers",
        "2",
        "--no-smtputf8",
        "--preload",
    ]
    result = _run("serve", *arguments, FASTSMTP_HOOK_TIMEOUT="5m")
    assert result.exit_code == 7
    assert master.config == Config.of(
        app="inbox:Inbox", listen=["0.0.0.0:25", "[::]:25"], workers=2, smtputf8=False, preload=True, hook_timeout=300
    )


def test_lists_may_be_given_several_times_or_with_commas(master: _Master) -> None:
    arguments = ["--tls-certfile", "a.pem", "--tls-certfile", "b.pem", "--xclient-networks", "::1,10.0.0.0/8"]
    _run("serve", *arguments, FASTSMTP_AUTH_MECHANISMS="plain,login")
    assert master.config == Config.of(
        tls_certfile=["a.pem", "b.pem"], xclient_networks=["::1", "10.0.0.0/8"], auth_mechanisms=["PLAIN", "LOGIN"]
    )


def test_listeners_have_their_own_settings(master: _Master) -> None:
    _run("serve", "--listen", ":25", "--listen", "127.0.0.1:24 lmtp max-errors=5", "--max-errors", "6")
    assert master.config is not None
    assert master.config.listen == ("0.0.0.0:25", "127.0.0.1:24 lmtp max_errors=5")
    assert master.config.max_errors == 6


def test_serve_finds_modules_in_the_current_directory(master: _Master, tmp_path: Path) -> None:
    _run("serve", "inbox:Inbox")
    assert master.path == str(tmp_path)


def test_the_environment_names_the_application(master: _Master) -> None:
    _run("serve", FASTSMTP_APP="inbox:Inbox", FASTSMTP_SMTPUTF8="off")
    assert master.config == Config.of(app="inbox:Inbox", smtputf8=False)


def test_check_config_shows_every_value_and_its_source() -> None:
    Path("mail.toml").write_text('max_message_bytes = "1M"\n')
    result = _run("check-config", "--config", "mail.toml", "--no-preload", FASTSMTP_DRAIN_TIMEOUT="500ms")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(SETTINGS)
    assert _line(result, "xclient_networks").split() == ["xclient_networks", "none", "default"]
    assert "  127.0.0.0/8, ::1/128  " in _line(result, "exempt_networks")
    assert _line(result, "max_message_bytes").split(None, 1)[1].split("  ")[0] == "1048576 octets"
    assert _line(result, "max_message_bytes").endswith("  file mail.toml")
    assert "  0.5 seconds  " in _line(result, "drain_timeout")
    assert _line(result, "drain_timeout").endswith("  environment FASTSMTP_DRAIN_TIMEOUT")
    assert _line(result, "preload").split() == ["preload", "false", "command", "line"]
    assert _line(result, "workers").split() == ["workers", "auto", "default"]


def test_check_config_shows_a_listener_a_line() -> None:
    result = _run("check-config", FASTSMTP_LISTEN="127.0.0.1:24 lmtp max-errors=5, [::]:25 vrfy=no,unix:mail lmtp")
    listeners = [line.split(None, 1) for line in result.stdout.splitlines()[1:4]]
    assert listeners[0][0] == "listen"
    assert listeners[0][1].startswith("127.0.0.1:24 lmtp max_errors=5  ")
    assert listeners[0][1].endswith("  environment FASTSMTP_LISTEN")
    assert listeners[1:] == [["[::]:25", "vrfy=no"], ["unix:mail", "lmtp"]]


def test_check_config_is_aligned() -> None:
    lines = _run("check-config", "--listen", "a:1", "--listen", "b:2").stdout.splitlines()
    columns = {re.search("default$|command line$", line) for line in lines if line.strip() != "b:2"}
    assert len({found and found.start() for found in columns}) == 1


@pytest.mark.parametrize(("arguments", "store"), [((), "maildir:./mail"), (("inbox:Inbox",), "none")])
def test_check_config_shows_the_store_in_effect(arguments: tuple[str, ...], store: str) -> None:
    assert _line(_run("check-config", *arguments), "store").split()[1] == store


@pytest.mark.parametrize("command", ["serve", "check-config"])
@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (("--workers", "0"), {}, "--workers: expected a whole number from 1 to 2147483647, got '0' (or \"auto\")"),
        (("--hostname", ""), {}, "--hostname: expected a host name or an address literal in brackets, got ''"),
        (("inbox",), {}, "APP: expected module:attribute, such as inbox:Inbox, got 'inbox'"),
        ((), {"FASTSMTP_LOG_FORMAT": "xml"}, "FASTSMTP_LOG_FORMAT: expected text or json, got 'xml'"),
        (("--listen", "a:1 lmpt"), {}, "listener a:1: lmpt: no such setting, did you mean lmtp?"),
        (("--implicit-tls",), {}, "listener 127.0.0.1:1025: implicit_tls needs tls_certfile"),
        (("--config", "gone.toml"), {}, "gone.toml: cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_setting_ends_with_2(
    master: _Master, command: str, arguments: tuple[str, ...], environ: dict[str, str], message: str
) -> None:
    result = _run(command, *arguments, **environ)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {message}\n")
    assert master.config is None


def test_an_unknown_option_ends_with_2() -> None:
    assert _run("serve", "--worker", "2").exit_code == 2


def test_unknown_variables_are_warned_of_in_one_line() -> None:
    result = _run("check-config", FASTSMTP_WORKER="2", FASTSMTP_PORT="2525")
    assert result.exit_code == 0
    assert result.stderr == "Warning: no such setting, ignored: FASTSMTP_PORT, FASTSMTP_WORKER\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FASTSMTP_SERVICE_HOST", "10.0.0.1"),
        ("FASTSMTP_SERVICE_PORT", "25"),
        ("FASTSMTP_SERVICE_PORT_SMTP", "25"),
        ("FASTSMTP_PORT", "tcp://10.0.0.1:25"),
        ("FASTSMTP_PORT_25_TCP", "tcp://10.0.0.1:25"),
        ("FASTSMTP_PORT_25_TCP_ADDR", "10.0.0.1"),
        ("FASTSMTP_INBOX_SERVICE_HOST", "10.0.0.1"),
        ("FASTSMTP_INBOX_PORT_25_TCP_PROTO", "tcp"),
        ("FASTSMTP_NAME", "/web/fastsmtp"),
        ("FASTSMTP_ENV_LANG", "C.UTF-8"),
    ],
)
def test_variables_of_kubernetes_and_docker_are_not_warned_of(name: str, value: str) -> None:
    assert _run("check-config", **{name: value}).stderr == ""


def test_the_token_is_not_shown() -> None:
    result = _run("check-config", FASTSMTP_ADMIN_TOKEN="0123456789abcdef")
    assert _line(result, "admin_token").split()[1] == "***"
    assert "0123456789abcdef" not in result.output
    assert _line(_run("check-config"), "admin_token").split()[1] == "none"


# The commands for users files, imported only when they are asked for


class _UserCommands(ModuleType):
    """Stands in for fastsmtp.user_commands."""

    @property
    def user(self) -> click.Group:
        add = click.Command("add", params=[click.Argument(["name"])], callback=lambda name: click.echo(f"+{name}"))
        return click.Group("user", commands=[add], help="Edit a users file.")


def test_user_commands_are_part_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastsmtp.user_commands", _UserCommands("fastsmtp.user_commands"))
    commands = _run("--help").stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in commands.splitlines() if line] == [
        "check-config",
        "serve",
        "consume",
        "ctl",
        "deliver",
        "healthcheck",
        "queue",
        "top",
        "trace",
        "user",
    ]
    assert "Edit a users file." in commands
    assert _run("user", "add", "alice").stdout == "+alice\n"


@pytest.mark.parametrize("arguments", [("serve",), ("serve", "--help"), ("check-config",)])
def test_serving_does_not_load_the_user_commands(
    master: _Master, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.delitem(sys.modules, "fastsmtp.user_commands", raising=False)
    _run(*arguments)
    assert "fastsmtp.user_commands" not in sys.modules


def test_python_m_fastsmtp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fastsmtp", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("fastsmtp", run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: fastsmtp ")


def test_each_option_is_a_setting() -> None:
    for command in main.commands.values():
        assert isinstance(command, click.Command)
        assert [parameter.name for parameter in command.params] == [*SETTINGS, "config"]
