"""Certificates of a listener: what is refused and why, who gets which, what a client must show, and replacement."""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from fastsmtp.server.certificates import CertificateError, Certificates

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Hash = hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512
PEM: Final = serialization.Encoding.PEM
PKCS8: Final = serialization.PrivateFormat.PKCS8
CLEAR: Final = serialization.NoEncryption()
NOW: Final = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Issued(NamedTuple):
    certfile: str
    keyfile: str
    leaf: bytes


def issue(directory: Path, authority: trustme.CA, *names: str, file: str = "") -> Issued:
    """A certificate and its key in files, replacing what was there as certbot does: by another file."""
    leaf = authority.issue_cert(*names)
    stem = file or names[0].replace("*", "any")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    certfile = replace(directory / f"{stem}.pem", chain)
    keyfile = replace(directory / f"{stem}.key", leaf.private_key_pem.bytes())
    return Issued(certfile, keyfile, ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode()))


def replace(path: Path, content: bytes) -> str:
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    os.replace(new, path)
    return str(path)


def self_signed(key: Key, algorithm: Hash | None, *, pss: bool = False) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "no dns name")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + datetime.timedelta(days=1))
    scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH) if pss and algorithm else None
    return builder.sign(key, algorithm, rsa_padding=scheme)


def in_one_file(path: Path, key: Key, certificate: x509.Certificate) -> str:
    return replace(path, key.private_bytes(PEM, PKCS8, CLEAR) + certificate.public_bytes(PEM))


