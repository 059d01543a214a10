"""SASL exchanges from the client's first octet to the outcome (RFC 4616, 2195, 5802, 7677, 7628)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scramp import ScramClient  # type: ignore[import-untyped]  # scramp has no annotations

from fastsmtp.protocol import sasl, scram
from fastsmtp.protocol.credentials import Credentials, ScramKey
from fastsmtp.protocol.replies import CANNOT_DECODE, UNKNOWN_MECHANISM, Reply, SMTPError
from fastsmtp.protocol.sasl import (
    MECHANISMS,
    Challenge,
    Exchange,
    Outcome,
    Step,
    begin,
    check_mechanisms,
    decode_base64,
)

BINDINGS: Final = {"tls-server-end-point": b"the hash of a certificate"}
KEY: Final = ScramKey.of("pencil", b"sixteen octets..")
BEARERS: Final = ("XOAUTH2", "OAUTHBEARER")
SCRAMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")
# How each mechanism begins where user "tim" says nothing unusual; the others wait for a challenge.
OPENINGS: Final = {
    "PLAIN": b"\0tim\0secret",
    "LOGIN": b"tim",
    "SCRAM-SHA-256": b"n,,n=tim,r=abc",
    "SCRAM-SHA-256-PLUS": b"p=tls-server-end-point,,n=tim,r=abc",
    "XOAUTH2": b"user=tim\1auth=Bearer vF9dft4qmT\1\1",
    "OAUTHBEARER": b"n,a=tim,\1host=h\1port=25\1auth=Bearer vF9dft4qmT\1\1",
}


def _begin(mechanism: str, bindings: Mapping[str, bytes] | None = None) -> Exchange:
    needed = BINDINGS if mechanism.endswith("-PLUS") else {}
    return begin(mechanism, "mx.example", needed if bindings is None else bindings)


def _first(mechanism: str, response: bytes | None, bindings: Mapping[str, bytes] | None = None) -> Step:
    return _begin(mechanism, bindings).respond(response)


def _refused(mechanism: str, *responses: bytes | None) -> None:
    """The last response is malformed, those before it are not."""
    exchange = _begin(mechanism)
    for response in responses[:-1]:
        exchange.respond(response)
    with pytest.raises(SMTPError) as caught:
        exchange.respond(responses[-1])
    assert caught.value.reply is CANNOT_DECODE


def _challenge(step: Step) -> bytes:
    assert isinstance(step, Challenge)
    return step.octets


def _credentials(step: Step) -> Credentials:
    assert isinstance(step, Credentials)
    return step


# -- base64 ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_base64_is_decoded(octets: bytes) -> None:
    assert decode_base64(base64.b64encode(octets)) == octets


@pytest.mark.parametrize(
    "octets",
    [
        b"=",
        b"====",
        b"A",
        b"AA",
        b"AAA",
        b"AAAAA",
        b"AA=",
        b"AA==AA==",
        b"AAA==",
        b"AAAA=",
        b"AA=A",
        b"AB==",  # unused bits that are not 0
        b"AAB=",
        b"AAAA ",
        b" AAAA",
        b"AA AA",
        b"AAAA\n",
        b"AA-_",
        b"AA*A",
        b"AAA\xff",
        b"*",
    ],
)
def test_base64_is_strict(octets: bytes) -> None:
    with pytest.raises(SMTPError) as caught:
        decode_base64(octets)
    assert caught.value.reply is CANNOT_DECODE


@given(st.binary(max_size=12))
def test_nothing_but_what_an_encoder_writes_is_base64(octets: bytes) -> None:
    try:
        decoded = decode_base64(octets)
    except SMTPError:
        return
    assert base64.b64encode(decoded) == octets


# -- every mechanism -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", *BEARERS, "PLAIN"])
def test_the_challenge_is_empty_where_the_client_begins(mechanism: str) -> None:
    exchange = _begin(mechanism)
    assert exchange.mechanism == mechanism
    assert exchange.respond(None) == Challenge(b"")
    assert _credentials(exchange.respond(OPENINGS[mechanism])).username == "tim"


@pytest.mark.parametrize("mechanism", ["NTLM", "", "plain", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS"])
def test_what_there_is_not_cannot_be_begun(mechanism: str) -> None:
    with pytest.raises(SMTPError) as caught:
        begin(mechanism, "mx.example", {})
    assert caught.value.reply is UNKNOWN_MECHANISM


@pytest.mark.parametrize("mechanism", OPENINGS)
@pytest.mark.parametrize("character", ["\0", "\n", "\x7f", "\x85", "\u2028", "\u200b", "\u202e", "\ufeff"])
def test_user_names_hold_nothing_invisible(mechanism: str, character: str) -> None:
    _refused(mechanism, OPENINGS[mechanism].replace(b"tim", f"t{character}im".encode()))


def test_the_name_of_cram_md5_holds_nothing_invisible() -> None:
    _refused("CRAM-MD5", None, "t\u200bim ".encode() + b"0" * 32)


@pytest.mark.parametrize("mechanism", OPENINGS)
def test_user_names_are_utf8(mechanism: str) -> None:
    _refused(mechanism, OPENINGS[mechanism].replace(b"tim", b"t\xffm"))
    opening = OPENINGS[mechanism].replace(b"tim", "Zoë Łuk".encode())
    step = _first(mechanism, opening)
    if mechanism != "LOGIN":  # which asks for the password first
        assert _credentials(step).username == "Zoë Łuk"


@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2", "OAUTHBEARER"])
def test_a_key_is_no_yes_where_no_proof_follows(mechanism: str) -> None:
    exchange = _begin(mechanism)
    exchange.respond(OPENINGS[mechanism])
    step = exchange.keyed(KEY)
    assert step == Outcome(False, "tim") or isinstance(step, Challenge)


@pytest.mark.parametrize("mechanism", OPENINGS)
def test_secrets_are_not_shown(mechanism: str) -> None:
    exchange = _begin(mechanism)
    step = exchange.respond(OPENINGS[mechanism])
    if mechanism == "LOGIN":
        step = exchange.respond(b"secret")
    shown = repr(step) + repr(exchange) + repr(Challenge(b"secret"))
    assert "tim" in shown
    assert "secret" not in shown
    assert "vF9dft4qmT" not in shown


@pytest.mark.parametrize("mechanism", OPENINGS)
def test_errors_repeat_nothing_of_the_client(mechanism: str) -> None:
    with pytest.raises(SMTPError) as caught:
        _first(mechanism, b"secret\xff")
    assert "secret" not in repr(caught.value)


def test_answers_out_of_turn_are_the_drivers_fault() -> None:
    exchange = _begin("PLAIN")
    with pytest.raises(AssertionError):
        exchange.decided(True)
    exchange.respond(None)
    with pytest.raises(AssertionError):
        exchange.decided(True)
    with pytest.raises(AssertionError):
        exchange.respond(None)
    exchange.respond(OPENINGS["PLAIN"])
    with pytest.raises(AssertionError):
        exchange.respond(b"\0tim\0other")
    exchange.decided(True)
    with pytest.raises(AssertionError):
        exchange.decided(True)


def test_nothing_follows_a_malformed_message() -> None:
    exchange = _begin("PLAIN")
    exchange.respond(None)
    with pytest.raises(SMTPError):
        exchange.respond(b"malformed")
    with pytest.raises(AssertionError):
        exchange.respond(OPENINGS["PLAIN"])


# -- PLAIN and LOGIN -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepted", [True, False])
def test_plain(accepted: bool) -> None:
    exchange = _begin("PLAIN")
    assert exchange.respond(b"\0tim\0secret") == Credentials("PLAIN", "tim", password="secret")
    assert exchange.decided(accepted) == Outcome(accepted, "tim")


@pytest.mark.parametrize(
    ("response", "authzid", "known_as"),
    [(b"\0tim\0secret", "", "tim"), (b"tim\0tim\0secret", "", "tim"), (b"boss\0tim\0secret", "boss", "boss")],
)
def test_plain_authorization_identity(response: bytes, authzid: str, known_as: str) -> None:
    exchange = _begin("PLAIN")
    credentials = _credentials(exchange.respond(response))
    assert (credentials.username, credentials.authzid) == ("tim", authzid)
    assert exchange.decided(True) == Outcome(True, known_as)
    exchange = _begin("PLAIN")
    exchange.respond(response)
    assert exchange.decided(False) == Outcome(False, "tim")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"\0",
        b"tim",
        b"tim\0secret",
        b"\0\0\0",
        b"\0tim\0secret\0",
        b"\0tim\0\0secret",
        b"\0tim\0\xff",
        b"\xff\0a\0b",
    ],
)
def test_plain_malformed(response: bytes) -> None:
    _refused("PLAIN", response)
    _refused("PLAIN", None, response)


@pytest.mark.parametrize("response", [b"\0\0secret", b"\0tim\0", b"\0\0", b"boss\0\0secret", b"boss\0tim\0"])
def test_plain_without_name_or_password_is_not_asked_about(response: bytes) -> None:
    step = _first("PLAIN", response)
    assert isinstance(step, Outcome)
    assert not step.accepted


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("accepted", [True, False])
def test_login(initial: bool, accepted: bool) -> None:
    exchange = _begin("LOGIN")
    if not initial:
        assert exchange.respond(None) == Challenge(b"Username:")
    assert exchange.respond(b"tim") == Challenge(b"Password:")
    assert exchange.respond(b"se cret") == Credentials("LOGIN", "tim", password="se cret")
    assert exchange.decided(accepted) == Outcome(accepted, "tim")


@pytest.mark.parametrize(("name", "password"), [(b"", b"secret"), (b"tim", b""), (b"", b"")])
def test_login_without_name_or_password_is_not_asked_about(name: bytes, password: bytes) -> None:
    exchange = _begin("LOGIN")
    assert exchange.respond(name) == Challenge(b"Password:")
    assert exchange.respond(password) == Outcome(False, name.decode())


@pytest.mark.parametrize("password", [b"\xff", b"secret\0"])
def test_login_malformed(password: bytes) -> None:
    _refused("LOGIN", b"tim", password)


# -- CRAM-MD5 --------------------------------------------------------------------------------------------------------


def test_cram_md5_example() -> None:
    """RFC 2195 2."""
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    terms = sasl._Terms("CRAM-MD5", "mx.example", {})
    exchange = Exchange("CRAM-MD5", partial(sasl._cram_md5, terms, challenge=challenge))
    assert _challenge(exchange.respond(None)) == challenge
    credentials = _credentials(exchange.respond(b"tim b913a602c7eda7a495b4e6e7334d3890"))
    assert credentials.username == "tim"
    assert credentials.verify("tanstaaftanstaaf")
    assert not credentials.verify("another")
    assert exchange.decided(True) == Outcome(True, "tim")


def test_cram_md5_challenges_differ() -> None:
    challenges = {_challenge(_first("CRAM-MD5", None)) for _ in range(20)}
    assert len(challenges) == 20
    for challenge in challenges:
        assert challenge.startswith(b"<")
        assert challenge.endswith(b"@mx.example>")


def test_cram_md5_digest_replayed() -> None:
    old = _challenge(_first("CRAM-MD5", None))
    digest = hmac.new(b"secret", old, hashlib.md5).hexdigest().encode()
    exchange = _begin("CRAM-MD5")
    exchange.respond(None)
    assert not _credentials(exchange.respond(b"tim " + digest)).verify("secret")
    assert exchange.decided(False) == Outcome(False, "tim")


def test_cram_md5_names_may_hold_spaces_and_digests_capitals() -> None:
    exchange = _begin("CRAM-MD5")
    exchange.respond(None)
    credentials = _credentials(exchange.respond(b"tim o'reilly B913A602C7EDA7A495B4E6E7334D3890"))
    assert (credentials.username, credentials.digest) == ("tim o'reilly", "b913a602c7eda7a495b4e6e7334d3890")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"tim",
        b"tim ",
        b"0" * 32,
        b"tim " + b"0" * 31,
        b"tim " + b"0" * 33,
        b"tim " + b"g" * 32,
        b"\xff " + b"0" * 32,
    ],
)
def test_cram_md5_malformed(response: bytes) -> None:
    _refused("CRAM-MD5", None, response)


def test_cram_md5_has_no_initial_response() -> None:
    _refused("CRAM-MD5", b"")
    _refused("CRAM-MD5", b"tim b913a602c7eda7a495b4e6e7334d3890")


def test_cram_md5_without_name_is_not_asked_about() -> None:
    exchange = _begin("CRAM-MD5")
    exchange.respond(None)
    assert exchange.respond(b" " + b"0" * 32) == Outcome(False, "")


# -- SCRAM -----------------------------------------------------------------------------------------------------------


def _client(
    mechanism: str, password: str = "pencil", binding: tuple[str, bytes] | None = None, user: str = "tim"
) -> Any:  # scramp has no annotations
    if mechanism.endswith("-PLUS") and binding is None:
        binding = ("tls-server-end-point", BINDINGS["tls-server-end-point"])
    return ScramClient([mechanism], user, password, channel_binding=binding)


def _until_proof(exchange: Exchange, client: Any, key: ScramKey | None = KEY) -> Step:
    """Both exchange messages up to the client's final one; without a key the handler says no."""
    credentials = _credentials(exchange.respond(client.get_client_first().encode()))
    assert credentials == Credentials(exchange.mechanism, str(client.username))
    step = exchange.keyed(key) if key else exchange.decided(False)
    client.set_server_first(_challenge(step).decode())
    return exchange.respond(client.get_client_final().encode())


