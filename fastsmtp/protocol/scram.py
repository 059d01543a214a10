"""SCRAM-SHA-256 (RFC 5802, RFC 7677): scramp does the computing; here it is fitted to `sasl`, which asks in steps.

scramp wants the user's key while it reads the client's first message, but the handler may need a while to find it. So
that message is read twice: once for the user's name, and again when the key is there.

scramp is optional, and imported when the first exchange is made.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any, Final

from .credentials import ScramKey
from .replies import CANNOT_DECODE, SMTPError

BINDING_TYPES: Final = frozenset({"tls-server-end-point", "tls-unique"})
"""The channel bindings that scramp can check (RFC 5929)."""

# The least that RFC 7677 4 asks for, and what `ScramKey.of` takes unless told otherwise. A handler whose keys have more
# gives away who exists, as decoys have these.
ITERATIONS: Final = 4096
SALT_OCTETS: Final = 16
# Room for a name of 255 octets, all escaped (RFC 5802 5.1), and a nonce. SASLprep, on the event loop, takes 28 ms for a
# name of 9000 octets.
_MAX_FIRST: Final = 1024
_KEY_OCTETS: Final = 32  # of SHA-256
_MAX_ITERATIONS: Final = 10_000_000  # scramp's; clients refuse to compute for so long
_MIN_SALT: Final = 12  # scramp's
_SCRAMP: Final = (1, 5)  # older ones compare neither the whole nonce nor, without -PLUS, the channel binding flag
# Of this process and its children: this module is imported before workers are forked, so all give the same answer.
_SECRET: Final = secrets.token_bytes(32)


def check_library() -> None:
    """Whether SCRAM can be offered.

    Raises:
        ValueError: scramp is missing or too old; says what to do.
    """
    try:
        import scramp  # type: ignore[import-untyped]  # scramp has no annotations
    except ImportError:
        raise ValueError("SCRAM needs scramp: pip install 'fastsmtp[auth]'") from None
    if tuple(map(int, scramp.__version__.split(".")[:2])) < _SCRAMP:
        raise ValueError(f"SCRAM needs scramp {'.'.join(map(str, _SCRAMP))}: pip install --upgrade scramp")


def key_of(password: str, salt: bytes) -> ScramKey:
    """The key of a password, prepared with SASLprep as clients prepare it (RFC 5802 2.2).

    Raises:
        ValueError: SASLprep forbids a character of the password.
    """
    from scramp import ScramException, ScramMechanism

    try:
        salt, stored_key, server_key, iterations = ScramMechanism("SCRAM-SHA-256").make_auth_info(
            password, iteration_count=ITERATIONS, salt=salt
        )
    except ScramException:  # it says which characters, so it stays unsaid
        raise ValueError("password: holds characters that SCRAM forbids (SASLprep, RFC 4013)") from None
    return ScramKey(salt, iterations, stored_key, server_key)


def check_key(key: ScramKey) -> None:
    """Whether SCRAM can work with a key.

    Raises:
        ValueError: it cannot; says why, and nothing of the key.
    """
    if not len(key.stored_key) == len(key.server_key) == _KEY_OCTETS:
        raise ValueError(f"SCRAM key: stored key and server key must have {_KEY_OCTETS} octets each")
    if len(key.salt) < _MIN_SALT:
        raise ValueError(f"SCRAM key: the salt must have at least {_MIN_SALT} octets")
    if not ITERATIONS <= key.iterations <= _MAX_ITERATIONS:
        raise ValueError(f"SCRAM key: there must be {ITERATIONS} to {_MAX_ITERATIONS} iterations")


def decoy(username: str) -> ScramKey:
    """A key for who has none. As with a true one its salt stays the same, so that asking twice tells nothing."""
    salt = hmac.digest(_SECRET, username.encode(), "sha256")[:SALT_OCTETS]
    return ScramKey(salt, ITERATIONS, secrets.token_bytes(_KEY_OCTETS), secrets.token_bytes(_KEY_OCTETS))


def username(client_first_bare: str) -> str:
    """The user's name, unescaped and prepared (RFC 5802 5.1), in a client's first message without its GS2 header.

    Raises:
        SMTPError: 501 5.5.2, it is malformed.
    """
    from scramp import ScramException, ScramMechanism

    names: list[str] = []

    def key_of(name: str) -> tuple[bytes, bytes, bytes, int]:
        names.append(name)
        return _parts(decoy(name))

    if len(client_first_bare.encode()) > _MAX_FIRST:
        raise SMTPError(CANNOT_DECODE)
    try:
        ScramMechanism("SCRAM-SHA-256").make_server(key_of).set_client_first(f"n,,{client_first_bare}")
    except ScramException:
        raise SMTPError(CANNOT_DECODE) from None
    return names[0]


class Server:
    """The part of an exchange for which a key is needed.

    Args:
        client_first: the client's first message, without an authorization identity; `username` has read the rest.
        binding: the channel binding, its type one of `BINDING_TYPES`, and its data; None without -PLUS.
        key: the user's key.
        nonce: None for one that cannot be guessed.

    Raises:
        ValueError: the key does not do.

    Attributes:
        first: the server's first message (RFC 5802 3).
    """

    __slots__ = ("_server", "first")

    def __init__(
        self, client_first: str, binding: tuple[str, bytes] | None, key: ScramKey, nonce: str | None = None
    ) -> None:
        from scramp import ScramMechanism

        check_key(key)
        mechanism = ScramMechanism("SCRAM-SHA-256-PLUS" if binding else "SCRAM-SHA-256")
        self._server: Any = mechanism.make_server(lambda _: _parts(key), channel_binding=binding, s_nonce=nonce)
        self._server.set_client_first(client_first)
        self.first: bytes = self._server.get_server_first().encode()

    def verify(self, client_final: str) -> bytes | None:
        """The server's final message; None if proof, nonce or channel binding are wrong."""
        from scramp import ScramException

        try:
            self._server.set_client_final(client_final)
        except ScramException:
            return None
        final: str = self._server.get_server_final()
        return final.encode()


def _parts(key: ScramKey) -> tuple[bytes, bytes, bytes, int]:
    return key.salt, key.stored_key, key.server_key, key.iterations
