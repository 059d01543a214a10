"""Mail that is posted to an HTTP endpoint: a real server, over TLS too."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastsmtp.protocol.envelope import Message, Recipient, Sender
from fastsmtp.store import StoreError, check_url, describe, open_store, webhook
from tests.client.hops import run
from tests.server.running import running as serving
from tests.store.fakes import CONTENT, make_message

NOT_TAKEN = "451 4.3.0 the message was not taken, try again later"
KEY = b"a key of the test's own"


class Endpoint(ThreadingHTTPServer):
    """An endpoint that answers with the given statuses, then 204; a status of 0 hangs up without an answer."""

    daemon_threads = False

    def __init__(self, statuses: tuple[int, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.statuses = list(statuses)
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.connections = 0
        self.release = threading.Event()  # a status of -1 waits for it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/mail"

    def handle_error(self, request: object, client_address: object) -> None:
        """The client may hang up."""


class Receiver(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.server.paths.append(self.path)
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        if status <= 0:
            if status < 0:
                self.server.release.wait(20)
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@contextmanager
def endpoint(*statuses: int, context: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    with Endpoint(statuses) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()


def post(url: str, *messages: Message) -> list[str]:
    """What becomes of messages: the reply of each that was not taken, else ok."""

    async def main() -> list[str]:
        async with open_store(f"webhook:{url}", slot=0) as store:
            results = await store.store(messages)
        return [str(error.reply) if error else "ok" for error in results]

    return run(main())


@pytest.fixture
def secret(tmp_path: Path) -> str:
    (tmp_path / "key").write_bytes(KEY + b"\n")
    return f"secret=file:{tmp_path}/key"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_PAUSES", (0.0, 0.0))


def signature(headers: dict[str, str], octets: bytes, key: bytes = KEY) -> str:
    """As Standard Webhooks define it."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + octets
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def test_a_raw_message_with_its_envelope(secret: str) -> None:
    content = CONTENT + bytes(range(256)) * 1000
    recipients = (Recipient("bob", "example.org", notify=("NEVER",)), Recipient("jürgen", "example.org"))
    sender = Sender("alice", "example.com", smtputf8=True, envid="Q")
    with endpoint() as server:
        message = make_message(content, sender=sender, recipients=recipients)
        assert post(f"{server.url}?tenant=7&{secret}", message) == ["ok"]
    ((headers, body),) = server.requests
    assert server.paths == ["/mail?tenant=7"]
    assert body == content
    assert headers["content-type"] == "message/rfc822"
    assert headers["webhook-id"] == "M1"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["webhook-signature"] == signature(headers, body)
    envelope = headers["fastsmtp-envelope"]
    assert headers["fastsmtp-envelope-signature"] == signature(headers, envelope.encode())
    found = json.loads(envelope)
    assert found["sender"] == {"address": "alice@example.com", "smtputf8": True, "envid": "Q"}
    assert found["recipients"] == [
        {"address": "bob@example.org", "notify": ["NEVER"]},
        {"address": "jürgen@example.org"},
    ]
    assert found["session"]["peer"] == "192.0.2.7:40000"
    assert found["size"] == len(content)


MIME = (
    b"From: Ann <ann@example.com>\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/alternative; boundary="x"\r\n\r\n'
    b"--x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain \xc3\xa4\r\n"
    b"--x\r\nContent-Type: text/html; charset=latin-1\r\n\r\n<b>\xe4</b>\r\n--x--\r\n"
)


def test_json_with_parsed_headers(secret: str) -> None:
    with endpoint() as server:
        assert post(f"{server.url}?format=json&{secret}", make_message(MIME)) == ["ok"]
    ((headers, body),) = server.requests
    assert headers["content-type"] == "application/json"
    assert "fastsmtp-envelope" not in headers
    assert headers["webhook-signature"] == signature(headers, body)
    found: dict[str, Any] = json.loads(body)
    assert base64.b64decode(found["raw"]) == MIME
    assert ["Subject", "café"] in found["headers"]
    assert (found["text"], found["html"]) == ("plain ä", "<b>ä</b>")
    assert found["recipients"] == [{"address": "bob@example.org"}]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\xff: \xff\r\n\r\n",
        b"Content-Type: text/plain; charset=none\r\n\r\nx",
        b"Content-Type: a\r\nFrom: <\r\n",
    ],
)
def test_what_is_no_mime_is_posted_all_the_same(content: bytes) -> None:
    with endpoint() as server:
        assert post(f"{server.url}?format=json", make_message(content)) == ["ok"]
    assert base64.b64decode(json.loads(server.requests[0][1])["raw"]) == content


