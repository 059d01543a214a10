"""Every transcript against a session: however its octets are cut, the replies and the messages are those it shows."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.protocol.driver import Driver
from tests.protocol.transcript import FOLDER, Transcript, TranscriptError, load_all, parse, unescape

TRANSCRIPTS: Final = load_all()
Cut = Callable[[bytes, random.Random], Iterator[bytes]]

each_transcript = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)


def whole(octets: bytes, chance: random.Random) -> Iterator[bytes]:
    yield octets


def byte_by_byte(octets: bytes, chance: random.Random) -> Iterator[bytes]:
    for start in range(0, len(octets), 1):
        yield octets[start : start + 1]


def in_pieces(octets: bytes, chance: random.Random) -> Iterator[bytes]:
    """Mostly short pieces, so that line ends are cut, some long ones."""
    while octets:
        length = chance.choice((1, 2, 3, 5, 17, 80, 1000, 40000))
        yield octets[:length]
        octets = octets[length:]


def each_line(octets: bytes, chance: random.Random) -> Iterator[bytes]:
    """Cut between CR and LF."""
    yield from re.findall(rb"(?s).+?\r|.+$", octets)


def _play(transcript: Transcript, driver: Driver, cut: Cut, seed: int) -> None:
    """Play it turn by turn, and look at the output behind each one."""
    chance = random.Random(seed)
    assert transcript.turns[0].says or driver.output == transcript.expected(1, driver.messages)
    for number, turn in enumerate(transcript.turns, 1):
        for octets in cut(turn.says, chance) if turn.says else ():
            driver.send(octets)
        assert driver.output == transcript.expected(number, driver.messages)
        if turn.tls:
            driver.start_tls()
    _check_end(transcript, driver)


def _check_end(transcript: Transcript, driver: Driver) -> None:
    assert driver.output == transcript.expected(len(transcript.turns), driver.messages)
    assert driver.session.closing == transcript.closes
    transcript.check_messages(driver.messages)


def _driver(transcript: Transcript, *, into_room: bool = False) -> Driver:
    return Driver(service=transcript.service, may_xclient=bool(transcript.config.xclient_networks), into_room=into_room)


@each_transcript
@pytest.mark.parametrize("into_room", [False, True], ids=["received", "into_room"])
@pytest.mark.parametrize("cut", [whole, byte_by_byte, each_line], ids=lambda cut: cut.__name__)
def test_cut(transcript: Transcript, cut: Cut, into_room: bool) -> None:
    _play(transcript, _driver(transcript, into_room=into_room), cut, 0)


@each_transcript
@pytest.mark.parametrize("seed", range(4))
def test_cut_at_random(transcript: Transcript, seed: int) -> None:
    _play(transcript, _driver(transcript, into_room=seed % 2 == 0), in_pieces, seed)


@each_transcript
@pytest.mark.parametrize("into_room", [False, True], ids=["received", "into_room"])
def test_all_in_one_flight(transcript: Transcript, into_room: bool) -> None:
    """The client waits for no reply at all."""
    driver = _driver(transcript, into_room=into_room)
    for number, octets in enumerate(transcript.stages):
        if number:
            driver.start_tls()
        driver.send(octets)
    _check_end(transcript, driver)


@each_transcript
@pytest.mark.parametrize("cut", [whole, byte_by_byte, in_pieces], ids=lambda cut: cut.__name__)
def test_hooks_that_take_their_time(transcript: Transcript, cut: Cut) -> None:
    """Hooks answer later, some only behind the next octets."""
    chance = random.Random(transcript.name)
    driver = Driver(
        service=transcript.service,
        may_xclient=bool(transcript.config.xclient_networks),
        asks_later=lambda: chance.random() < 0.7,
        waits=lambda: chance.random() < 0.5,
    )
    for number, stage in enumerate(transcript.stages):
        if number:
            driver.start_tls()
        for octets in cut(stage, chance):
            driver.send(octets)
        driver.finish()
    _check_end(transcript, driver)


def test_names_are_unique_and_beginnings_are_used() -> None:
    beginnings = {path.stem for path in (FOLDER / "beginnings").glob("*.txt")}
    used = {
        name for path in FOLDER.rglob("*.txt") for name in re.findall(r"(?m)^After: (.*)$", path.read_text("utf-8"))
    }
    assert beginnings == used
    assert len({tuple(transcript.stages) for transcript in TRANSCRIPTS}) > 0.9 * len(TRANSCRIPTS) > 90


# -- the notation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("plain", b"plain"),
        (r"a\r\n\t\0\\b", b"a\r\n\t\0\\b"),
        (r"\x41\xfF\\x41", b"A\xff\\x41"),
        ("{ab*3}c", b"abababc"),
        (r"{\0*2}{x*0}", b"\0\0"),
        ("{|}~ {id} *3", b"{|}~ {id} *3"),
        ("\u00fc", b"\xc3\xbc"),
    ],
)
def test_escapes(text: str, octets: bytes) -> None:
    assert unescape(text) == octets


_HEAD = "# RFC 5321 3.1: x\n"


@pytest.mark.parametrize(
    "text",
    [
        "S: 220 mx.example ESMTP\n",
        "# no section\nS: 220 mx.example ESMTP\n",
        _HEAD + "X: y\n",
        _HEAD + "S 220 mx.example ESMTP\n",
        _HEAD + "S: <closes>\nC: NOOP\n",
        _HEAD + "S: <closes>\nS: 250 2.0.0 ok\n",
    ],
)
def test_what_is_no_transcript(text: str) -> None:
    with pytest.raises(TranscriptError):
        parse(text, "x")


_BANNER = _HEAD + "S: 220 mx.example ESMTP\n"
_MESSAGE = _HEAD + "After: data\nC: x\nC: .\nS: 250 2.0.0 accepted, {id}\nE: a@a.example\nE: b@b.example\nM: x\n"


def test_a_right_transcript_passes() -> None:
    for text in (_BANNER, _MESSAGE):
        transcript = parse(text, "x")
        _play(transcript, _driver(transcript), whole, 0)


@pytest.mark.parametrize(
    "text",
    [
        _BANNER.replace("ESMTP", "SMTP"),
        _BANNER + "S: 250 2.0.0 ok\n",
        _BANNER + "S: <closes>\n",
        _BANNER + "C: NOOP\n",
        _BANNER + "C+: NOOP\nS: 250 2.0.0 ok\n",
        _BANNER + "C*2: NOOP\nS: 250 2.0.0 ok\n",
        _BANNER + "C: QUIT\nS: 221 2.0.0 mx.example closing connection\n",
        _MESSAGE.replace("M: x", "M+: x"),
        _MESSAGE.replace("E: a@", "E: c@"),
        _MESSAGE.replace("E: b@b.example\n", ""),
        _MESSAGE.replace("{id}", "id.2").replace("M: x\n", "").replace("E: a@a.example\nE: b@b.example\n", ""),
    ],
)
def test_a_wrong_transcript_fails(text: str) -> None:
    transcript = parse(text, "x")
    with pytest.raises(AssertionError):
        _play(transcript, _driver(transcript), whole, 0)
