"""BDAT: its argument, and what becomes of a message however it is cut into chunks, and those into segments."""

from __future__ import annotations

import re
import time
from typing import Final

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from fastsmtp import REJECT, SMTPError
from fastsmtp.protocol.chunking import Chunk, parse_chunk
from fastsmtp.protocol.content import ContentSpace
from fastsmtp.protocol.extensions import Switches
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.memory import SIZES, BufferPool
from fastsmtp.protocol.policy import Policy
from fastsmtp.protocol.replies import (
    BARE_NEWLINE,
    BDAT_SYNTAX,
    CONTENT_NOT_ALLOWED,
    FAR_TOO_LARGE,
    HEADER_TOO_LARGE,
    NEED_EHLO,
    NEED_MAIL,
    TOO_LARGE,
    Reply,
)
from fastsmtp.protocol.service import Service
from tests.protocol.dialogues import LENGTHS, cut
from tests.protocol.driver import HOSTNAME, Driver
from tests.protocol.fakes import FakeFile
from tests.protocol.invariants import CountingPool, replies

EHLO: Final = b"EHLO a\r\n"
OPENING: Final = EHLO + b"MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n"
BINARY: Final = EHLO + b"MAIL FROM:<a@a> BODY=BINARYMIME\r\nRCPT TO:<b@b>\r\n"
NOOP_OK: Final = b"250 2.0.0 ok\r\n"
_AUTH: Final = Policy(mechanisms=("LOGIN",), auth_requires_tls=False)

# -- the argument -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [
        (b"0", Chunk(0, False)),
        (b"1", Chunk(1, False)),
        (b"200 LAST", Chunk(200, True)),
        (b"200 last", Chunk(200, True)),
        (b"0 LaSt \t ", Chunk(0, True)),
        (b" \t5\t LAST", Chunk(5, True)),
        (b"0" * 18 + b"9", Chunk(9, False)),
    ],
)
def test_parse_chunk(argument: bytes, chunk: Chunk) -> None:
    assert parse_chunk(argument, 100) == chunk


@pytest.mark.parametrize(
    "argument",
    [
        *(b"", b" ", b"LAST", b"x", b"-1", b"+1", b"1_0", b"0x1", b"1.0", b"1,0", b"1 0", b"1e2", b"1LAST", b"LAST 1"),
        *(b"1 LAST 1", b"1 LAST LAST", b"1 FIRST", b"1 LASTS", b"1 LA\xc5\xbfT", b"\xd9\xa5", b"\xb2", b"0" * 20),
        *(b"1\0", b"1\r", b"1\x0bLAST", b"1\n", b"1\xa0LAST", b"1 LAST\x0c"),
    ],
)
def test_what_is_no_chunk(argument: bytes) -> None:
    with pytest.raises(SMTPError) as raised:
        parse_chunk(argument, 100)
    assert raised.value.reply is BDAT_SYNTAX


@pytest.mark.parametrize(("size", "taken"), [(200, True), (201, False), (10**19 - 1, False)])
def test_a_chunk_of_more_than_twice_the_limit(size: int, taken: bool) -> None:
    if taken:
        assert parse_chunk(b"%d" % size, 100).size == size
        return
    with pytest.raises(SMTPError) as raised:
        parse_chunk(b"%d" % size, 100)
    assert raised.value.reply is FAR_TOO_LARGE


# -- messages ---------------------------------------------------------------------------------------------------------

