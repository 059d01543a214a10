"""What a client brings to log in, decoded, and what a handler needs to hand out for it (RFC 4954, RFC 4422)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login, as the `auth` hook gets it. Its repr shows no secret.

    Attributes:
        mechanism: in upper case: PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, XOAUTH2, OAUTHBEARER.
        username: who logs in (the authentication identity, RFC 4422 2).
        authzid: as whom, where that is somebody else; else empty.
        password: of PLAIN and LOGIN; None for the others.
        token: the bearer token of XOAUTH2 and OAUTHBEARER (RFC 6750); None for the others.
    """

    mechanism: str
    username: str
    authzid: str = ""
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    challenge: bytes = field(default=b"", repr=False)  # CRAM-MD5
    digest: str = field(default="", repr=False)  # CRAM-MD5, in hexadecimal

    def verify(self, password: str) -> bool:
        """Whether the client knows this password: for PLAIN, LOGIN and CRAM-MD5, in constant time."""
        if self.password is not None:
            return hmac.compare_digest(self.password.encode(), password.encode())
        if self.mechanism == "CRAM-MD5":
            expected = hmac.new(password.encode(), self.challenge, hashlib.md5).hexdigest()
            return hmac.compare_digest(self.digest.encode(), expected.encode())
        return False


@dataclass(frozen=True, slots=True)
class ScramKey:
    """What a server keeps of a password for SCRAM-SHA-256 (RFC 5802 3): the `auth` hook returns it.

    It is not the password, but whoever has it can guess at the password, and can act as the server.
    """

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def of(cls, password: str, salt: bytes, iterations: int = 4096) -> ScramKey:
        """Make the key of a password.

        Args:
            password: ASCII; of any other, clients send a prepared form (SASLprep), for which see `protocol.scram`.
            salt: random, 16 octets or more.
            iterations: 4096 or more (RFC 7677 4).

        Raises:
            ValueError: the password is not ASCII.
        """
        if not password.isascii():
            raise ValueError("a password that is not ASCII needs SASLprep: use fastsmtp.protocol.scram.key_of")
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        return cls(salt, iterations, hashlib.sha256(client_key).digest(), server_key)