def test_scram_example() -> None:
    """RFC 7677 3."""
    nonce = r"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    terms = sasl._Terms("SCRAM-SHA-256", "mx.example", {})
    exchange = Exchange("SCRAM-SHA-256", partial(sasl._scram, terms, nonce=nonce))
    credentials = exchange.respond(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert credentials == Credentials("SCRAM-SHA-256", "user")
    first = exchange.keyed(ScramKey.of("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")))
    assert _challenge(first) == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = exchange.respond(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert _challenge(final) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert exchange.respond(b"") == Outcome(True, "user")


@pytest.mark.parametrize("mechanism", SCRAMS)
@pytest.mark.parametrize("user", ["tim", "a=b,c", "Zoë"])
def test_scram_with_a_client(mechanism: str, user: str) -> None:
    client, exchange = _client(mechanism, user=user), _begin(mechanism)
    final = _until_proof(exchange, client)
    client.set_server_final(_challenge(final).decode())  # the client knows that the server has the key
    assert exchange.respond(b"") == Outcome(True, user)


def test_scram_needs_an_empty_line_at_its_end() -> None:
    exchange = _begin("SCRAM-SHA-256")
    _until_proof(exchange, _client("SCRAM-SHA-256"))
    with pytest.raises(SMTPError):
        exchange.respond(b"x")


@pytest.mark.parametrize("mechanism", SCRAMS)
def test_scram_wrong_password(mechanism: str) -> None:
    assert _until_proof(_begin(mechanism), _client(mechanism, "pen")) == Outcome(False, "tim")


def test_scram_wrong_channel_binding() -> None:
    client = _client("SCRAM-SHA-256-PLUS", binding=("tls-server-end-point", b"another certificate"))
    assert _until_proof(_begin("SCRAM-SHA-256-PLUS"), client) == Outcome(False, "tim")


@pytest.mark.parametrize("mechanism", SCRAMS)
@pytest.mark.parametrize(
    ("part", "other"), [(b",r=", b",r=x"), (b"c=[^,]+", b"c=eSws"), (b",p=", b",p=AAAA"), (b",p=", b",x=y,p=")]
)
def test_scram_final_message_changed(mechanism: str, part: bytes, other: bytes) -> None:
    """Another nonce, another channel binding flag, another proof, something between that was not proved."""
    client, exchange = _client(mechanism), _begin(mechanism)
    exchange.respond(client.get_client_first().encode())
    client.set_server_first(_challenge(exchange.keyed(KEY)).decode())
    final = re.sub(part, other, client.get_client_final().encode(), count=1)
    assert exchange.respond(final) == Outcome(False, "tim")


def test_scram_final_message_of_another_exchange() -> None:
    client, other = _client("SCRAM-SHA-256"), _begin("SCRAM-SHA-256")
    first = client.get_client_first().encode()
    exchange = _begin("SCRAM-SHA-256")
    exchange.respond(first)
    client.set_server_first(_challenge(exchange.keyed(KEY)).decode())
    final = client.get_client_final().encode()
    other.respond(first)
    other.keyed(KEY)
    assert other.respond(final) == Outcome(False, "tim")


def test_scram_yes_is_no_key() -> None:
    exchange = _begin("SCRAM-SHA-256")
    exchange.respond(OPENINGS["SCRAM-SHA-256"])
    assert exchange.decided(True) == Outcome(False, "tim")


def test_scram_unknown_user_looks_like_a_wrong_password() -> None:
    known, unknown = _begin("SCRAM-SHA-256"), _begin("SCRAM-SHA-256")
    known.respond(OPENINGS["SCRAM-SHA-256"])
    unknown.respond(OPENINGS["SCRAM-SHA-256"])
    firsts = [_challenge(known.keyed(KEY)), _challenge(unknown.decided(False))]
    assert len({len(first) for first in firsts}) == 1
    assert len({first.rpartition(b",")[2] for first in firsts}) == 1  # the iterations
    assert _until_proof(_begin("SCRAM-SHA-256"), _client("SCRAM-SHA-256"), key=None) == Outcome(False, "tim")


def test_scram_unknown_users_keep_their_salt() -> None:
    def salt(user: bytes) -> bytes:
        exchange = _begin("SCRAM-SHA-256")
        exchange.respond(b"n,,n=%b,r=abc" % user)
        return _challenge(exchange.decided(False)).split(b",")[1]

    assert salt(b"tim") == salt(b"tim")
    assert salt(b"tim") != salt(b"tom")


def test_scram_decoy_cannot_be_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if somebody knew the decoy's password."""
    monkeypatch.setattr(scram, "decoy", lambda _: KEY)
    assert _until_proof(_begin("SCRAM-SHA-256"), _client("SCRAM-SHA-256"), key=None) == Outcome(False, "tim")


@pytest.mark.parametrize("flag", [b"n", b"y"])
def test_plus_needs_a_binding(flag: bytes) -> None:
    assert _first("SCRAM-SHA-256-PLUS", flag + b",,n=tim,r=abc") == Outcome(False, "tim")


@pytest.mark.parametrize("kind", [b"tls-unique", b"tls-exporter", b"x"])
def test_plus_with_a_binding_of_another_type(kind: bytes) -> None:
    assert _first("SCRAM-SHA-256-PLUS", b"p=" + kind + b",,n=tim,r=abc") == Outcome(False, "tim")


def test_plus_with_a_binding_that_scramp_does_not_know() -> None:
    step = _first("SCRAM-SHA-256-PLUS", b"p=tls-exporter,,n=tim,r=abc", {"tls-exporter": b"x"})
    assert step == Outcome(False, "tim")


def test_without_plus_a_binding_is_malformed() -> None:
    for bindings in ({}, BINDINGS):
        with pytest.raises(SMTPError):
            _first("SCRAM-SHA-256", OPENINGS["SCRAM-SHA-256-PLUS"], bindings)


def test_a_client_that_was_not_shown_plus_meets_a_server_that_offered_it() -> None:
    """RFC 5802 6: a downgrade."""
    message = b"y,,n=tim,r=abc"
    assert _first("SCRAM-SHA-256", message, BINDINGS) == Outcome(False, "tim")
    assert isinstance(_first("SCRAM-SHA-256", message, {}), Credentials)
    assert isinstance(_first("SCRAM-SHA-256", b"n,,n=tim,r=abc", BINDINGS), Credentials)


@pytest.mark.parametrize("flag", ["y", "n"])
def test_scram_flag_is_proved(flag: str) -> None:
    """Whoever changes the client's flag on its way changes what the proof is about."""
    client, exchange = _client("SCRAM-SHA-256"), _begin("SCRAM-SHA-256")
    exchange.respond(flag.encode() + client.get_client_first().encode()[1:])
    client.set_server_first(_challenge(exchange.keyed(KEY)).decode())
    step = exchange.respond(client.get_client_final().encode())
    assert isinstance(step, Challenge) is (flag == "n")


def test_scram_takes_no_authorization_identity() -> None:
    assert _first("SCRAM-SHA-256", b"n,a=boss,n=tim,r=abc") == Outcome(False, "tim")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"n",
        b"n,",
        b"n,,",
        b"n,,n=tim",
        b"n,,r=abc",
        b"n,,n=,r=abc",
        b"n,,n=tim,r=",
        b"n,,n=tim,r=a b",
        b"n,,r=abc,n=tim",
        b"n,,m=x,n=tim,r=abc",
        b"n,,n=t=im,r=abc",
        b"n,,n=tim,n=tom,r=abc",
        b"n,a=,n=tim,r=abc",
        b"n,boss,n=tim,r=abc",
        b"N,,n=tim,r=abc",
        b"p=,,n=tim,r=abc",
        b"p=t_u,,n=tim,r=abc",
        b"n,,n=" + b"a" * 1020 + b",r=abc",
    ],
)
def test_scram_malformed_first_message(response: bytes) -> None:
    _refused("SCRAM-SHA-256", response)
    _refused("SCRAM-SHA-256-PLUS", response.replace(b"n,", b"p=tls-server-end-point,", 1))


