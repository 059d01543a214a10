"""DKIM signatures, judged by dkimpy, which knows nothing of us: Debian's python3-dkim, run by Debian's Python."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from fastsmtp.delivery.dkim import Signer, signatures

NOW = 1_700_000_000.0
JUDGE = """
import base64, dkim, json, sys
records, messages = json.load(sys.stdin)
def txt(name, timeout=5):
    return records.get(name.decode().rstrip("."), "").encode()
def verify(judge, index):
    try:
        return judge.verify(idx=index, dnsfunc=txt)
    except dkim.ValidationError:
        return False
verdicts = []
for message in map(base64.b64decode, messages):
    judge = dkim.DKIM(message)
    count = message.lower().count(b"dkim-signature:")
    verdicts.append([verify(judge, index) for index in range(count)])
print(json.dumps(verdicts))
"""
MESSAGE = (
    b"Received: from a by b; x\r\nFrom: Ann <ann@example.org>\r\nTo:  bob@example.net ,\r\n\tcat@example.net\r\n"
    b"Subject: a  folded\r\n  subject \r\nDate: Mon, 1 Jan 2029 00:00:00 +0000\r\n\r\n"
    b"Hello,  you\t\r\n\r\n .dot \r\n\r\n\r\n"
)


class Keys:
    """Keys of a domain, in files and in what its DNS says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.records: dict[str, str] = {}

    def make(self, kind: str, domain: str = "example.org") -> Signer:
        key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
        if kind == "rsa":
            key = rsa.generate_private_key(65537, 2048)
            encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        else:
            key = ed25519.Ed25519PrivateKey.generate()
            encoding, form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        public = base64.b64encode(key.public_key().public_bytes(encoding, form)).decode()
        self.records[f"{kind}._domainkey.{domain}"] = f"v=DKIM1; k={kind}; p={public}"
        path = self.directory / f"{kind}.pem"
        pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        path.write_bytes(key.private_bytes(*pem))
        return Signer.load(f"{domain}:{kind}:{path}")

    def judge(self, *messages: bytes) -> list[list[object]]:
        """For each message what became of each of its signatures."""
        question = json.dumps([self.records, [base64.b64encode(message).decode() for message in messages]])
        done = subprocess.run(
            ["/usr/bin/python3", "-c", JUDGE], input=question, capture_output=True, text=True, timeout=60, check=True
        )
        verdicts: list[list[object]] = json.loads(done.stdout)
        return verdicts


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Keys:
    require_program("dkimverify")
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def both(keys: Keys) -> list[Signer]:
    return [keys.make("rsa"), keys.make("ed25519")]


def signed(signers: list[Signer], message: bytes, block: int = 7) -> bytes:
    blocks = [message[start : start + block] for start in range(0, len(message), block)]
    return signatures(signers, blocks, NOW) + message


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE,
        MESSAGE.replace(b"\r\n\r\n\r\n", b"\r\n"),
        b"From: ann@example.org\r\n\r\n",
        b"From: ann@example.org\r\n",
        b"From: ann@example.org\r\n\r\n\r\n\r\n",
        b"From: ann@example.org\r\nTo: a@b.example\r\nTo: c@d.example\r\n\r\n\t x\r\ny",
        b"FROM: ann@sub.example.org\r\nSubject:\r\n\r\nx\r\n",
        b"From: ann@example.org\r\nSubject: \xc3\xa4\r\n\r\n\xff\r\n",
    ],
)
def test_both_signatures_are_good(keys: Keys, both: list[Signer], message: bytes) -> None:
    assert keys.judge(signed(both, message)) == [[True, True]]


def test_what_was_changed_is_not_good(keys: Keys, both: list[Signer]) -> None:
    good = signed(both, MESSAGE)
    assert keys.judge(
        good.replace(b"Hello", b"Hallo"),
        good.replace(b"folded", b"fouled"),
        good.replace(b"From: Ann", b"From: Eve <eve@example.org>\r\nFrom: Ann"),  # sealed against a second one
        good.replace(b"\r\nSubject", b"\r\nReply-To: eve@example.net\r\nSubject"),
        good.replace(b"Received: from a", b"Received: from c"),  # a trace field may change
    ) == [[False, False]] * 4 + [[True, True]]


@given(
    body=st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b".", b"\xff"]), max_size=30), block=st.integers(1, 40)
)
def test_the_hash_does_not_depend_on_how_the_message_is_cut(body: list[bytes], block: int) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    signers = [Signer("example.org", "x", key)]
    message = b"From: a@example.org\r\n\r\n" + b"".join(body)
    assert signed(signers, message, block) == signed(signers, message, 10**6)


@pytest.mark.parametrize(
    "message",
    [
        b"From: a@example.org\r\n" + b"x" * 900_000 + b"\r\n\r\n",
        b"From: a@example.org\r\n" + b"x " * 450_000 + b"\r\n\r\n",
        b"From: a@example.org\r\n\r\n" + b"x" * 40_000_000,
    ],
    ids=["a line without a colon", "words without a colon", "a body of one line"],
)
def test_a_huge_line_takes_no_more_than_its_length(message: bytes) -> None:
    signer = Signer("example.org", "x", ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))
    blocks = [message[start : start + 16_384] for start in range(0, len(message), 16_384)]
    began = time.process_time()
    assert signatures([signer], blocks, NOW)
    assert time.process_time() - began < 5  # a second on a slow machine; where each octet counts twice, minutes


def test_only_the_start_of_a_line_begins_a_field() -> None:
    signer = Signer("example.org", "x", ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))
    lines = b"From: a@example.org\r\nSubject : one\r\n\tTo: two\r\n Cc: three\r\nno field, Date: four\r\n\r\n"
    signature = signatures([signer], [lines], NOW).replace(b"\r\n\t ", b"")
    assert b"h=from:from:reply-to:to:cc:subject:subject:date;" in signature


def test_random_bodies_are_good(keys: Keys, both: list[Signer]) -> None:
    pieces = [b" ", b"\t", b"\r\n", b"a", b".", b"\r\n\r\n", b" \r\n"]
    bodies = [b"".join(pieces[(number * 7919 // 7**place) % 7] for place in range(6)) for number in range(60)]
    messages = [signed([both[1]], b"From: a@example.org\r\n\r\n" + body + b"\r\n") for body in bodies]
    assert keys.judge(*messages) == [[True]] * 60


@pytest.mark.parametrize(
    "message",
    [
        b"From: ann@example.com\r\n\r\n",
        b"From: ann@notexample.org\r\n\r\n",
        b"From: ann@example.org, bob@example.org\r\n\r\n",
        b"From: ann@example.org\r\nFrom: bob@example.org\r\n\r\n",
        b"Subject: no author\r\n\r\n",
        b"\r\nFrom: ann@example.org\r\n",
        b"From: " + b"(" * 100_000 + b"\r\n\r\n",  # comments within comments
        b"",
    ],
)
def test_what_is_not_ours_is_not_signed(both: list[Signer], message: bytes) -> None:
    assert signed(both, message) == message


@pytest.mark.parametrize("text", ["", "a", "a:b", "a:b:", "example.org:x:/nonexistent", f"example.org:x:{__file__}"])
def test_a_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"DOMAIN:SELECTOR:FILE|cannot be read|no private key"):
        Signer.load(text)
