"""The certificates of one listener: which one a client is served, and new ones while the server runs.

Guarantees: a client that asks for a name which no certificate is for gets the first one, not an alert (RFC 6066 3
allows both); files that cannot be used never replace ones that can; every listener has contexts, hence session
tickets, of its own. A name that is not ASCII does end the handshake: Python gives it to `sys.unraisablehook`, and an
alert to the client, before we see it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Never
from weakref import WeakKeyDictionary

_log = logging.getLogger("fastsmtp.tls")

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY: Final = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
# A second ticket would help clients that come back with two connections at once; it costs 255 octets and 7 % of the
# time of a TLS 1.3 handshake (ECDSA).
_TICKETS: Final = 1

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_KEY: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")

# The object identifiers, in DER, that name the hash function in a certificate's signatureAlgorithm (RFC 4055, 5758).
# RSASSA-PSS names it in its parameters. MD5 and SHA-1 are not here: they become SHA-256 (RFC 5929 4.1).
_SIGNATURE_HASHES: Final = (
    (bytes.fromhex("06092a864886f70d01010c"), "sha384"),  # sha384WithRSAEncryption
    (bytes.fromhex("06092a864886f70d01010d"), "sha512"),  # sha512WithRSAEncryption
    (bytes.fromhex("06092a864886f70d01010e"), "sha224"),  # sha224WithRSAEncryption
    (bytes.fromhex("06082a8648ce3d040301"), "sha224"),  # ecdsa-with-SHA224
    (bytes.fromhex("06082a8648ce3d040303"), "sha384"),  # ecdsa-with-SHA384
    (bytes.fromhex("06082a8648ce3d040304"), "sha512"),  # ecdsa-with-SHA512
    (bytes.fromhex("0609608648016503040202"), "sha384"),  # id-sha384, of RSASSA-PSS
    (bytes.fromhex("0609608648016503040203"), "sha512"),  # id-sha512, of RSASSA-PSS
    (bytes.fromhex("0609608648016503040204"), "sha224"),  # id-sha224, of RSASSA-PSS
)


class CertificateError(Exception):
    """Certificates cannot be used; the text names the file, what is wrong with it, and what to do."""


class Certificates:
    """The server's TLS contexts of one listener.

    Not thread-safe: `context` and `refresh` belong to one thread, in a worker that of the loop.

    Args:
        certfiles: PEM files, each a certificate and the chain behind it. The first is served to clients that name no
            server, or one that no certificate is for. A name that several are for gets the first of these; one that
            is spelt out goes before a wildcard.
        keyfiles: their keys, in the same order; empty if each key is in its certificate's file.
        min_version: "1.2" or "1.3".
        client_ca: a PEM file with the authorities that may sign clients' certificates.
        verify_client: "optional" asks for a client's certificate, and refuses one that does not verify; "required"
            refuses a client without one too; "off" does not ask, and needs no client_ca.

    Attributes:
        context: for a new connection; it picks the certificate by the name that the client asks for (RFC 6066 3).

    Raises:
        CertificateError: the files cannot be used, or several are given and `cryptography` is not installed.
    """

    context: ssl.SSLContext

    def __init__(
        self,
        certfiles: Sequence[str],
        keyfiles: Sequence[str],
        min_version: str = "1.2",
        client_ca: str | None = None,
        verify_client: Literal["off", "optional", "required"] = "off",
    ) -> None:
        self._pairs = _pairs(certfiles, keyfiles)
        self._policy = _policy(min_version, client_ca, verify_client)
        self._paths = (*certfiles, *keyfiles, *([client_ca] if client_ca else []))
        self._end_points: WeakKeyDictionary[ssl.SSLContext, bytes] = WeakKeyDictionary()
        self._asked: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()
        # Looked at before they are read: what changes meanwhile is found by the next refresh.
        self._seen = _look(self._paths)
        self.context = self._load()

    def refresh(self) -> bool:
        """Load the files anew if they have changed; connections that are open keep what they have.

        A change that cannot be used is logged once, and the next change is waited for: a certificate that is
        replaced before its key is both. Blocks for some `stat`, and for a few milliseconds after a change.

        Returns:
            Whether `context` is another now.
        """
        seen = _look(self._paths)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.context = self._load()
        except CertificateError as error:
            _log.error("%s; the certificates loaded before stay in use", error)
            return False
        return True

    def end_point(self, tls: ssl.SSLObject) -> bytes:
        """The channel binding tls-server-end-point (RFC 5929 4) of a connection made with one of these contexts."""
        return self._end_points[tls.context]

    def server_name(self, tls: ssl.SSLObject) -> str | None:
        """The name that a connection's client asked for (SNI); None if it asked for none, or for what is no name."""
        return self._asked.get(tls)

    def _load(self) -> ssl.SSLContext:
        """Contexts for all certificates, of which the first one's is returned and knows the others."""
        served = [(self._policy.new_context(pair), _leaf(pair.certfile)) for pair in self._pairs]
        default = served[0][0]
        contexts = _contexts_by_name(self._pairs, served) if len(served) > 1 else {}
        default.sni_callback = _chooser(default, contexts, self._asked)
        self._end_points.update({context: _end_point(leaf) for context, leaf in served})
        return default