_PIECES: Final = st.sampled_from(
    (
        *(b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b".", b"\r\n.\r\n", b"x", b"Subject: x\r\n", b"\xff", b"\0"),
        *(b"QUIT\r\n", b"BDAT 1 LAST\r\n", b"\x16\x03\x01", b"y" * 30, b"\nRSET\r\n", b"\r\nDATA\r"),
    )
)
_CHUNK: Final = st.lists(_PIECES, max_size=4).map(b"".join)
_MESSAGES: Final = st.lists(_CHUNK, min_size=1, max_size=8)
# Large enough that their flights are not cut into lines, and with what looks like the chunks of others.
_LARGE_PIECES: Final = st.sampled_from(
    (b"y\r\n" * 400, b"\r\nBDAT 1500 LAST\r\n", b"\r\n", b"\r", b"", b"BDAT 1000\r\n")
)
_LARGE_CHUNK: Final = st.lists(_LARGE_PIECES, max_size=4).map(b"".join)
_ANY_MESSAGES: Final = _MESSAGES | st.lists(_LARGE_CHUNK | _CHUNK, min_size=1, max_size=5)
_POLICIES: Final = st.builds(
    Limits,
    max_message_bytes=st.sampled_from((40, 100000)),
    max_header_bytes=st.sampled_from((12, 100000)),
    max_text_line=st.sampled_from((0, 12)),
    bare_newline=st.sampled_from(("reject", "normalize", "keep")),
    nul_in_data=st.sampled_from(("reject", "keep")),
)


def _bdat(chunks: list[bytes]) -> bytes:
    """The chunks of one message."""
    *others, last = chunks
    return b"".join(b"BDAT %d\r\n%b" % (len(each), each) for each in others) + b"BDAT %d LAST\r\n%b" % (len(last), last)


def _stored(content: bytes, limits: Limits, binary: bool) -> bytes:
    """What is stored of this content, judged by no rule."""
    if limits.bare_newline != "normalize" or binary:
        return content
    return re.sub(rb"(?<!\r)\n", b"\r\n", re.sub(rb"\r(?!\n)", b" ", content))


def _verdict(content: bytes, limits: Limits, binary: bool) -> Reply | None:
    """Of the rules in their order the first that this content breaks, by a reader that has it all at once."""
    stored = _stored(content, limits, binary)
    header = stored.partition(b"\r\n\r\n")
    in_header = 0 if stored.startswith(b"\r\n") else len(header[0]) + (2 if header[1] else 0)
    longest = max((len(line) for line in re.findall(rb"(?s).*?\r\n|.+$", stored)), default=0)
    if len(stored) > limits.max_message_bytes:
        return TOO_LARGE
    if not binary and limits.bare_newline == "reject" and re.search(rb"(?<!\r)\n|\r(?!\n)", content):
        return BARE_NEWLINE
    if not binary and limits.nul_in_data == "reject" and b"\0" in content:
        return CONTENT_NOT_ALLOWED
    if in_header > limits.max_header_bytes:
        return HEADER_TOO_LARGE
    if not binary and limits.max_text_line and longest > limits.max_text_line:
        return CONTENT_NOT_ALLOWED
    return None


def _driver(limits: Limits, *, binarymime: bool = True, into_room: bool = False, spills: bool = False) -> Driver:
    space = ContentSpace(limits, BufferPool(), 0 if spills else SIZES[-1], FakeFile if spills else None)
    return Driver(service=Service(HOSTNAME, space, Switches(binarymime=binarymime)), into_room=into_room)


@settings(deadline=None, max_examples=500, derandomize=True)
@given(_ANY_MESSAGES, _POLICIES, LENGTHS, st.booleans(), st.booleans())
@example([b"x\r", b"", b"\n"], Limits(), [1], True, False)
@example([b"x\r", b""], Limits(bare_newline="normalize"), [3], False, False)
def test_a_message_is_judged_as_a_whole(
    chunks: list[bytes], limits: Limits, lengths: list[int], into_room: bool, binary: bool
) -> None:
    """The verdict and the content are those of the octets, whatever chunks and segments they came in."""
    content = b"".join(chunks)
    driver = _driver(limits, into_room=into_room)
    for octets in cut((BINARY if binary else OPENING) + _bdat(chunks) + b"NOOP\r\n", lengths):
        driver.send(octets)
    expected = _verdict(content, limits, binary)
    event(str(expected))
    said = replies(driver.output)
    if expected is TOO_LARGE:  # the chunk that passes the limit is told, so it need not be the last
        assert driver.messages == []
        assert (TOO_LARGE.encoded in said) or (FAR_TOO_LARGE.encoded in said)
        return
    assert said[-1] == NOOP_OK
    assert len(said) == 4 + len(chunks) + 1
    if expected:
        assert said[-2] == expected.encoded
        assert driver.messages == []
    else:
        assert said[-2] == b"250 2.0.0 accepted, id.1\r\n"
        assert [message.content for message in driver.messages] == [_stored(content, limits, binary)]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(_ANY_MESSAGES, LENGTHS, st.booleans(), st.sampled_from((b"", EHLO)))