@pytest.mark.parametrize(
    "response",
    [b"", b"c=biws", b"c=biws,r=a", b"r=a,c=biws,p=AAAA", b"c=biws,r=a,p=", b"c=biws,r=a,p=?", b"\xff", b"e=x"],
)
def test_scram_malformed_final_message(response: bytes) -> None:
    exchange = _begin("SCRAM-SHA-256")
    exchange.respond(OPENINGS["SCRAM-SHA-256"])
    exchange.keyed(KEY)
    with pytest.raises(SMTPError) as caught:
        exchange.respond(response)
    assert caught.value.reply is CANNOT_DECODE


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (ScramKey(b"short", 4096, bytes(32), bytes(32)), "12 octets"),
        (ScramKey(bytes(16), 4095, bytes(32), bytes(32)), "4096 to"),
        (ScramKey(bytes(16), 10_000_001, bytes(32), bytes(32)), "to 10000000"),
        (ScramKey(bytes(16), 4096, bytes(31), bytes(32)), "32 octets"),
        (ScramKey(bytes(16), 4096, bytes(32), b""), "32 octets"),
    ],
)
def test_a_key_that_does_not_do_is_the_handlers_fault(key: ScramKey, reason: str) -> None:
    exchange = _begin("SCRAM-SHA-256")
    exchange.respond(OPENINGS["SCRAM-SHA-256"])
    with pytest.raises(ValueError, match=reason):
        exchange.keyed(key)


