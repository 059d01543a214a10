"""What TLS connections cost without a server around them: the memory of OpenSSL, and of Python's objects for it.

python -m tests.server.bare_tls CERTIFICATE COUNT prints how many octets one takes. It is a process of its own, for the
memory that a large one has free would hide them.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys

from tests.server.processes import memory_of
from tests.server.secured import ANYBODY


def octets_of_one(certificate: str, count: int) -> int:
    """Counted in a process that does nothing else."""
    command = [sys.executable, "-m", "tests.server.bare_tls", certificate, str(count)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def _established(context: ssl.SSLContext) -> tuple[object, ...]:
    """The server's end of a connection, and what it reads from and writes to."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = ANYBODY.wrap_bio(to_client, to_server)
    waiting = [client, server]
    while waiting:
        end = waiting.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(end)
    to_client.read()  # the tickets
    return server, to_server, to_client


def _main(certificate: str, count: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    kept = [_established(context) for _ in range(5)]
    before = memory_of(os.getpid())
    kept += [_established(context) for _ in range(count)]
    print((memory_of(os.getpid()) - before) // count)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