def test_chunks_that_nobody_wants_are_swallowed(
    chunks: list[bytes], lengths: list[int], into_room: bool, opening: bytes
) -> None:
    """J: exactly their octets are consumed, and none of them is a command."""
    driver = _driver(Limits(), into_room=into_room)
    for octets in cut(opening + _bdat(chunks) + b"NOOP\r\n", lengths):
        driver.send(octets)
    refusal = NEED_MAIL if opening else NEED_EHLO
    assert replies(driver.output)[-len(chunks) - 1 :] == [refusal.encoded] * len(chunks) + [NOOP_OK]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(_MESSAGES, _MESSAGES, LENGTHS, st.booleans())
def test_a_refused_chunk_takes_its_message_with_it(
    before: list[bytes], behind: list[bytes], lengths: list[int], into_room: bool
) -> None:
    """J: no message is accepted without one of its chunks."""
    limits = Limits(max_message_bytes=2000, bare_newline="keep", nul_in_data="keep")
    open_chunks = _bdat([*before, b""]).removesuffix(b"BDAT 0 LAST\r\n")
    driver = _driver(limits, into_room=into_room)
    for octets in cut(OPENING + open_chunks + _bdat([b"z" * 2001, *behind]) + b"NOOP\r\n", lengths):
        driver.send(octets)
    said = replies(driver.output)
    assert driver.messages == []
    assert said[-len(behind) - 2 :] == [TOO_LARGE.encoded] + [NEED_MAIL.encoded] * len(behind) + [NOOP_OK]


@pytest.mark.parametrize("answer", [REJECT, Reply(554, "5.7.1", "no")])
def test_chunks_of_a_client_that_is_turned_away_are_swallowed(answer: object) -> None:
    """RFC 5321 3.1: it may only leave, and what it sends as content is no command all the same."""
    driver = Driver(deciders={"welcome": lambda session, subject: answer})
    driver.send(_bdat([b"QUIT\r\n", b"NOOP\r\n"]))
    assert [reply[:3] for reply in replies(driver.output)] == [b"554", b"503", b"503"]
    driver.send(b"BDAT x\r\nQUIT\r\n")
    assert driver.output.endswith(BDAT_SYNTAX.encoded)
    assert driver.session.closing


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"BDAT 101 LAST\r\n" + b"x" * 101, TOO_LARGE),
        (b"BDAT 201\r\n", FAR_TOO_LARGE),
        (b"BDAT 1 LAST\r\n\n", BARE_NEWLINE),
        (b"BDAT\r\n", BDAT_SYNTAX),
        (b"DATA\r\n" + b"x" * 210, FAR_TOO_LARGE),
    ],
)
def test_the_error_hook_sees_what_is_wrong_with_content(octets: bytes, expected: Reply) -> None:
    seen: list[Reply] = []
    driver = Driver(Limits(max_message_bytes=100), deciders={"error": lambda session, subject: seen.append(subject)})
    driver.send(OPENING + octets)
    assert seen == [expected]
    assert driver.output.endswith(expected.encoded)
    assert driver.session.closing is expected.close


def test_chunks_that_outgrow_memory() -> None:
    chunks = [b"x" * 30000, b"y" * 30000 + b"\r", b"\n" + b"z" * 50000, b"", b"\r", b"\n"]
    driver = _driver(Limits(max_header_bytes=40000, max_text_line=200000), spills=True)
    driver.send(OPENING + _bdat([b"\r\n", *chunks]))
    assert [message.content for message in driver.messages] == [b"\r\n" + b"".join(chunks)]


