"""Which certificate a client is served, which one it must show, and what a handler sees (standards.md N)."""

from __future__ import annotations

import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.server.client import Client
from tests.server.running import Server, failing, running
from tests.server.secured import TLS_1_2, TLS_1_3, connect_inside, issue, secure, shake_hands, trusting
from tests.server.waiting import until

APP = ("tests.server.logins:AsyncLogins", "--store=discard:")


class Files(NamedTuple):
    authority: trustme.CA
    trusted: str  # the authority's own certificate
    server: str
    client: str
    stranger: str  # a client's certificate of another authority


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    return Files(
        authority,
        str(directory / "authority.pem"),
        issue(directory, authority, "mx.example"),
        issue(directory, authority, "client.example"),
        issue(directory, trustme.CA(), "stranger.example"),
    )


def told(client: Client) -> list[str]:
    """What the handler knows: user, version, cipher, server name, the client's name."""
    return client.ask("NOOP", "250 2.0.0 ").split()[2:]


def is_refused(client: Client, context: ssl.SSLContext) -> bool:
    """Whether the handshake fails; in TLS 1.3 the client knows only when it reads behind it."""
    try:
        shake_hands(client, context)
        client.line()
    except (ssl.SSLError, ConnectionError):
        return True
    return False


# -- what a handler sees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("name", [None, "mx.example", "MX.example", "other.example"])
def test_version_cipher_and_name(tmp_path: Path, files: Files, version: ssl.TLSVersion, name: str | None) -> None:
    with running(tmp_path, *APP, f"--tls-certfile={files.server}") as server:
        context = trusting(version=version)
        with server.greeted() as client:
            assert told(client) == ["None"]
            client.ask("STARTTLS", "220")
            tls = shake_hands(client, context, name)
            cipher = tls.cipher()
            assert cipher
            assert told(client) == ["None", tls.version(), cipher[0], str(name), "None"]


def test_the_handler_sees_a_client_certificate(tmp_path: Path, files: Files) -> None:
    flags = (f"--tls-certfile={files.server}", f"--tls-client-ca={files.trusted}", "--tls-verify-client=optional")
    with running(tmp_path, *APP, *flags, listen=["127.0.0.1:0 implicit_tls"]) as server:
        known = trusting(files.authority, certificate=files.client)
        first = connect_inside(server, known, "mx.example")
        first.greet()
        assert told(first)[-1] == "client.example"
        assert isinstance(first.socket, ssl.SSLSocket)
        ticket = first.socket.session
        first.quit()
        again = server.connect()
        again.socket = tls = known.wrap_socket(again.socket, server_hostname="mx.example", session=ticket)
        again.expect("220")
        assert tls.session_reused
        assert told(again)[-1] == "client.example"
        unknown = connect_inside(server, trusting(files.authority), "mx.example")
        unknown.expect("220")
        assert told(unknown)[-1] == "None"


@pytest.mark.parametrize("verify", ["optional", "required"])
@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
def test_a_certificate_that_nobody_vouches_for(
    tmp_path: Path, files: Files, verify: str, version: ssl.TLSVersion
) -> None:
    flags = (f"--tls-certfile={files.server}", f"--tls-client-ca={files.trusted}", f"--tls-verify-client={verify}")
    with running(tmp_path, *APP, *flags) as server:
        client = server.greeted()
        client.ask("STARTTLS", "220")
        assert is_refused(client, trusting(certificate=files.stranger, version=version))
        (line,) = server.wait_for_access(1, "turned-away")
        assert "certificate verify failed" in line


def test_a_certificate_is_required(tmp_path: Path, files: Files) -> None:
    flags = (f"--tls-certfile={files.server}", f"--tls-client-ca={files.trusted}", "--tls-verify-client=required")
    with running(tmp_path, *APP, *flags) as server:
        client = server.greeted()
        client.deliver()  # nobody has to show one in clear text
        client.ask("STARTTLS", "220")
        assert is_refused(client, trusting())
        (line,) = server.wait_for_access(1, "turned-away")
        assert "peer did not return a certificate" in line
        with secure(server, trusting(certificate=files.client)) as known:
            assert told(known)[-1] == "client.example"


