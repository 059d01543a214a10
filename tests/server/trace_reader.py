"""Somebody who traces sessions of a server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from tests.server.admin_client import TOKEN, AdminClient

Record = dict[str, Any]


class TraceReader:
    """A trace that is open.

    Attributes:
        seen: every record so far.
        raw: likewise, as it came.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.seen: list[Record] = []
        self.raw = ""

    def close(self) -> None:
        """Go away."""
        self._response.close()

    def read(self) -> Record:
        """The next record.

        Raises:
            TimeoutError: none came.
            EOFError: the trace has ended.
        """
        line = self._response.readline().decode()
        if not line:
            raise EOFError("the trace has ended")
        self.raw += line
        self.seen.append(json.loads(line))
        return self.seen[-1]

    def read_until(self, last: Callable[[Record], bool]) -> list[Record]:
        """The records up to one, this included."""
        found = [self.read()]
        while not last(found[-1]):
            found.append(self.read())
        return found

    def session(self) -> list[str]:
        """What is told up to the next end of a session, as text."""
        return [told(each) for each in self.read_until(lambda record: record["event"] == "end")]


def told(record: Record) -> str:
    """A record in short."""
    match record["event"]:
        case "command":
            return f"C: {record['line']}"
        case "reply":
            return "S: " + " | ".join(record["lines"])
        case "content":
            return f"content {record['octets']}"
        case "end":
            return f"end {record['end']}"
        case event:
            return str(event)


@contextmanager
def tracing(admin: AdminClient, workers: int = 1, **wanted: str) -> Iterator[TraceReader]:
    """A trace that all workers have heard of; it ends with the context."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = admin.connect()
    reader = None
    try:
        query = f"?{urlencode(wanted)}" if wanted else ""
        connection.request("GET", f"/trace{query}", headers={"Authorization": f"Bearer {TOKEN}"})
        reader = TraceReader(connection.getresponse())
        for _ in range(workers):
            reader.read_until(lambda record: record["event"] == "tracing")
        yield reader
    finally:
        if reader:
            reader.close()
        connection.close()
