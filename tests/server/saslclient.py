"""The client's side of SASL mechanisms, over an SMTP connection (RFC 4954 4)."""

from __future__ import annotations

import hashlib
import hmac
import ssl
from base64 import b64decode, b64encode

import scramp  # type: ignore[import-untyped]  # scramp has no annotations

from tests.server.client import Client


def encoded(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


def challenge(reply: str) -> bytes:
    """What stands behind a 334."""
    assert reply.startswith("334 "), reply
    return b64decode(reply.removeprefix("334 "), validate=True)


def plain(user: str, secret: str) -> str:
    """A login in one line."""
    return "AUTH PLAIN " + encoded(f"\0{user}\0{secret}")


def bearer(mechanism: str, user: str, token: str) -> str:
    """A login with a token, in one line."""
    if mechanism == "XOAUTH2":
        return "AUTH XOAUTH2 " + encoded(f"user={user}\1auth=Bearer {token}\1\1")
    return "AUTH OAUTHBEARER " + encoded(f"n,a={user},\1auth=Bearer {token}\1\1")


def log_in(client: Client, mechanism: str, user: str, secret: str) -> str:
    """A whole exchange; returns the reply that ends it."""
    if mechanism == "PLAIN":
        return client.ask(plain(user, secret), "")
    if mechanism == "LOGIN":
        client.ask("AUTH LOGIN", "334 VXNlcm5hbWU6")
        client.ask(encoded(user), "334 UGFzc3dvcmQ6")
        return client.ask(encoded(secret), "")
    if mechanism == "CRAM-MD5":
        told = challenge(client.ask("AUTH CRAM-MD5", "334"))
        return client.ask(encoded(f"{user} {hmac.new(secret.encode(), told, hashlib.md5).hexdigest()}"), "")
    if mechanism not in ("XOAUTH2", "OAUTHBEARER"):
        return scram(client, mechanism, user, secret)
    reply = client.ask(bearer(mechanism, user, secret), "")
    if not reply.startswith("334"):
        return reply
    assert challenge(reply).startswith(b'{"status":')  # why it is refused
    return client.ask("AQ==", "")


def scram(client: Client, mechanism: str, user: str, secret: str, binding: bytes | None = None) -> str:
    """SCRAM-SHA-256, or -PLUS with the server's certificate, or with another binding that is given."""
    bound = None
    if mechanism.endswith("-PLUS"):
        bound = ("tls-server-end-point", binding or end_point(client))
    there = scramp.ScramClient([mechanism], user, secret, channel_binding=bound)
    reply = client.ask(f"AUTH {mechanism} {encoded(there.get_client_first())}", "")
    if not reply.startswith("334"):
        return reply
    there.set_server_first(challenge(reply).decode())
    reply = client.ask(encoded(there.get_client_final()), "")
    if not reply.startswith("334"):
        return reply
    there.set_server_final(challenge(reply).decode())
    return client.ask("", "")


def end_point(client: Client) -> bytes:
    """The channel binding of a connection whose certificate is signed with SHA-256 (RFC 5929 4.1)."""
    assert isinstance(client.socket, ssl.SSLSocket)
    certificate = client.socket.getpeercert(binary_form=True)
    assert certificate
    return hashlib.sha256(certificate).digest()
