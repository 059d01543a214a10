"""Handing mail to an HTTP endpoint: the 250 waits for its 2xx.

aiohttp speaks HTTP: of the asyncio clients that are kept up it is the one with the fewest dependencies that are not
its own, and it pools connections. It is imported only where a webhook is opened.

What it guarantees: None for a message means that the endpoint has answered 2xx. Anything else is 451 for the client,
who tries again; a request whose answer was lost may have been worked on, so endpoints should know a message again by
the header webhook-id.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from fastsmtp.protocol.replies import TEMPORARY_FAILURE, TOO_MANY_RECIPIENTS, Reply

from .contract import StoreError
from .webhook_request import Format, Request, make_request
from .webhook_url import Endpoint, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aiohttp import ClientSession

    from fastsmtp.protocol.envelope import Message

_log = logging.getLogger("fastsmtp.store")
_NOT_TAKEN: Final = Reply(451, "4.3.0", "the message was not taken, try again later")
_PAUSES: Final = (0.5, 2.0)  # seconds before the second and the third try
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # what may be different a moment later
_BLOCK: Final = 2**16  # octets
_MAX_ENVELOPE: Final = 6000  # octets of a header field; servers take 8192 for all of them


class Webhook:
    """Posts each message to one URL.

    Args:
        location: the URL, with options of ours in its query; see `parse_endpoint`.
        slot: the worker's slot, of no use here.
    """

    # One slow message shall not hold up those that came with it, nor those behind it. As many as a batch holds.
    parallel_batches = 256

    def __init__(self, location: str, slot: int) -> None:
        self._endpoint = parse_endpoint(location)
        self._key = b""
        self._http: ClientSession | None = None

    @staticmethod
    def check(location: str) -> None:
        """Raises ValueError unless the location is the URL of an endpoint."""
        parse_endpoint(location)

    @staticmethod
    def describe(location: str) -> str:
        return f"the webhook {parse_endpoint(location)}"

    async def __aenter__(self) -> Webhook:
        """Opens the pool of connections; the endpoint may be down.

        Raises:
            StoreError: aiohttp is not installed, or there is no secret where the URL says.
        """
        try:
            self._key = self._endpoint.read_key()
            self._http = _open_session(self._endpoint)
        except (ImportError, OSError, ValueError) as error:
            raise StoreError(TEMPORARY_FAILURE, f"store webhook:{self._endpoint}: {error}") from None
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._http is not None
        await self._http.close()

    async def store(self, batch: Sequence[Message]) -> Sequence[StoreError | None]:
        """Posts the messages side by side; see `Store.store`."""
        return await asyncio.gather(*map(self._deliver, batch))

    def free_bytes(self) -> None:
        """The endpoint says at each message whether it has room."""

    async def _deliver(self, message: Message) -> StoreError | None:
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                # MIME may be deep: parsing must not hold up the loop.
                request = await asyncio.to_thread(make_request, message, self._endpoint.format, time.time())
                if self._endpoint.format is Format.RAW and len(request.envelope) > _MAX_ENVELOPE:
                    reason = "too many recipients for a header field, use format=json"
                    return StoreError(TOO_MANY_RECIPIENTS, f"message {message.id}: {reason}")
                problem = await self._post(message.id, request)
        except TimeoutError:
            problem = f"no answer within {self._endpoint.timeout:g} s"
        return StoreError(_NOT_TAKEN, f"message {message.id}: {self._endpoint}: {problem}") if problem else None

    async def _post(self, message_id: str, request: Request) -> str:
        """Tries until the endpoint takes it or has had enough chances; returns what was wrong, empty if nothing."""
        for pause in (*_PAUSES, None):
            status, problem = await self._try(message_id, request)
            if status // 100 == 2 or pause is None or (status and status not in _AGAIN):
                return "" if status // 100 == 2 else problem
            _log.warning("message %s: %s: %s; once more in %g s", message_id, self._endpoint, problem, pause)
            await asyncio.sleep(pause)
        raise AssertionError  # the last pause is None

    async def _try(self, message_id: str, request: Request) -> tuple[int, str]:
        """One request: its status, 0 if there was no answer, and what to say of it."""
        from aiohttp import ClientError

        assert self._http is not None
        headers = {
            **request.headers(message_id, self._key, int(time.time())),
            "Content-Length": str(len(request.body)),
        }
        try:
            async with self._http.post(
                self._endpoint.url, data=_blocks(request.body), headers=headers, allow_redirects=False
            ) as answer:
                return answer.status, f"status {answer.status}"
        except (ClientError, OSError) as error:
            return 0, f"{type(error).__name__}: {error}"


def _open_session(endpoint: Endpoint) -> ClientSession:
    try:
        import aiohttp
    except ImportError:
        raise ImportError("needs aiohttp: pip install 'fastsmtp[webhook]'") from None
    connector = aiohttp.TCPConnector(limit=endpoint.connections, ssl=endpoint.tls_context() or True)
    # The time for a message covers all its tries, so requests have none of their own.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers={"User-Agent": "fastsmtp"},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _blocks(body: memoryview) -> AsyncIterator[bytes]:
    """In pieces: a large body as a whole would be copied once more."""
    for start in range(0, len(body), _BLOCK):
        yield bytes(body[start : start + _BLOCK])
