"""Segments mean nothing, with every extension and in every situation; and what must hold of a session holds."""

from __future__ import annotations

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.policy import Policy
from tests.protocol.extended_dialogues import LOGINS, MANNERS, SITUATIONS, STAGES
from tests.protocol.logins import SECRETS
from tests.protocol.situations import WHOLE, Manner, Situation, rehearse

each_manner = pytest.mark.parametrize("manner", [WHOLE, Manner((1,))], ids=["whole", "byte_by_byte"])


@settings(deadline=None, max_examples=500, derandomize=True)
@given(SITUATIONS, STAGES, MANNERS)
def test_any_segments_and_any_time_that_hooks_take(situation: Situation, stages: list[bytes], manner: Manner) -> None:
    whole = rehearse(situation, stages)
    event(f"messages: {len([None for entry in whole.finished if entry[2] is None])}")
    assert rehearse(situation, stages, manner) == whole


@settings(deadline=None, max_examples=300, derandomize=True)
@given(SITUATIONS, st.lists(LOGINS, max_size=4), MANNERS)
def test_no_secret_reaches_the_log(situation: Situation, logins: list[bytes], manner: Manner) -> None:
    greeting = b"LHLO a\r\n" if situation.policy.lmtp else b"EHLO a\r\n"
    rehearse(situation, [greeting + b"".join(logins)], manner, SECRETS)


@each_manner
def test_response_that_begins_as_a_client_hello_does(manner: Manner) -> None:
    situation = Situation(policy=Policy(auth_requires_tls=False))
    outcome = rehearse(situation, [b"EHLO a\r\nAUTH PLAIN\r\n\x16AAA\r\nNOOP\r\n"], manner)
    assert outcome.output.endswith(b"\r\n334 \r\n521 5.5.1 protocol error, closing connection\r\n")


@each_manner
def test_line_between_a_small_discard_limit_and_the_command_limit(manner: Manner) -> None:
    situation = Situation(Limits(max_line_discard_octets=70))
    outcome = rehearse(situation, [b"NOOP " + b"x" * 80 + b"\r\nNOOP\r\n"], manner)
    assert outcome.output.endswith(b" ESMTP\r\n521 5.5.2 line too long, closing connection\r\n")
