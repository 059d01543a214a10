"""What a session knows of its encryption; the encryption itself is the driver's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TLS:
    """TLS as negotiated.

    Attributes:
        version: as OpenSSL names it: ``"TLSv1.3"``.
        cipher: likewise: ``"TLS_AES_256_GCM_SHA384"``.
        server_name: the name that the client asked for (SNI, RFC 6066 3), None if it named none.
        client_certificate: the client's certificate as ``ssl.SSLSocket.getpeercert()`` gives it; None if it showed
            none, or was not asked for one.
        bindings: channel bindings, by type (RFC 5929), for SCRAM-SHA-256-PLUS.
    """

    version: str
    cipher: str
    server_name: str | None = None
    client_certificate: Mapping[str, object] | None = None
    bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False)
