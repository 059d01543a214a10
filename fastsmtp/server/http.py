"""The little HTTP/1.1 (RFC 9112) that the admin process needs: one request on a connection, one response, close.

Guarantees: whatever is sent, a client has at most `_REQUEST_TIME` seconds and `_MAX_HEAD` octets for its request, and
no client disturbs another. What is not plainly right is refused; nothing is guessed.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

_MAX_HEAD: Final = 16384  # octets of request line and header fields
_MAX_BODY: Final = 65536  # octets; they are read and dropped: no request needs a body
_MAX_CLIENTS: Final = 200  # at a time; more get 503
_REQUEST_TIME: Final = 10.0  # seconds for a request to be complete
_RESPONSE_TIME: Final = 10.0  # seconds for a client to take the response
_LINGER_TIME: Final = 1.0  # seconds for the client to close behind it
_log = logging.getLogger("fastsmtp.admin")

_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) (/[\x21-\x7e]*) HTTP/(\d)\.(\d)")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")


class RequestError(Exception):
    """A request that is refused before anybody looks at what it wants."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for.

    Attributes:
        path: without the query.
        query: what stands behind the question mark.
        fields: header fields, names in lower case.
        local: whether it came over a unix socket.
    """

    method: str
    path: str
    fields: Mapping[str, str]
    local: bool = False
    query: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What it gets."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    fields: Mapping[str, str] = field(default_factory=dict)


def text(status: HTTPStatus, line: str, fields: Mapping[str, str] | None = None) -> Response:
    """A response of one line."""
    return Response(status, line.encode() + b"\n", fields=fields or {})


def parse_head(head: bytes, local: bool = False) -> Request:
    """Reads request line and header fields, with the empty line behind them.

    Raises:
        RequestError: they are malformed.
    """
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise RequestError(HTTPStatus.BAD_REQUEST, "malformed request line")
    method, target, major, minor = match.groups()
    if major != "1":
        raise RequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1")
    fields: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise RequestError(HTTPStatus.BAD_REQUEST, "malformed header field")
        name, value = found[1].lower(), found[2].rstrip(" \t")
        if name in fields and name in ("host", "content-length", "authorization"):
            raise RequestError(HTTPStatus.BAD_REQUEST, f"{name} is given twice")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    if minor != "0" and "host" not in fields:  # RFC 9112 3.2
        raise RequestError(HTTPStatus.BAD_REQUEST, "no Host field")
    path, _, query = target.partition("?")
    return Request(method, path, fields, local, query)


def _body_length(request: Request) -> int:
    if "transfer-encoding" in request.fields:
        raise RequestError(HTTPStatus.NOT_IMPLEMENTED, "transfer codings are not supported")
    length = request.fields.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise RequestError(HTTPStatus.BAD_REQUEST, "malformed Content-Length")
    if int(length) > _MAX_BODY:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "no request needs a body")
    return int(length)


class HTTPServer:
    """Answers the requests of one listening socket.

    Args:
        answer: makes the response to a request; must not block. What it raises is logged, and answered with 500.
    """

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self._answer = answer
        self._clients: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket, stopped: asyncio.Event) -> None:
        """Serve until told to stop; responses that are under way then leave."""
        local = listening.family == socket.AF_UNIX

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve_client(reader, writer, local)

        # Not start_unix_server: newer Pythons remove the path when it is closed, and it is the master's.
        server = await asyncio.start_server(client, sock=listening, limit=_MAX_HEAD)
        await stopped.wait()
        server.close()
        if self._clients:
            await asyncio.wait(self._clients, timeout=_LINGER_TIME)

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, local: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with suppress(OSError, TimeoutError):  # it went away, or does not read
                await self._converse(reader, writer, local)
        except Exception:
            _log.exception("a request failed")
        finally:
            self._clients.discard(task)
            writer.transport.abort()  # what was to be said is said

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, local: bool) -> None:
        response, without_body = await self._respond(reader, local)
        if response is None:
            return
        writer.write(_encode(response, without_body))
        async with asyncio.timeout(_RESPONSE_TIME):
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        async with asyncio.timeout(_LINGER_TIME):  # a reset would swallow the response
            while await reader.read(_MAX_HEAD):
                pass

    async def _respond(self, reader: asyncio.StreamReader, local: bool) -> tuple[Response | None, bool]:
        """The response, and whether it is one to HEAD."""
        if len(self._clients) > _MAX_CLIENTS:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at a time"), False
        try:
            async with asyncio.timeout(_REQUEST_TIME):
                request = parse_head(await reader.readuntil(b"\r\n\r\n"), local)
                await reader.readexactly(_body_length(request))
        except RequestError as error:
            return text(error.status, str(error)), False
        except asyncio.LimitOverrunError:
            return text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {_MAX_HEAD} octets"), False
        except TimeoutError:
            return text(HTTPStatus.REQUEST_TIMEOUT, "the request did not end in time"), False
        except asyncio.IncompleteReadError as error:
            incomplete = text(HTTPStatus.BAD_REQUEST, "the request is not complete")
            return incomplete if error.partial else None, False
        try:
            response = self._answer(request)
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            response = text(HTTPStatus.INTERNAL_SERVER_ERROR, "failed; the log says why")
        _log.debug("%s %s: %d", request.method, request.path, response.status)
        return response, request.method == "HEAD"


def _encode(response: Response, without_body: bool) -> bytes:
    fields = {
        "Date": formatdate(usegmt=True),
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
        **response.fields,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    status = f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
    return f"{status}{head}\r\n".encode("latin-1") + (b"" if without_body else response.body)