# -- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opening", [OPENING, EHLO], ids=["taken", "swallowed"])
def test_chunks_of_one_octet_have_a_constant_cost(opening: bytes) -> None:
    """100 000 in one flight of 900 KB: under a second, where a copy of what waits would be 45 GB and take ten times so.

    The limit is for a machine under load; it is of the time that this process has had.
    """
    limits = Limits(max_errors=1000000, error_delay=0)
    driver = _driver(limits)
    flight = opening + b"BDAT 1\r\nB" * 100000 + b"NOOP\r\n"
    begun = time.process_time()
    driver.send(flight)
    assert time.process_time() - begun < 10
    assert driver.output.endswith(NOOP_OK)
    assert (
        driver.output.count(b"\r\n250 2.0.0 1 octets received" if opening is OPENING else b"\r\n503 5.5.1 ") == 100000
    )


# -- memory -----------------------------------------------------------------------------------------------------------


def _lent(octets: bytes, limits: Limits | None = None) -> list[int]:
    """How many buffers are lent before and behind the last command, and when the client is gone."""
    pool = CountingPool()
    driver = Driver(space=ContentSpace(limits or Limits(), pool))
    driver.send(OPENING + b"BDAT 5\r\nab\r\n\r")
    counts = [pool.lent]
    driver.send(octets)
    counts.append(pool.lent)
    driver.session.disconnected()
    return [*counts, pool.lent]


@pytest.mark.parametrize(
    "octets",
    [
        *(b"RSET\r\n", b"EHLO a\r\n", b"HELO a\r\n", b"QUIT\r\n"),
        *(b"BDAT 0 LAST\r\n", b"BDAT 1 LAST\r\n\n"),
    ],
)
def test_memory_is_free_when_the_message_is_over(octets: bytes) -> None:
    assert _lent(octets) == [1, 0, 0]


def test_memory_is_free_while_a_refused_chunk_is_swallowed() -> None:
    assert _lent(b"BDAT 100\r\n", Limits(max_message_bytes=100)) == [1, 0, 0]


@pytest.mark.parametrize("octets", [b"BDAT 10\r\nabc", b"NOOP\r\n", b"DATA\r\n", b"BDA", b"BDAT x\r\n", b"NOOP\n"])
def test_memory_is_free_when_the_client_goes_away(octets: bytes) -> None:
    assert _lent(octets) == [1, 1, 0]


def test_a_claim_takes_no_more_memory_than_a_message_may_have() -> None:
    """D: memory is bounded before allocation follows a client's claim."""
    pool = CountingPool()
    driver = Driver(space=ContentSpace(Limits(), pool))
    driver.send(OPENING + b"BDAT 33554432\r\n")
    reader = driver.session.reader
    assert reader is not None
    assert len(reader.room()) <= SIZES[-1]
    assert pool.lent == 1


# -- what the log is told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"BDAT 3 LAST\r\nx\r\n", None),
        (b"BDAT 2 LAST\r\nx\r", BARE_NEWLINE),
        (b"BDAT 11 LAST\r\n" + b"x" * 11, TOO_LARGE),
        (b"BDAT 3\r\nx\r\nBDAT 8\r\n" + b"x" * 8, TOO_LARGE),
    ],
)
def test_each_message_is_finished_once(octets: bytes, reply: Reply | None) -> None:
    driver = Driver(Limits(max_message_bytes=10))
    session = driver.session
    session.receive(OPENING + octets)
    assert [(finished[0], finished[3]) for finished in session.finished] == [("id.1", reply)]


def test_what_looks_like_a_large_chunk_may_be_a_response() -> None:
    """M: while AUTH is under way a line is a response whatever it says, and the lines behind it are lines."""
    flight = b"AUTH LOGIN\r\nBDAT 5000 LAST\r\nNOOP\r\n" + b"NOOP " + b"x" * 2000 + b"\r\n" + b"NOOP\r\n" * 20
    whole, single = (Driver(service=Service(HOSTNAME, policy=_AUTH), deciders={"auth": lambda *_: None}) for _ in "ab")
    whole.send(EHLO + flight)
    for octets in cut(EHLO + flight, [1]):
        single.send(octets)
    assert whole.output == single.output
    assert whole.output.count(NOOP_OK) == 22
    assert b"501 5.5.2" in whole.output