@pytest.mark.parametrize("iterations", [4096, 10_000_000])
def test_the_limits_of_a_key_are_scramps(iterations: int) -> None:
    exchange = _begin("SCRAM-SHA-256")
    exchange.respond(OPENINGS["SCRAM-SHA-256"])
    step = exchange.keyed(ScramKey(bytes(12), iterations, bytes(32), bytes(32)))
    assert _challenge(step).endswith(b",i=%d" % iterations)


# -- bearer tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", BEARERS)
def test_bearer_token_accepted(mechanism: str) -> None:
    exchange = _begin(mechanism)
    assert exchange.respond(OPENINGS[mechanism]) == Credentials(mechanism, "tim", token="vF9dft4qmT")
    assert exchange.decided(True) == Outcome(True, "tim")


@pytest.mark.parametrize("answer", [b"", b"\1", b"anything \xff"])
@pytest.mark.parametrize(
    ("mechanism", "error"),
    [("OAUTHBEARER", {"status": "invalid_token"}), ("XOAUTH2", {"status": "401", "schemes": "bearer"})],
)
def test_bearer_token_refused(mechanism: str, error: dict[str, str], answer: bytes) -> None:
    exchange = _begin(mechanism)
    exchange.respond(OPENINGS[mechanism])
    assert json.loads(_challenge(exchange.decided(False))) == error
    assert exchange.respond(answer) == Outcome(False, "tim")


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("XOAUTH2", b"user=\1auth=Bearer vF9dft4qmT\1\1"),
        ("OAUTHBEARER", b"n,,\1auth=Bearer vF9dft4qmT\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1auth=\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1auth=Basic dGltOnRpbQ==\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1\1"),
    ],
)
def test_bearer_without_name_or_token_is_not_asked_about(mechanism: str, response: bytes) -> None:
    exchange = _begin(mechanism)
    assert isinstance(exchange.respond(response), Challenge)
    step = exchange.respond(b"\1")
    assert isinstance(step, Outcome)
    assert not step.accepted


