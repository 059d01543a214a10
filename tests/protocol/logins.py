"""Logins whose challenges are known before: what a client says, right and wrong, can be written down.

`predictable()` gives every exchange the same challenge and nonce. With it the user is `USER`, and the password, the
token and the key are what `answer_to` accepts.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from scramp import ScramClient  # type: ignore[import-untyped]  # scramp has no annotations

from fastsmtp import REJECT, AuthAnswer, Credentials, Reply, ScramKey
from fastsmtp.protocol import sasl

USER: Final = "tim"
PASSWORD: Final = "secret"
TOKEN: Final = "vF9dft4qmT"
KEY: Final = ScramKey.of(PASSWORD, b"sixteen octets..")
BINDINGS: Final = {"tls-server-end-point": b"the hash of a certificate"}
UNDECIDED: Final = Reply(454, "4.7.0", "ask again later")
_CHALLENGE: Final = b"<1@mx.example>"
_NONCE: Final = "nonce"
_PLUS: Final = "SCRAM-SHA-256-PLUS"
_DIGEST: Final = hmac.new(PASSWORD.encode(), _CHALLENGE, "md5").hexdigest().encode()


@contextmanager
def predictable() -> Iterator[None]:
    """Exchanges that begin meanwhile have no chance in them."""
    scripts: dict[str, Any] = sasl._SCRIPTS
    kept = dict(scripts)
    scripts["CRAM-MD5"] = partial(sasl._cram_md5, challenge=_CHALLENGE)
    scripts["SCRAM-SHA-256"] = scripts[_PLUS] = partial(sasl._scram, nonce=_NONCE)
    try:
        yield
    finally:
        scripts.update(kept)


def answer_to(credentials: Credentials) -> AuthAnswer:
    """Whether somebody is let in; "busy" cannot be told now, and a SCRAM client named "none" is refused at once."""
    if credentials.username == "busy":
        return UNDECIDED
    if credentials.mechanism.startswith("SCRAM"):
        return REJECT if credentials.username == "none" else KEY
    if credentials.token is not None:
        return None if credentials.token == TOKEN else REJECT
    return None if credentials.verify(PASSWORD) else REJECT


def _scram_messages(mechanism: str, password: str) -> tuple[bytes, bytes, bytes]:
    """What a client says, to the server's nonce of `predictable`."""
    binding = ("tls-server-end-point", BINDINGS["tls-server-end-point"]) if mechanism == _PLUS else None
    client = ScramClient([mechanism], USER, password, channel_binding=binding, c_nonce="abc")
    first: str = client.get_client_first()
    salt = b64encode(KEY.salt).decode()
    client.set_server_first(f"r=abc{_NONCE},s={salt},i={KEY.iterations}")
    final: str = client.get_client_final()
    return first.encode(), final.encode(), b""


RESPONSES: Final = (
    ("PLAIN", (b"\0tim\0secret",)),
    ("PLAIN", (b"boss\0tim\0secret",)),
    ("PLAIN", (b"\0tim\0wrong",)),
    ("PLAIN", (b"\0busy\0secret",)),
    ("PLAIN", (b"\0tim\0",)),
    ("PLAIN", (b"tim",)),
    ("LOGIN", (b"tim", b"secret")),
    ("LOGIN", (b"tim", b"wrong")),
    ("CRAM-MD5", (b"tim " + _DIGEST,)),
    ("CRAM-MD5", (b"tim " + b"0" * 32,)),
    ("CRAM-MD5", (b"tim",)),
    ("SCRAM-SHA-256", _scram_messages("SCRAM-SHA-256", PASSWORD)),
    ("SCRAM-SHA-256", _scram_messages("SCRAM-SHA-256", "wrong")),
    ("SCRAM-SHA-256", (*_scram_messages("SCRAM-SHA-256", PASSWORD)[:2], b"more")),
    ("SCRAM-SHA-256", (b"n,,n=none,r=abc", b"c=biws,r=abcnonce,p=AAAA")),
    ("SCRAM-SHA-256", (b"y,,n=tim,r=abc", b"")),
    (_PLUS, _scram_messages(_PLUS, PASSWORD)),
    (_PLUS, _scram_messages(_PLUS, "wrong")),
    (_PLUS, (b"n,,n=tim,r=abc",)),
    ("XOAUTH2", (b"user=tim\1auth=Bearer vF9dft4qmT\1\1",)),
    ("XOAUTH2", (b"user=tim\1auth=Bearer wrong\1\1", b"")),
    ("OAUTHBEARER", (b"n,a=tim,\1host=h\1port=25\1auth=Bearer vF9dft4qmT\1\1",)),
    ("OAUTHBEARER", (b"n,a=tim,\1auth=Bearer wrong\1\1", b"\1")),
    ("OAUTHBEARER", (b"n,,\1\1", b"\1")),
    ("DIGEST-MD5", (b"x",)),
)
"""Mechanisms, each with what a client says, decoded: right, wrong, malformed."""

SECRETS: Final = tuple(b64encode(message) for _, messages in RESPONSES for message in messages if len(message) > 4)
"""What of them no log may show, as it is said."""