class _Pair(NamedTuple):
    certfile: str
    keyfile: str


class _Policy(NamedTuple):
    """What all contexts of a listener have in common."""

    minimum: ssl.TLSVersion
    client_ca: str | None
    verify: ssl.VerifyMode

    def new_context(self, pair: _Pair) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.minimum
        # Renegotiation lets a client spend our time at no cost of its own; compression reveals secrets (CRIME).
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.num_tickets = _TICKETS
        context.verify_mode = self.verify
        if self.verify is not ssl.CERT_NONE:
            _load_authorities(context, self.client_ca)
        _load_pair(context, pair)
        return context


def _policy(min_version: str, client_ca: str | None, verify_client: str) -> _Policy:
    if min_version not in _VERSIONS:
        raise CertificateError(f"there is no TLS {min_version} here: the least version is 1.2 or 1.3")
    if verify_client != "off" and client_ca is None:
        raise CertificateError("clients' certificates cannot be verified: name a file with their authorities")
    return _Policy(_VERSIONS[min_version], client_ca, _VERIFY[verify_client])


def _pairs(certfiles: Sequence[str], keyfiles: Sequence[str]) -> list[_Pair]:
    if not certfiles:
        raise CertificateError("no certificate: name a PEM file with one")
    if keyfiles and len(keyfiles) != len(certfiles):
        raise CertificateError(
            f"{len(certfiles)} certificates and {len(keyfiles)} keys: name one key for each certificate, in the same"
            " order, or none if each key is in its certificate's file"
        )
    return [_Pair(*each) for each in zip(certfiles, keyfiles or certfiles, strict=True)]


# -- files ------------------------------------------------------------------------------------------------------------


def _look(paths: Sequence[str]) -> list[object]:
    return [_stamp(path) for path in paths]


def _stamp(path: str) -> object:
    """What changes when a file is written, replaced, made readable, or its symbolic link points elsewhere."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {_explain(error)}") from error


def _explain(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; correct the path"
    if isinstance(error, PermissionError):
        return "permission denied; let the user that the server runs as read it"
    return error.strerror or str(error)


def _leaf(certfile: str) -> bytes:
    """The server's own certificate, in DER: the first in its file."""
    found = _CERTIFICATE.search(_read(certfile))
    if found is None:
        raise CertificateError(f"no certificate in {certfile}: put it there in PEM form, with its chain behind it")
    try:
        return ssl.PEM_cert_to_DER_cert(found[0].decode("ascii", "replace"))
    except ValueError as error:
        raise CertificateError(f"the first certificate in {certfile} is damaged: {error}") from error


class _EncryptedKeyError(Exception):
    pass


def _refuse_password() -> Never:
    # Without this, OpenSSL would ask on the terminal.
    raise _EncryptedKeyError