def test_oauthbearer_name_is_unescaped() -> None:
    step = _first("OAUTHBEARER", b"y,a=t=2Ci=3Dm,\1auth=bearer  a.b-c_d~e+f/g==\1\1")
    assert step == Credentials("OAUTHBEARER", "t,i=m", token="a.b-c_d~e+f/g==")


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("XOAUTH2", b""),
        ("XOAUTH2", b"user=tim\1auth=Bearer x\1"),
        ("XOAUTH2", b"user=tim\1auth=Basic x\1\1"),
        ("XOAUTH2", b"user=tim\1auth=Bearer \1\1"),
        ("XOAUTH2", b"user=tim\1auth=Bearer x y\1\1"),
        ("XOAUTH2", b"user=tim\1auth=Bearer x\1\1\1"),
        ("OAUTHBEARER", b""),
        ("OAUTHBEARER", b"\1"),
        ("OAUTHBEARER", b"n,a=tim\1auth=Bearer x\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1auth=Bearer x\1"),
        ("OAUTHBEARER", b"n,a=tim,auth=Bearer x\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1auth=Bearer x\1auth=Bearer y\1\1"),
        ("OAUTHBEARER", b"n,a=tim,\1auth=Bearer \xc3\xa9\1\1"),
        ("OAUTHBEARER", b"n,a=ti=m,\1auth=Bearer x\1\1"),
        ("OAUTHBEARER", b"p=tls-unique,a=tim,\1auth=Bearer x\1\1"),
    ],
)
def test_bearer_malformed(mechanism: str, response: bytes) -> None:
    _refused(mechanism, response)


