"""aiosmtpd on uvloop, with a handler that accepts everything: ``aiosmtpd_server.py PORT``."""

import asyncio
import sys
from typing import Any

import uvloop
from aiosmtpd.smtp import SMTP  # type: ignore[import-not-found]  # in the benchmark's own environment only

_MAX_BYTES = 64 << 20


class Accept:
    """The hooks of aiosmtpd, as coroutines, each accepting."""

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: Any) -> Any:  # noqa: N802
        session.host_name = hostname
        return responses

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        return "250 OK"


async def main(port: int) -> None:
    def protocol() -> Any:
        return SMTP(Accept(), hostname="mx.example", ident="aiosmtpd", data_size_limit=_MAX_BYTES)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(int(sys.argv[1])))