def _load_pair(context: ssl.SSLContext, pair: _Pair) -> None:
    _leaf(pair.certfile)  # OpenSSL does not say which of the two files is wrong
    if not _KEY.search(_read(pair.keyfile)):
        raise CertificateError(f"no private key in {pair.keyfile}: put it there in PEM form, or name the file it is in")
    try:
        context.load_cert_chain(pair.certfile, pair.keyfile, _refuse_password)
    except _EncryptedKeyError:
        raise CertificateError(f"the key in {pair.keyfile} is encrypted: store it without a password") from None
    except OSError as error:  # an ssl.SSLError is one
        raise CertificateError(_explain_pair(pair, error)) from error


def _explain_pair(pair: _Pair, error: OSError) -> str:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return f"the key in {pair.keyfile} is not that of the certificate in {pair.certfile}: name files that belong"
    return f"cannot use {pair.certfile} with the key in {pair.keyfile}: {error}; check both with `openssl x509`, `pkey`"


def _load_authorities(context: ssl.SSLContext, path: str | None) -> None:
    assert path is not None  # see _policy
    _read(path)
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise CertificateError(f"no authorities in {path}: put certificates there in PEM form ({error})") from error


# -- names ------------------------------------------------------------------------------------------------------------

_Served = list[tuple[ssl.SSLContext, bytes]]
_Choose = Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]


def _contexts_by_name(pairs: Sequence[_Pair], served: _Served) -> dict[str, ssl.SSLContext]:
    contexts: dict[str, ssl.SSLContext] = {}
    for pair, (context, leaf) in zip(pairs, served, strict=True):
        names = _dns_names(pair.certfile, leaf)
        if not names and context is not served[0][0]:
            raise CertificateError(
                f"{pair.certfile} has no DNS name, so nobody would get it: remove it or name it first"
            )
        for name in names:
            contexts.setdefault(name.lower(), context)
    return contexts


def _chooser(
    default: ssl.SSLContext, contexts: dict[str, ssl.SSLContext], asked: WeakKeyDictionary[ssl.SSLObject, str]
) -> _Choose:
    """The callback of the default context, which must not refer to it: that would be a cycle."""
    others = {name: None if context is default else context for name, context in contexts.items()}

    def choose(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name is None or not _NAME.fullmatch(name):  # nobody has to look at controls in logs and headers
            return
        asked[tls] = name
        name = name.lower()
        # A wildcard stands for one label, the first (RFC 9525 6.3).
        wanted = others[name] if name in others else others.get("*." + name.partition(".")[2])
        if wanted is not None:
            tls.context = wanted

    return choose


def _dns_names(certfile: str, leaf: bytes) -> list[str]:
    try:
        from cryptography import x509
    except ImportError:
        raise CertificateError(
            f"to choose between several certificates, the names in {certfile} must be read:"
            " pip install 'fastsmtp[tls]', or name one certificate only"
        ) from None
    try:
        extensions = x509.load_der_x509_certificate(leaf).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except ValueError as error:
        raise CertificateError(f"cannot read the names in {certfile}: {error}; have it issued anew") from error
    return names.get_values_for_type(x509.DNSName)


# -- channel binding --------------------------------------------------------------------------------------------------


def _end_point(leaf: bytes) -> bytes:
    """The hash of a certificate by the hash function of its signature (RFC 5929 4.1).

    SHA-256 stands in for MD5 and SHA-1, and for signatures without a hash function of their own (Ed25519), for which
    the RFC leaves the binding undefined.
    """
    algorithm = _signature_algorithm(leaf)
    name = next((name for identifier, name in _SIGNATURE_HASHES if identifier in algorithm), "sha256")
    return hashlib.new(name, leaf).digest()


def _signature_algorithm(leaf: bytes) -> bytes:
    """The signatureAlgorithm in Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, ... } (RFC 5280 4.1).

    Read by hand, because the binding must be right without `cryptography` too: certificates signed with SHA-384 are
    common. OpenSSL has accepted the octets before.
    """
    inside, _ = _extent(leaf, 0)
    _, behind = _extent(leaf, inside)
    start, end = _extent(leaf, behind)
    return leaf[start:end]


def _extent(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at an offset starts and ends."""
    length, start = der[at + 1], at + 2
    if length & 0x80:  # the long form: how many octets the length has
        octets = length & 0x7F
        length, start = int.from_bytes(der[start : start + octets]), start + octets
    return start, start + length
