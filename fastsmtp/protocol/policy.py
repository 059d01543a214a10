"""What a listener demands of its clients before it takes their mail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of a listener.

    Attributes:
        lmtp: it speaks LMTP (RFC 2033) instead of SMTP.
        starttls: TLS can be had by STARTTLS (RFC 3207).
        require_tls: nothing that matters without TLS.
        require_auth: no mail without a login.
        auth_requires_tls: no login without TLS.
        authzid: whether a login may be for somebody else than it is by (RFC 4422 3.4.1), as the handler decides.
        mechanisms: SASL mechanisms, where the handler authenticates (RFC 4954).
        vrfy: whether VRFY is implemented.
    """

    lmtp: bool = False
    starttls: bool = False
    require_tls: bool = False
    require_auth: bool = False
    auth_requires_tls: bool = True
    authzid: bool = False
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")
    vrfy: bool = True
