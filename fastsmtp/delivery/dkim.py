"""DKIM signatures (RFC 6376): rsa-sha256 and ed25519-sha256 (RFC 8463), relaxed/relaxed.

A message is signed as it leaves, line ends made safe already: nothing that we do afterwards touches what is signed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from email.utils import getaddresses
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_Key = RSAPrivateKey | Ed25519PrivateKey

# RFC 6376 5.4.1, as far as relays leave them alone.
_SIGNED: Final = (
    b"from", b"sender", b"reply-to", b"to", b"cc", b"subject", b"date", b"message-id", b"in-reply-to", b"references",
    b"mime-version", b"content-type", b"content-transfer-encoding", b"list-id", b"list-unsubscribe",
    b"list-unsubscribe-post", b"auto-submitted",
)  # fmt: skip
# Named once more than they are there, so that nobody can add another one (RFC 6376 8.15).
_SEALED: Final = frozenset({b"from", b"to", b"cc", b"subject", b"date", b"reply-to"})
_MIN_RSA_BITS: Final = 1024  # RFC 8301 3.2
# From the start of a line only, and never back: a long line without a colon would be looked at from each of its octets.
_FIELD: Final = re.compile(rb"^([!-9;-~]++)[ \t]*+:(.*(?:\r\n[ \t].*)*)\r\n", re.MULTILINE)
_BLANKS: Final = re.compile(rb"[ \t]+")
_MAX_HEADER: Final = 2**20  # octets; behind that nothing is looked for


@dataclass(frozen=True, slots=True)
class Signer:
    """One key of one domain.

    Attributes:
        domain: in lower case (d=).
        selector: names the key in DNS, ``SELECTOR._domainkey.DOMAIN`` (s=).
    """

    domain: str
    selector: str
    _key: _Key

    @classmethod
    def load(cls, text: str) -> Signer:
        """Reads ``DOMAIN:SELECTOR:FILE``; the file holds a private key of RSA or Ed25519, PEM, without a password.

        Raises:
            ValueError: the text says what is wrong.
        """
        domain, _, rest = text.partition(":")
        selector, _, path = rest.partition(":")
        if not (domain and selector and path):
            raise ValueError(f"{text!r}: expected DOMAIN:SELECTOR:FILE")
        return cls(domain.lower(), selector, _load_key(path))

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self._key, RSAPrivateKey) else "ed25519-sha256"

    def covers(self, domain: str) -> bool:
        """Whether the key signs for a domain: its own, and those below (RFC 6376 3.10)."""
        return domain == self.domain or domain.endswith("." + self.domain)

    def field(self, header: Sequence[tuple[bytes, bytes]], body_hash: bytes, now: float) -> bytes:
        """The DKIM-Signature field, with its CR LF.

        Args:
            header: names in lower case and relaxed values, from top to bottom.
            body_hash: of the relaxed body.
            now: Unix seconds.
        """
        names = _names_to_sign(header)
        value = (
            f"v=1; a={self.algorithm}; c=relaxed/relaxed; d={self.domain}; s={self.selector};\r\n"
            f"\tt={int(now)}; h={_folded(b':'.join(names).decode())};\r\n"
            f"\tbh={base64.b64encode(body_hash).decode()};\r\n"
            "\tb="
        ).encode()
        signed = [_line(name, field) for name, field in _chosen(header, names) if field is not None]
        signed.append(_line(b"dkim-signature", _relaxed(value)).removesuffix(b"\r\n"))
        signature = base64.b64encode(self._sign(b"".join(signed))).decode()
        folded = "\r\n\t ".join(signature[start : start + 72] for start in range(0, len(signature), 72))
        return b"DKIM-Signature: " + value + folded.encode() + b"\r\n"

    def _sign(self, octets: bytes) -> bytes:
        if isinstance(self._key, RSAPrivateKey):
            return self._key.sign(octets, PKCS1v15(), SHA256())
        return self._key.sign(hashlib.sha256(octets).digest())  # RFC 8463 3: the hash is what is signed


def signatures(signers: Sequence[Signer], blocks: Iterable[bytes], now: float) -> bytes:
    """The signatures of a message, one for each key of its author's domain; nothing where there is no such key.

    It looks at every octet, so it runs in a thread where an event loop must not wait.

    Args:
        signers: all the keys there are.
        blocks: the message as it goes out, in pieces, with CR LF as line ends.
        now: Unix seconds.
    """
    message = iter(blocks)
    section, body = _split(message)
    fields = [(match[1].lower(), _relaxed(match[2])) for match in _FIELD.finditer(section)]
    domain = _author_domain(section)
    chosen = [signer for signer in signers if signer.covers(domain)] if domain else []
    if not chosen:
        return b""
    body_hash = _body_hash(_chain(body, message))
    return b"".join(signer.field(fields, body_hash, now) for signer in chosen)


def _load_key(path: str) -> _Key:
    try:
        key = load_pem_private_key(Path(path).read_bytes(), None)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{path}: holds no private key in PEM, or one with a password") from None
    if isinstance(key, RSAPrivateKey) and key.key_size >= _MIN_RSA_BITS:
        return key
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise ValueError(f"{path}: expected a key of RSA, of {_MIN_RSA_BITS} bits or more, or Ed25519")


# -- the header section -----------------------------------------------------------------------------------------------


def _split(message: Iterable[bytes]) -> tuple[bytes, bytes]:
    """The header section with its last CR LF, and what of the body came with it."""
    gathered = b""
    for block in message:
        gathered += block
        if gathered.startswith(b"\r\n"):
            return b"", gathered[2:]
        if b"\r\n\r\n" in gathered or len(gathered) > _MAX_HEADER:
            break
    section, _, body = gathered.partition(b"\r\n\r\n")
    return section + b"\r\n", body


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterable[bytes]:
    yield first
    yield from rest


def _author_domain(section: bytes) -> str:
    """The domain of the author; empty where there is not exactly one, for then nobody can say whose key it takes."""
    try:
        header = BytesHeaderParser().parsebytes(section)  # the old policy: it leaves the values alone
        authors = getaddresses([str(value) for value in header.get_all("From", [])])
    except (ValueError, LookupError, RecursionError):  # the parser's answers to hostile input
        return ""
    return authors[0][1].rpartition("@")[2].lower() if len(authors) == 1 else ""


def _names_to_sign(header: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    present = [name for name, _ in header]
    names: list[bytes] = []
    for name in _SIGNED:
        names += [name] * (present.count(name) + (name in _SEALED))
    return names


def _chosen(header: Sequence[tuple[bytes, bytes]], names: Iterable[bytes]) -> Iterable[tuple[bytes, bytes | None]]:
    """The fields that the names stand for: of several the last one first (RFC 6376 5.4.2)."""
    left: dict[bytes, list[bytes]] = {}
    for name, value in header:
        left.setdefault(name, []).append(value)
    for name in names:
        values = left.get(name)
        yield name, values.pop() if values else None


def _relaxed(value: bytes) -> bytes:
    """RFC 6376 3.4.2."""
    return _BLANKS.sub(b" ", value.replace(b"\r\n", b"")).strip(b" \t")


def _line(name: bytes, value: bytes) -> bytes:
    return name + b":" + value + b"\r\n"


def _folded(names: str) -> str:
    lines, line = [], ""
    for name in names.split(":"):
        if len(line) + len(name) > 60:
            lines.append(line)
            line = ""
        line += name + ":"
    return "\r\n\t ".join([*lines, line]).removesuffix(":")


# -- the body ---------------------------------------------------------------------------------------------------------


def _body_hash(blocks: Iterable[bytes]) -> bytes:
    """SHA-256 of the relaxed body (RFC 6376 3.4.4)."""
    digest = hashlib.sha256()
    empty_lines = 0  # seen and not hashed: at the end of the body they do not count
    for lines in _whole_lines(blocks):
        for line in lines:
            text = _BLANKS.sub(b" ", line).rstrip(b" ")
            if text:
                digest.update(b"\r\n" * empty_lines + text + b"\r\n")
                empty_lines = 0
            else:
                empty_lines += 1
    return digest.digest()


def _whole_lines(blocks: Iterable[bytes]) -> Iterable[list[bytes]]:
    begun: list[bytes] = []  # pieces of a line, joined once: it may go through all of the message
    for block in blocks:
        begun.append(block)
        if b"\n" in block:
            *lines, rest = b"".join(begun).split(b"\r\n")
            begun = [rest]
            yield lines
    rest = b"".join(begun)
    yield [rest] if rest else []
