"""TLS as a client: whose certificates are believed."""

from __future__ import annotations

import ssl
from functools import lru_cache


@lru_cache(maxsize=16)
def tls_context(verify: bool, authorities: str) -> ssl.SSLContext:
    """A context for connections to next hops, kept for the life of the process.

    Args:
        verify: whether the certificate must be good for the host; if not, any will do, which keeps out those who only
            listen (RFC 7435).
        authorities: a file of authorities to believe besides the system's; empty: none.

    Raises:
        OSError: the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities:
        context.load_verify_locations(authorities)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
