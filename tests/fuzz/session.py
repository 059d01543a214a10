"""Whole dialogues in any situation: no exception, sound replies, and the same however octets come and hooks answer."""

from __future__ import annotations

from typing import Final

from fastsmtp.protocol.extensions import Switches
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.policy import Policy
from tests.fuzz.engine import run
from tests.fuzz.octets import Octets
from tests.protocol.situations import CIRCUMSTANCES, LIMITS, POLICIES, SWITCHES, Manner, Situation, rehearse

TLS_BEGINS: Final = b"\xf8"  # no octet of UTF-8
_BYTE_BY_BYTE: Final = Manner((1,))


def fuzz_one(octets: bytes) -> None:
    """The octets: the situation, lengths of segments, how they are read, how hooks answer, what the client says."""
    choices = Octets(octets)
    situation = Situation(
        Limits(**choices.each(LIMITS)),
        Switches(**choices.each(SWITCHES)),
        Policy(**choices.each(POLICIES)),
        **choices.each(CIRCUMSTANCES),
    )
    lengths, into_room = tuple(choices.lengths()), choices.flag()
    later, waits = _flags(choices.number()), _flags(choices.number())
    stages = choices.rest.split(TLS_BEGINS)
    whole = rehearse(situation, stages)
    for manner in (_BYTE_BY_BYTE, Manner(lengths, into_room), Manner(lengths, into_room, later, waits)):
        found = rehearse(situation, stages, manner)
        assert found == whole, f"{situation}\n{stages}\n{manner}\n{found}\n{whole}"


def _flags(number: int) -> tuple[bool, ...]:
    return tuple(bool(number >> place & 1) for place in range(8))


if __name__ == "__main__":
    run(fuzz_one)
