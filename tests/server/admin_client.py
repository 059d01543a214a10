"""What a test asks the admin process of a server."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from pathlib import Path
from typing import Any, NamedTuple

from tests.server.client import DEADLINE
from tests.server.running import Server

TOKEN = "a-token-of-the-tests"
ADMIN = ("--admin=127.0.0.1:0", f"--admin-token={TOKEN}")


class Answer(NamedTuple):
    """A response."""

    status: int
    fields: dict[str, str]  # names in lower case
    body: str


class AdminClient:
    """Talks to an admin process, a connection for each request."""

    def __init__(self, address: tuple[str, int] | Path) -> None:
        self._address = address

    @classmethod
    def of(cls, server: Server) -> AdminClient:
        """That of a server which is ready; the log says where."""
        host, _, port = server.wait_for_log(r"admin at (127\.0\.0\.1:\d+)")[0][1].rpartition(":")
        return cls((host, int(port)))

    @property
    def host_and_port(self) -> str:
        """Of an address of TCP."""
        assert isinstance(self._address, tuple)
        return "{}:{}".format(*self._address)

    def connect(self) -> socket.socket:
        if isinstance(self._address, Path):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(DEADLINE)
            connection.connect(os.fspath(self._address))
            return connection
        return socket.create_connection(self._address, DEADLINE)

    def ask(self, method: str, path: str, **fields: str) -> Answer:
        """One request; underscores in names of fields stand for dashes."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.connect()
        try:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in fields.items()})
            response = connection.getresponse()
            given = {name.lower(): text for name, text in response.getheaders()}
            return Answer(response.status, given, response.read().decode())
        finally:
            connection.close()

    def get(self, path: str, **fields: str) -> Answer:
        return self.ask("GET", path, **fields)

    def post(self, path: str, token: str = TOKEN) -> Answer:
        return self.ask("POST", path, Authorization=f"Bearer {token}")

    def raw(self, octets: bytes, shut: bool = True) -> bytes:
        """Whatever comes back for these octets, until it closes."""
        with self.connect() as connection:
            connection.sendall(octets)
            if shut:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/status").body)
        return found

    def processes(self, slot: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.status()["workers"][slot]["processes"]
        return found

    def pids(self) -> list[int]:
        """Of all workers."""
        return [process["pid"] for worker in self.status()["workers"] for process in worker["processes"]]


def admin_pid(server: Server, admin: AdminClient) -> int:
    """The pid of the admin process: the child of the master that is no worker. All workers must be up."""
    assert re.match("ready", admin.get("/readyz").body)
    (pid,) = set(server.workers) - set(admin.pids())
    return pid