# -- configuration ---------------------------------------------------------------------------------------------------


def test_all_mechanisms_can_be_offered() -> None:
    check_mechanisms(MECHANISMS)
    check_mechanisms(())


def test_unknown_mechanisms_are_named() -> None:
    with pytest.raises(ValueError, match=r"'NTLM': unknown; there are SCRAM-SHA-256-PLUS, .*CRAM-MD5"):
        check_mechanisms(iter(["PLAIN", "NTLM"]))


def test_without_scramp_only_scram_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scramp", None)
    check_mechanisms(name for name in MECHANISMS if name not in SCRAMS)
    for name in SCRAMS:
        with pytest.raises(ValueError, match=r"pip install 'fastsmtp\[auth\]'"):
            check_mechanisms(["PLAIN", name])


def test_an_old_scramp_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("scramp")
    old.__version__ = "1.4.5"  # type: ignore[attr-defined]  # modules have what one gives them
    monkeypatch.setitem(sys.modules, "scramp", old)
    with pytest.raises(ValueError, match=r"scramp 1\.5"):
        check_mechanisms(SCRAMS)


def test_scramp_is_loaded_for_scram_only() -> None:
    program = "import sys; from fastsmtp.protocol import sasl; sys.exit('scramp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# -- whatever the client says ----------------------------------------------------------------------------------------