# -- which one is served ----------------------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path: Path, files: Files) -> Iterator[Server]:
    names = ("first.example", "second.example", "*.third.example")
    paths = [issue(tmp_path, files.authority, name, file=str(number)) for number, name in enumerate(names)]
    flags = (f"--tls-certfile={path}" for path in paths)
    with running(tmp_path, *APP, *flags, listen=["127.0.0.1:0", "127.0.0.1:0 implicit_tls"], workers=2) as server:
        yield server


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("first.example", "first.example"),
        ("second.example", "second.example"),
        ("Second.Example", "second.example"),
        ("mx.third.example", "*.third.example"),
        ("nobody.example", "first.example"),
        (None, "first.example"),
    ],
)
def test_the_client_chooses_by_name(
    several: Server, files: Files, require_program: Callable[[str], str], asked: str | None, served: str
) -> None:
    openssl = require_program("openssl")
    name = ["-servername", asked] if asked else ["-noservername"]
    for at, how in enumerate((["-starttls", "smtp"], [])):
        address = several.addresses[at]
        command = [openssl, "s_client", "-connect", f"127.0.0.1:{address[1]}", "-CAfile", files.trusted, *how, *name]
        result = subprocess.run(command, input=b"QUIT\r\n", capture_output=True, timeout=20)
        command = [openssl, "x509", "-noout", "-ext", "subjectAltName"]
        shown = subprocess.run(command, input=result.stdout, capture_output=True, timeout=20, check=True).stdout
        assert f"DNS:{served}" in shown.decode().split()
        assert b"Verify return code: 0 (ok)" in result.stdout


def test_the_handler_sees_the_name_of_the_chosen_one(several: Server, files: Files) -> None:
    for name in ("second.example", "mx.third.example"):
        with secure(several, trusting(files.authority), name) as client:
            assert told(client)[3] == name


# -- while the server runs --------------------------------------------------------------------------------------------


def served_by(server: Server) -> bytes:
    """The certificate that is served now."""
    with secure(server) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        served = client.socket.getpeercert(binary_form=True)
        assert served
        client.quit()
    return served


def test_renewed_files_are_served_by_all_workers(tmp_path: Path, files: Files) -> None:
    """Within some seconds; who is connected stays so. A file that is broken meanwhile changes nothing."""
    path = issue(tmp_path, files.authority, "mx.example")
    with running(tmp_path, *APP, f"--tls-certfile={path}", workers=2) as server:
        before = served_by(server)
        open_before = secure(server)
        Path(path).write_bytes(b"half a file")
        server.wait_for_log("the certificates loaded before stay in use", seconds=25, count=2)
        assert {served_by(server) for _ in range(8)} == {before}
        issue(tmp_path, files.authority, "mx.example")
        seen: list[bytes] = []

        def all_new() -> bool:
            seen.append(served_by(server))
            return len(seen) >= 16 and before not in seen[-16:]

        until(all_new, "the new certificate is served", 25)
        assert len(set(seen)) == 2
        open_before.deliver()


def test_a_reload_serves_renewed_files_at_once(tmp_path: Path, files: Files) -> None:
    path = issue(tmp_path, files.authority, "mx.example")
    with running(tmp_path, *APP, f"--tls-certfile={path}", "--drain-idle=0") as server:
        before, worker = served_by(server), server.worker
        issue(tmp_path, files.authority, "mx.example")
        server.send_signal(signal.SIGHUP)
        until(lambda: server.workers and worker not in server.workers, "the successor is alone")
        assert served_by(server) != before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"x", "no certificate in"),
        (b"-----BEGIN CERTIFICATE-----\nx\n", "no certificate"),
    ],
)
def test_a_server_without_a_usable_certificate_does_not_start(tmp_path: Path, content: bytes | None, said: str) -> None:

    path = tmp_path / "broken.pem"
    if content is not None:
        path.write_bytes(content)
    code, log = failing(tmp_path, *APP, "--listen=127.0.0.1:0", f"--tls-certfile={path}")
    assert code != 0
    assert said in log