@pytest.mark.parametrize(
    ("statuses", "result", "requests"),
    [
        ((200,), "ok", 1),
        ((500, 201), "ok", 2),
        ((0, 0, 204), "ok", 3),
        ((429, 503, 500), NOT_TAKEN, 3),
        ((400,), NOT_TAKEN, 1),
        ((302,), NOT_TAKEN, 1),
        ((0, 0, 0), NOT_TAKEN, 3),
    ],
)
def test_only_2xx_is_accepted(statuses: tuple[int, ...], result: str, requests: int) -> None:
    with endpoint(*statuses) as server:
        assert post(server.url, make_message()) == [result]
    assert len(server.requests) == requests
    assert {headers["webhook-id"] for headers, _ in server.requests} == {"M1"}
    assert all("webhook-signature" not in headers for headers, _ in server.requests)


def test_a_slow_endpoint_is_given_up() -> None:
    with endpoint(-1) as server:
        began = time.monotonic()
        assert post(f"{server.url}?timeout=1", make_message()) == [NOT_TAKEN]
        assert time.monotonic() - began < 10
        server.release.set()


def test_connections_are_kept_and_bounded() -> None:
    with endpoint() as server:

        async def main() -> None:
            async with open_store(f"webhook:{server.url}?connections=2", slot=0) as store:
                for _ in range(3):
                    messages = [make_message(id=f"M{number}") for number in range(10)]
                    assert list(await store.store(messages)) == [None] * 10

        run(main())
    assert len(server.requests) == 30
    assert server.connections <= 2


def test_an_envelope_that_fits_no_header_is_refused() -> None:
    recipients = tuple(Recipient(f"user{number}", "example.org") for number in range(500))
    with endpoint() as server:
        message = make_message(recipients=recipients)
        assert post(server.url, message) == ["452 4.5.3 too many recipients"]
        assert post(f"{server.url}?format=json", message) == ["ok"]


def test_over_tls_with_an_authority_of_our_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with endpoint(context=context) as server:
        url = server.url.replace("http:", "https:")
        assert post(f"{url}?ca={tmp_path}/ca.pem", make_message()) == ["ok"]
        assert post(url, make_message())[0].startswith("451 ")
    assert len(server.requests) == 1


def test_behind_a_server(tmp_path: Path) -> None:
    with endpoint() as server:
        with serving(tmp_path, f"--store=webhook:{server.url}") as smtp:
            smtp.greeted().deliver(b"Subject: x\r\n\r\n..\r\n")
        assert server.requests[0][1] == b"Subject: x\r\n\r\n.\r\n"


@pytest.mark.parametrize(
    "location",
    [
        "",
        "ftp://h/",
        "https://",
        "https://me:secret@h/",
        "https://h/#x",
        "https://h/?secret=hunter2",
        "https://h/?format=xml",
        "https://h/?timeout=0",
        "https://h/?timeout=x",
    ],
)
def test_bad_urls(location: str) -> None:
    with pytest.raises(ValueError, match=r"webhook|secret"):
        check_url(f"webhook:{location}")


def test_what_the_log_says_of_it_has_no_query() -> None:
    assert describe("webhook:https://h/x?key=hunter2&secret=env:X") == "the webhook https://h/x"


@pytest.mark.parametrize("text", ["whsec_!!", ""])
def test_a_secret_that_is_none_is_found_at_the_start(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)

    async def main() -> None:
        async with open_store(f"webhook:https://h/?secret=file:{tmp_path}/key", slot=0):
            pass

    with pytest.raises(StoreError, match=r"no base64|no secret"):
        asyncio.run(main())


def test_a_secret_in_the_spelling_of_standard_webhooks(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("whsec_" + base64.b64encode(b"\0\1\2" * 8).decode())
    with endpoint() as server:
        assert post(f"{server.url}?secret=file:{tmp_path}/key", make_message()) == ["ok"]
    ((headers, body),) = server.requests
    assert headers["webhook-signature"] == signature(headers, body, b"\0\1\2" * 8)


def test_what_must_be_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(StoreError, match=r"pip install 'fastsmtp\[webhook\]'"):
        post("https://h/", make_message())