_NAMES: Final = st.sampled_from([b"tim", b"", b"a=2Cb", b"a=b", "é".encode(), b"\xff", b"\0", "\u200b".encode()])
_WORDS: Final = rb"n,, y,, p=tls-server-end-point,, n,a= n= r= c=biws ,p= , m= =2C i=0 AAAA = auth= Bearer user="
_PIECES: Final = st.sampled_from([*_WORDS.split(), b"\1", b"\1\1", b"\0", b" ", b"\r\n", b"0" * 32, "\ufdfa".encode()])
_RESPONSES: Final = st.one_of(
    st.binary(max_size=40),
    st.lists(_PIECES | _NAMES, max_size=10).map(b"".join),
    st.builds(lambda opening, name: opening.replace(b"tim", name), st.sampled_from([*OPENINGS.values()]), _NAMES),
)


def _play(mechanism: str, responses: Sequence[bytes | None], answer: bool | ScramKey) -> Outcome | Reply | None:
    """What the client's responses and the handler's one answer come to; None if the exchange stays unfinished."""
    exchange = _begin(mechanism)
    for response in responses:
        try:
            step = exchange.respond(response)
        except SMTPError as error:
            return error.reply
        if isinstance(step, Credentials):
            step = exchange.keyed(answer) if isinstance(answer, ScramKey) else exchange.decided(answer)
        if isinstance(step, Outcome):
            return step
    return None


