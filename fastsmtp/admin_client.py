"""The admin process of a server that runs, as the commands that talk to it see it; and the options they share."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from .config import Config, ConfigError, Listen
from .sources import load

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NoAnswerError(Exception):
    """The server does not answer, or not with what was asked for."""


class AdminClient:
    """The admin process at an address.

    Args:
        address: HOST:PORT or unix:PATH.
        token: for control over TCP.
        timeout: seconds for each answer.
    """

    def __init__(self, address: str, token: str | None, timeout: float) -> None:
        self.address = address
        self._listen = Listen.parse(address)
        self._token = token
        self._timeout = timeout

    def request(self, method: str, path: str) -> tuple[int, str]:
        """Ask; returns the status and the body.

        Raises:
            NoAnswerError: there is no answer.
        """
        fields = {"Authorization": f"Bearer {self._token}"} if self._token and method == "POST" else {}
        connection = http.client.HTTPConnection("localhost", timeout=self._timeout)
        try:
            connection.sock = connect(self._listen, self._timeout)
            connection.request(method, path, headers=fields)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswerError(f"{self.address}: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def lines(self, path: str) -> Iterator[str]:
        """The lines of a response that goes on and on, as they come; control is needed for it.

        Raises:
            NoAnswerError: there is no answer, it is refused, or the connection breaks.
        """
        fields = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        connection = http.client.HTTPConnection("localhost", timeout=self._timeout)
        try:
            connection.sock = link = connect(self._listen, self._timeout)
            connection.request("GET", path, headers=fields)
            response = connection.getresponse()
            if response.status != 200:
                raise NoAnswerError(f"{self.address}: {response.read().decode(errors='replace').strip()[:200]}")
            link.settimeout(None)  # it may be long until there is something to tell
            for line in response:
                yield line.decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswerError(f"{self.address}: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """What /status says.

        Raises:
            NoAnswerError: it says nothing.
        """
        code, body = self.request("GET", "/status")
        try:
            if code == 200:
                found: dict[str, Any] = json.loads(body)
                return found
        except ValueError:
            pass
        raise NoAnswerError(f"{self.address}: no status of fastsmtp, but {code} {body[:80].strip()}")

    def order(self, path: str) -> str:
        """Have the server do something; returns its answer.

        Raises:
            NoAnswerError: it will not.
        """
        code, body = self.request("POST", path)
        if code != 202:
            raise NoAnswerError(f"{self.address}: {body.strip()[:200]}")
        return body.strip()


def connect(at: Listen, timeout: float) -> socket.socket:
    """A connection to an address on which a server listens; one that is everywhere is asked on this machine.

    Raises:
        OSError: there is none within the time.
    """
    if at.path is None:
        return socket.create_connection((_EVERYWHERE.get(at.host, at.host), at.port), timeout)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(at.path)
    except OSError:
        connection.close()
        raise
    return connection


def load_settings(admin: str | None, token: str | None, config: Path | None) -> Config:
    """The settings of the server, as far as we can know them; options of the command go first."""
    try:
        return load({"admin": admin, "admin_token": token}, os.environ, config).config
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def find_admin(admin: str | None, token: str | None, config: Path | None, timeout: float) -> AdminClient:
    """The admin process that options, environment or TOML file name."""
    settings = load_settings(admin, token, config)
    if settings.admin is None:
        raise click.UsageError("no admin address: give --admin, or set FASTSMTP_ADMIN; the server needs it, too")
    return AdminClient(settings.admin, settings.admin_token, timeout)


Command = Callable[..., None]
TIME = click.FloatRange(0.1, 3600)
OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.option("--admin", metavar="ADDRESS", help="Where the server's admin is; else as for serve."),
    click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="TOML file, as for serve."),
    click.option("--timeout", type=TIME, default=5.0, metavar="SECONDS", show_default=True, help="Time to wait."),
)
TOKEN_OPTION = click.option("--token", metavar="TOKEN", help="For control over TCP; better in FASTSMTP_ADMIN_TOKEN.")
CONTROL_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    *OPTIONS,
    TOKEN_OPTION,
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)


def with_options(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    """A function with these options, in this order."""
    for option in reversed(options):
        command = option(command)
    return command
