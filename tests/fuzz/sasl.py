"""SASL exchanges of every mechanism: nothing but SMTPError comes of responses, and nobody gets in uninvited."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from fastsmtp.protocol.credentials import Credentials, ScramKey
from fastsmtp.protocol.replies import AUTH_TEMPORARY, CANNOT_DECODE, Reply, SMTPError
from fastsmtp.protocol.sasl import MECHANISMS, Challenge, Exchange, Outcome, Step, begin, decode_base64, is_visible
from tests.fuzz.engine import run
from tests.fuzz.octets import Octets
from tests.protocol.logins import BINDINGS, KEY, PASSWORD, TOKEN, answer_to, predictable

_ANSWERS: Final = ("as it is", "yes", "no", "key")
_MAX_STEPS: Final = 6  # no exchange has more


def fuzz_one(octets: bytes) -> None:
    """The octets: mechanism, whether there is TLS, how the handler answers, how it begins, the responses as lines."""
    choices = Octets(octets)
    mechanism, bound, manner = choices.one_of(MECHANISMS), choices.flag(), choices.one_of(_ANSWERS)
    opened, encoded = choices.flag(), choices.flag()
    responses: list[bytes | None] = [None] if opened else []
    refusal = CANNOT_DECODE
    with predictable():
        try:
            responses += [decode_base64(line) if encoded else line for line in choices.rest.split(b"\n")]
            _play(begin(mechanism, "mx.example", BINDINGS if bound else {}), responses[:_MAX_STEPS], manner)
        except SMTPError as error:
            refusal = error.reply
    assert refusal.code in (501, 504)
    if encoded:
        assert all(line is None or decode_base64(b64encode(line)) == line for line in responses)


def _play(exchange: Exchange, responses: list[bytes | None], manner: str) -> None:
    let_in = asked = False
    for response in responses:
        step = exchange.respond(response)
        if isinstance(step, Credentials):
            assert not asked
            asked = True
            _check_credentials(step)
            answer = _answer(step, manner)
            let_in = answer is True or isinstance(answer, ScramKey)
            step = exchange.keyed(answer) if isinstance(answer, ScramKey) else exchange.decided(answer)
        if _is_over(exchange, step, let_in):
            return


def _is_over(exchange: Exchange, step: Step, let_in: bool) -> bool:
    assert not isinstance(step, Credentials)
    if isinstance(step, Challenge):
        assert len(step.octets) < 2000
        return False
    assert isinstance(step, Outcome)
    assert is_visible(step.username)
    if step.accepted:
        assert let_in
        assert step.username
    return True


def _check_credentials(credentials: Credentials) -> None:
    assert credentials.username
    assert is_visible(credentials.username + credentials.authzid)
    assert "\0" not in (credentials.password or "") + (credentials.token or "") + credentials.digest
    assert credentials.password != ""
    assert credentials.token != ""
    shown = repr(credentials).removeprefix(f"Credentials(mechanism={credentials.mechanism!r}")
    for secret in (PASSWORD, TOKEN):
        assert secret not in shown or secret in credentials.username + credentials.authzid


def _answer(credentials: Credentials, manner: str) -> bool | ScramKey:
    if manner == "key":
        return KEY
    if manner != "as it is":
        return manner == "yes"
    answer = answer_to(credentials)
    if isinstance(answer, Reply):
        raise SMTPError(Reply(501, None, str(AUTH_TEMPORARY)))
    return answer if isinstance(answer, ScramKey) else answer is None


if __name__ == "__main__":
    run(fuzz_one)