def client(authority: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if authority is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        authority.configure_trust(context)
    return context


class Shaken(NamedTuple):
    server: ssl.SSLObject
    client: ssl.SSLObject

    @property
    def served(self) -> bytes | None:
        return self.client.getpeercert(binary_form=True)


def shake(
    certificates: Certificates,
    name: str | None = None,
    context: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
) -> Shaken:
    """A handshake in memory; raises what the server raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = (context or client()).wrap_bio(to_client, to_server, server_hostname=name, session=session)
    here = certificates.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        _advance(there)
        _advance(here)
    with pytest.raises(ssl.SSLWantReadError):
        there.read(1)  # takes the session ticket
    return Shaken(here, there)


def _advance(tls: ssl.SSLObject) -> None:
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    except ssl.SSLError:
        if tls.server_side:
            raise


# -- files that can and cannot be used --------------------------------------------------------------------------------


def test_the_key_may_be_in_a_file_of_its_own(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    assert shake(Certificates([issued.certfile], [issued.keyfile])).served == issued.leaf


def test_the_key_may_be_in_the_certificates_file(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = self_signed(key, hashes.SHA256())
    served = shake(Certificates([in_one_file(tmp_path / "both.pem", key, certificate)], [])).served
    assert served == certificate.public_bytes(serialization.Encoding.DER)


def test_the_chain_is_sent_along(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority.create_child_ca(), "mx.example")
    context = client(authority)
    context.check_hostname = True
    assert shake(Certificates([issued.certfile], [issued.keyfile]), "mx.example", context).served == issued.leaf


def refusal(certfiles: list[str], keyfiles: list[str], client_ca: str | None = None) -> str:
    with pytest.raises(CertificateError) as caught:
        Certificates(certfiles, keyfiles, client_ca=client_ca, verify_client="optional" if client_ca else "off")
    return str(caught.value)


def test_no_certificate_at_all() -> None:
    assert refusal([], []) == "no certificate: name a PEM file with one"


def test_another_number_of_keys(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    assert refusal([issued.certfile] * 2, [issued.keyfile]).startswith("2 certificates and 1 keys: name one key for")


def test_files_that_are_not_there(tmp_path: Path, authority: trustme.CA) -> None:
    issued, missing = issue(tmp_path, authority, "mx.example"), str(tmp_path / "missing.pem")
    expected = f"cannot read {missing}: there is no such file; correct the path"
    assert refusal([missing], [issued.keyfile]) == expected
    assert refusal([issued.certfile], [missing]) == expected
    assert refusal([issued.certfile], [issued.keyfile], client_ca=missing) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_that_we_may_not_read(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    os.chmod(issued.keyfile, 0)
    assert refusal([issued.certfile], [issued.keyfile]).startswith(f"cannot read {issued.keyfile}: permission denied")


def test_a_directory_in_place_of_a_file(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    assert refusal([issued.certfile], [str(tmp_path)]) == f"cannot read {tmp_path}: Is a directory"


def test_files_without_what_should_be_in_them(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    assert refusal([issued.keyfile], [issued.keyfile]).startswith(f"no certificate in {issued.keyfile}: ")
    assert refusal([issued.certfile], []).startswith(f"no private key in {issued.certfile}: ")
    assert refusal([issued.certfile], [issued.certfile]).startswith(f"no private key in {issued.certfile}: ")


def test_a_certificate_that_is_damaged(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    lines = Path(issued.certfile).read_bytes().splitlines()
    damaged = replace(tmp_path / "damaged.pem", b"\n".join([*lines[:2], *lines[3:]]))
    assert refusal([damaged], [issued.keyfile]).startswith(f"cannot use {damaged} with the key in {issued.keyfile}: ")
    shorter = replace(tmp_path / "shorter.pem", b"\n".join([lines[0], b"A", lines[-1]]))
    assert refusal([shorter], [issued.keyfile]).startswith(f"the first certificate in {shorter} is damaged: ")


def test_a_key_of_another_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    one, other = issue(tmp_path, authority, "one.example"), issue(tmp_path, authority, "other.example")
    expected = f"the key in {other.keyfile} is not that of the certificate in {one.certfile}: "
    assert refusal([one.certfile], [other.keyfile]).startswith(expected)


def test_an_encrypted_key_is_refused_and_no_password_asked_for(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    content = key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret"))
    path = replace(tmp_path / "both.pem", content + self_signed(key, hashes.SHA256()).public_bytes(PEM))
    assert refusal([path], []) == f"the key in {path} is encrypted: store it without a password"


def test_a_file_of_authorities_without_any(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    expected = f"no authorities in {issued.keyfile}: "
    assert refusal([issued.certfile], [issued.keyfile], client_ca=issued.keyfile).startswith(expected)


# -- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minimum", "refused"), [("1.2", False), ("1.3", True)])
def test_the_least_version(tmp_path: Path, authority: trustme.CA, minimum: str, refused: bool) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    certificates, old = Certificates([issued.certfile], [issued.keyfile], minimum), client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    if refused:
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            shake(certificates, context=old)
    else:
        assert shake(certificates, context=old).server.version() == "TLSv1.2"
    assert shake(certificates).server.version() == "TLSv1.3"


@pytest.mark.parametrize("version", ["1.1", "1.0", "", "TLSv1.2"])
def test_no_version_below_1_2_can_be_had(tmp_path: Path, authority: trustme.CA, version: str) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    with pytest.raises(CertificateError, match=r"the least version is 1\.2 or 1\.3"):
        Certificates([issued.certfile], [issued.keyfile], version)


def test_renegotiation_and_compression_are_off(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    options = Certificates([issued.certfile], [issued.keyfile]).context.options
    assert options & ssl.OP_NO_RENEGOTIATION
    assert options & ssl.OP_NO_COMPRESSION


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_with_its_own_listener_only(
    tmp_path: Path, authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    """standards.md N: session tickets are not shared between listeners with different policies."""
    issued, context = issue(tmp_path, authority, "mx.example"), client()
    context.maximum_version = version
    one, other = (Certificates([issued.certfile], [issued.keyfile]) for _ in range(2))
    session = shake(one, context=context).client.session
    assert session is not None
    assert shake(one, context=context, session=session).client.session_reused is True
    assert shake(other, context=context, session=session).client.session_reused is False


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, 0),
        ("mx.example", 0),
        ("unknown.example", 0),
        ("192.0.2.1", 0),
        ("smtp.example", 1),
        ("SMTP.Example", 1),
        ("submission.example", 1),
        ("a.wild.example", 2),
        ("A.WILD.EXAMPLE", 2),
        ("exact.wild.example", 3),  # spelt out goes before a wildcard, in whatever order they are
        ("default.wild.example", 0),
        ("a.b.wild.example", 0),  # a wildcard is one label
        ("wild.example", 0),
        ("example", 0),
        ("xn--bcher-kva.example", 1),
    ],
)
def test_the_client_gets_the_certificate_for_the_name_it_asks_for(
    tmp_path: Path, authority: trustme.CA, name: str | None, expected: int
) -> None:
    issued = [
        issue(tmp_path, authority, "mx.example", "default.wild.example"),
        issue(tmp_path, authority, "smtp.example", "Submission.Example", "xn--bcher-kva.example"),
        issue(tmp_path, authority, "*.wild.example"),
        issue(tmp_path, authority, "exact.wild.example", "smtp.example"),
    ]
    certificates = Certificates([each.certfile for each in issued], [each.keyfile for each in issued])
    shaken = shake(certificates, name)
    assert shaken.served == issued[expected].leaf
    assert certificates.server_name(shaken.server) == (None if name == "192.0.2.1" else name)  # RFC 6066 3
    assert certificates.end_point(shaken.server) == hashlib.sha256(issued[expected].leaf).digest()


@pytest.mark.parametrize("name", [None, "mx.example", "other_name.example", "UPPER.example"])
def test_the_name_that_was_asked_for_is_known(tmp_path: Path, authority: trustme.CA, name: str | None) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    certificates = Certificates([issued.certfile], [issued.keyfile])
    assert certificates.server_name(shake(certificates, name).server) == name


def test_what_is_no_name_was_not_asked_for(tmp_path: Path, authority: trustme.CA) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    certificates = Certificates([issued.certfile], [issued.keyfile])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = client().wrap_bio(to_client, to_server, server_hostname="mx.example")
    here = certificates.context.wrap_bio(to_server, to_client, server_side=True)
    _advance(there)
    to_server.write(to_server.read().replace(b"mx.example", b"mx\r\nx: abc"))
    _advance(here)
    assert to_client.pending  # it goes on
    assert certificates.server_name(here) is None


def test_a_client_that_asks_for_another_name_must_show_its_certificate_all_the_same(
    tmp_path: Path, authority: trustme.CA
) -> None:
    issued = [issue(tmp_path, authority, name) for name in ("one.example", "other.example")]
    authority_file = replace(tmp_path / "ca.pem", authority.cert_pem.bytes())
    files = [each.certfile for each in issued], [each.keyfile for each in issued]
    certificates = Certificates(*files, client_ca=authority_file, verify_client="required")
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake(certificates, "other.example")


def test_only_the_first_certificate_may_be_without_names(tmp_path: Path, authority: trustme.CA) -> None:
    key, issued = ec.generate_private_key(ec.SECP256R1()), issue(tmp_path, authority, "mx.example")
    nameless = in_one_file(tmp_path / "nameless.pem", key, self_signed(key, hashes.SHA256()))
    certificates = Certificates([nameless, issued.certfile], [nameless, issued.keyfile])
    assert shake(certificates, "mx.example").served == issued.leaf
    assert refusal([issued.certfile, nameless], [issued.keyfile, nameless]).startswith(f"{nameless} has no DNS name, ")


def test_several_certificates_need_cryptography(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert "pip install 'fastsmtp[tls]'" in refusal([issued.certfile] * 2, [issued.keyfile] * 2)
    certificates = Certificates([issued.certfile], [issued.keyfile])
    assert certificates.end_point(shake(certificates).server) == hashlib.sha256(issued.leaf).digest()


# -- clients' certificates --------------------------------------------------------------------------------------------

Verify = Literal["off", "optional", "required"]


def show(context: ssl.SSLContext, authority: trustme.CA) -> ssl.SSLContext:
    authority.issue_cert("client.example").configure_cert(context)
    return context


def verifying(directory: Path, authority: trustme.CA, verify: Verify) -> Certificates:
    issued = issue(directory, authority, "mx.example")
    authority_file = replace(directory / "ca.pem", authority.cert_pem.bytes())
    return Certificates([issued.certfile], [issued.keyfile], client_ca=authority_file, verify_client=verify)


def test_no_certificate_is_asked_for_by_default(tmp_path: Path, authority: trustme.CA) -> None:
    assert shake(verifying(tmp_path, authority, "off"), context=show(client(), authority)).server.getpeercert() is None


@pytest.mark.parametrize("verify", ["optional", "required"])
def test_a_clients_certificate_is_verified(tmp_path: Path, authority: trustme.CA, verify: Verify) -> None:
    shown = shake(verifying(tmp_path, authority, verify), context=show(client(), authority)).server.getpeercert()
    assert shown is not None
    assert shown["subjectAltName"] == (("DNS", "client.example"),)


@pytest.mark.parametrize("verify", ["optional", "required"])
def test_a_clients_certificate_of_another_authority_is_refused(
    tmp_path: Path, authority: trustme.CA, verify: Verify
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(verifying(tmp_path, authority, verify), context=show(client(), trustme.CA()))


def test_a_client_without_a_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    assert shake(verifying(tmp_path, authority, "optional")).server.getpeercert() is None
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake(verifying(tmp_path, authority, "required"))


@pytest.mark.parametrize("verify", ["optional", "required"])
def test_verifying_needs_authorities(tmp_path: Path, authority: trustme.CA, verify: Verify) -> None:
    issued = issue(tmp_path, authority, "mx.example")
    with pytest.raises(CertificateError, match="name a file with their authorities"):
        Certificates([issued.certfile], [issued.keyfile], verify_client=verify)


# -- new files while the server runs ----------------------------------------------------------------------------------


def test_new_files_are_served_to_new_connections(tmp_path: Path, authority: trustme.CA) -> None:
    old = issue(tmp_path, authority, "mx.example")
    certificates = Certificates([old.certfile], [old.keyfile])
    context, before = certificates.context, shake(certificates)
    assert certificates.refresh() is False
    assert certificates.context is context
    new = issue(tmp_path, authority, "mx.example")
    assert certificates.refresh() is True
    after = shake(certificates)
    assert (before.served, after.served) == (old.leaf, new.leaf)
    assert certificates.end_point(before.server) == hashlib.sha256(old.leaf).digest()
    assert certificates.end_point(after.server) == hashlib.sha256(new.leaf).digest()
    assert certificates.refresh() is False


def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path, authority: trustme.CA) -> None:
    """As certbot does it: live/mx.example/fullchain.pem is a symbolic link."""
    old, new = (issue(tmp_path, authority, "mx.example", file=file) for file in ("old", "new"))
    links = tmp_path / "live.pem", tmp_path / "live.key"
    for link, target in zip(links, old[:2], strict=True):
        link.symlink_to(target)
    certificates = Certificates([str(links[0])], [str(links[1])])
    for link, target in zip(links, new[:2], strict=True):
        link.unlink()
        link.symlink_to(target)
    assert certificates.refresh() is True
    assert shake(certificates).served == new.leaf


def test_broken_files_are_reported_once_and_the_old_stay_in_use(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    old = issue(tmp_path, authority, "mx.example")
    certificates = Certificates([old.certfile], [old.keyfile])
    replace(Path(old.certfile), b"not yet written")
    assert [certificates.refresh() for _ in range(3)] == [False] * 3
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"no certificate in {old.certfile}: ")
    assert record.getMessage().endswith("; the certificates loaded before stay in use")
    assert shake(certificates).served == old.leaf


def test_a_certificate_that_comes_before_its_key(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = (issue(tmp_path, authority, "mx.example", file=file) for file in ("old", "new"))
    certificates = Certificates([old.certfile], [old.keyfile])
    os.replace(new.certfile, old.certfile)
    assert certificates.refresh() is False
    assert shake(certificates).served == old.leaf
    os.replace(new.keyfile, old.keyfile)
    assert certificates.refresh() is True
    assert shake(certificates).served == new.leaf
    assert len(caplog.records) == 1


def test_files_that_vanish_and_come_back(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    old = issue(tmp_path, authority, "mx.example")
    certificates = Certificates([old.certfile], [old.keyfile])
    os.unlink(old.keyfile)
    assert certificates.refresh() is False
    assert "there is no such file" in caplog.text
    assert shake(certificates).served == old.leaf
    new = issue(tmp_path, authority, "mx.example")
    assert certificates.refresh() is True
    assert shake(certificates).served == new.leaf


def test_new_authorities_hold_for_new_connections(tmp_path: Path, authority: trustme.CA) -> None:
    certificates, other = verifying(tmp_path, authority, "required"), trustme.CA()
    replace(tmp_path / "ca.pem", other.cert_pem.bytes())
    assert certificates.refresh() is True
    assert shake(certificates, context=show(client(), other)).server.getpeercert()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(certificates, context=show(client(), authority))


def test_new_names_hold_for_new_connections(tmp_path: Path, authority: trustme.CA) -> None:
    first, second = issue(tmp_path, authority, "mx.example"), issue(tmp_path, authority, "smtp.example")
    certificates = Certificates([first.certfile, second.certfile], [first.keyfile, second.keyfile])
    assert shake(certificates, "new.example").served == first.leaf
    new = issue(tmp_path, authority, "new.example", file="smtp.example")
    assert certificates.refresh() is True
    assert shake(certificates, "new.example").served == new.leaf


# -- channel binding --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("kind", ["rsa", "pss", "ecdsa"])
@pytest.mark.parametrize(
    "algorithm", [hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda hash: hash.name
)
def test_the_end_point_is_hashed_as_the_certificates_signature(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, kind: str, algorithm: Hash
) -> None:
    """RFC 5929 4.1."""
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else rsa_key
    certificate = self_signed(key, algorithm, pss=kind == "pss")
    certificates = Certificates([in_one_file(tmp_path / "both.pem", key, certificate)], [])
    leaf = certificate.public_bytes(serialization.Encoding.DER)
    assert certificates.end_point(shake(certificates).server) == hashlib.new(algorithm.name, leaf).digest()


@pytest.mark.parametrize("algorithm", ["md5", "sha1"])
def test_sha_256_stands_in_for_a_weak_hash_function(
    tmp_path: Path, require_program: Callable[[str], str], algorithm: str
) -> None:
    path = str(tmp_path / "both.pem")  # by OpenSSL, because `cryptography` signs with neither
    arguments = ("req", "-x509", f"-{algorithm}", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx.example")
    command = [require_program("openssl"), *arguments, "-keyout", path, "-out", path + ".crt"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    pem = Path(path + ".crt").read_text("ascii")
    signed_with = x509.load_pem_x509_certificate(pem.encode()).signature_hash_algorithm
    assert signed_with is not None
    assert signed_with.name == algorithm
    certificates = Certificates([path + ".crt"], [path])
    leaf = ssl.PEM_cert_to_DER_cert(pem)
    assert certificates.end_point(shake(certificates).server) == hashlib.sha256(leaf).digest()


def test_the_end_point_of_a_signature_without_a_hash_function(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    certificate = self_signed(key, None)
    certificates = Certificates([in_one_file(tmp_path / "both.pem", key, certificate)], [])
    leaf = certificate.public_bytes(serialization.Encoding.DER)
    assert certificates.end_point(shake(certificates).server) == hashlib.sha256(leaf).digest()
