"""The HTTP of the admin process: what is a request, and what is refused before anybody looks at what it wants."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.server import http
from fastsmtp.server.http import HTTPServer, Request, RequestError, Response, parse_head, text


def test_a_request() -> None:
    head = b"GET /status?x=1 HTTP/1.1\r\nHost: a\r\nAccept:text/plain \t\r\nACCEPT: */*\r\nX-Empty:\r\n\r\n"
    fields = {"host": "a", "accept": "text/plain, */*", "x-empty": ""}
    assert parse_head(head) == Request("GET", "/status", fields, query="x=1")


def test_http_1_0_needs_no_host() -> None:
    assert parse_head(b"HEAD / HTTP/1.0\r\n\r\n", local=True) == Request("HEAD", "/", {}, True)


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / \r\n\r\n",
        b"GET /\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET status HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/status HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # RFC 9112 3.2
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"EHLO client.example\r\n\r\n",
    ],
)
def test_malformed(head: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        parse_head(head)
    assert refused.value.status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("version", [b"2.0", b"0.9", b"3.1"])
def test_other_versions(version: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        parse_head(b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
    assert refused.value.status == HTTPStatus.HTTP_VERSION_NOT_SUPPORTED


@given(st.binary(max_size=200))
def test_nothing_but_a_refusal_comes_of_octets(octets: bytes) -> None:
    for head in (octets, b"GET / HTTP/1.1\r\n" + octets):
        try:
            request = parse_head(head + b"\r\n\r\n")
        except RequestError:
            continue
        assert request.path.startswith("/")
        assert not any(set(value) & set("\r\n\0") for value in request.fields.values())


# -- the server ------------------------------------------------------------------------------------------------------

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


def _talk(talk: Talk, answer: Callable[[Request], Response]) -> bytes:
    """What a client gets from a server that gives these answers."""

    async def run() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            stopped = asyncio.Event()
            serving = asyncio.create_task(HTTPServer(answer).serve(listening, stopped))
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            try:
                async with asyncio.timeout(8):
                    return await talk(reader, writer)
            finally:
                writer.close()
                stopped.set()
                await serving

    return asyncio.run(run())


def _fine(request: Request) -> Response:
    return text(HTTPStatus.OK, request.path)


def test_a_request_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_REQUEST_TIME", 0.05)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.1\r\n")
        return await reader.read()

    assert _talk(slow, _fine).startswith(b"HTTP/1.1 408 ")


def test_who_does_not_take_the_response_in_time_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_RESPONSE_TIME", 0)
    large = Response(HTTPStatus.OK, bytes(2**26))

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        return await reader.read()

    assert len(_talk(ask, lambda request: large)) < 2**26


def test_a_bug_is_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET /bug HTTP/1.0\r\n\r\n")
        return await reader.read()

    def fail(request: Request) -> Response:
        raise ZeroDivisionError("secret")

    answer = _talk(ask, fail)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert "GET /bug failed" in caplog.text


def test_a_response_under_way_leaves_when_it_is_stopped() -> None:
    async def run() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            stopped = asyncio.Event()

            def answer(request: Request) -> Response:
                stopped.set()
                return Response(HTTPStatus.OK, bytes(2**22))

            serving = asyncio.create_task(HTTPServer(answer).serve(listening, stopped))
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            octets = await reader.read()
            writer.close()
            await serving
            return octets

    assert len(asyncio.run(run())) > 2**22