@pytest.mark.parametrize("mechanism", MECHANISMS)
@given(
    initial=st.none() | _RESPONSES,
    responses=st.lists(_RESPONSES, max_size=4),
    answer=st.sampled_from([True, False, KEY]),
)
@example(initial=b"n,,n=tim,r=abc", responses=[b"c=biws,r=abc,p=AAAA", b""], answer=KEY)
@example(initial="n,,n=tim\u0627,r=abc".encode(), responses=[], answer=KEY)
def test_octets_raise_nothing_but_smtp_errors(
    mechanism: str, initial: bytes | None, responses: list[bytes], answer: bool | ScramKey
) -> None:
    outcome = _play(mechanism, [initial, *responses], answer)
    if isinstance(outcome, Outcome) and outcome.accepted:  # it takes a yes, and SCRAM takes a proof
        assert answer is True
        assert mechanism not in SCRAMS
    else:
        assert outcome in (None, CANNOT_DECODE) or isinstance(outcome, Outcome)


@pytest.mark.parametrize("mechanism", SCRAMS)
@given(
    final=st.binary(max_size=60) | st.lists(_PIECES, max_size=10).map(b"".join), answer=st.sampled_from([False, KEY])
)
def test_scram_proofs_of_any_octets(mechanism: str, final: bytes, answer: bool | ScramKey) -> None:
    assert _play(mechanism, [OPENINGS[mechanism], final, b""], answer) in (CANNOT_DECODE, Outcome(False, "tim"))
