"""Contents: in memory, in a file, and in none; the limits to their last octet."""

from __future__ import annotations

import errno
import random

import pytest

from fastsmtp import Reply, SMTPError
from fastsmtp.protocol import replies
from fastsmtp.protocol.content import Content, ContentSpace
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.memory import SIZES, BufferPool
from tests.protocol.driver import Driver
from tests.protocol.fakes import FakeFile
from tests.protocol.test_data import read

END = b"\r\n.\r\n"
# Content stays in memory at least as long as its header section may be.
LIMITS = Limits(max_header_bytes=1000)


class Files:
    """Makes files and remembers them."""

    def __init__(self, room: int | None = None, refuses: bool = False) -> None:
        self.made: list[FakeFile] = []
        self._room, self._refuses = room, refuses

    def open(self) -> FakeFile:
        if self._refuses:
            raise OSError(errno.EMFILE, "too many open files")
        self.made.append(FakeFile(self._room))
        return self.made[-1]


def _space(limits: Limits | None = None, files: Files | None = None, memory_bytes: int = 0) -> ContentSpace:
    return ContentSpace(limits or LIMITS, BufferPool(), memory_bytes, files.open if files else None)


def _lines(size: int) -> bytes:
    """Lines of text, so many octets with the line end that belongs to the end of data."""
    chance = random.Random(size)
    header = b"Subject: x\r\n\r\n"
    body = bytearray()
    while len(body) < size - len(header) - 2:
        body += bytes(chance.choices(b"abcdefgh .", k=chance.randint(0, 100))).lstrip(b".") + b"\r\n"
    return header + bytes(body[: size - len(header) - 2]).rstrip(b"\r\n").ljust(size - len(header) - 2, b"z")


SIZES_OF_CONTENT = [
    100,
    8189,
    8190,
    8191,
    8192,
    8193,
    16382,
    16384,
    16390,
    65534,
    65536,
    65540,
    70000,
    262144,
    300000,
    1100000,
]


@pytest.mark.parametrize("memory_bytes", [0, 65536, 1 << 20])
@pytest.mark.parametrize("segment", [8192, 5000])
@pytest.mark.parametrize("size", SIZES_OF_CONTENT)
def test_every_octet_in_its_place(size: int, segment: int, memory_bytes: int) -> None:
    files = Files()
    text = _lines(size)
    found = read(text + END + b"NOOP\r\n", LIMITS, [segment], _space(files=files, memory_bytes=memory_bytes))
    assert found.verdict is None
    assert found.content == text + b"\r\n"
    assert found.surplus == b"NOOP\r\n"
    # A buffer is left when less than 8 KB of it are free.
    if size > max(memory_bytes, SIZES[0]):
        assert len(files.made) == 1
    if size < max(memory_bytes, SIZES[0]) - 8192 - segment:
        assert files.made == []


def test_a_larger_message_may_stay_in_memory() -> None:
    for size, made in ((2_900_000, 0), (4_200_000, 1)):
        files = Files()
        text = b"\r\n" + b"x\r\n" * (size // 3)
        found = read(text + END[2:], LIMITS, [65536], _space(files=files, memory_bytes=3 << 20))
        assert found.content == text
        assert len(files.made) == made


@pytest.mark.parametrize("limit", [900_000, 1 << 20, 4 << 20])
@pytest.mark.parametrize(("header", "verdict"), [(100, None), (500_000, None), (5_000_000, replies.HEADER_TOO_LARGE)])
def test_a_large_header_section_may_be_had(limit: int, header: int, verdict: Reply | None) -> None:
    """It is judged in memory, however large a buffer that takes; the body goes to a file all the same."""
    limits = Limits(max_header_bytes=limit)
    text = b"X: y\r\n" * (header // 6) + (b"\r\n" + b"x" * 78) * 130_000
    files = Files()
    assert read(text + END, limits, [65536], _space(limits, files)).verdict == verdict
    assert len(files.made) == 1


@pytest.mark.parametrize("size", SIZES_OF_CONTENT)
def test_without_a_file_everything_stays_in_memory(size: int) -> None:
    text = _lines(size)
    assert read(text + END, LIMITS, [30000], _space()).content == text + b"\r\n"


def test_a_file_is_made_once_and_closed() -> None:
    files = Files()
    driver = Driver(space=_space(files=files))
    driver.send(b"HELO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n")
    text = _lines(200_000)
    driver.send(text + END)
    assert [message.content for message in driver.messages] == [text + b"\r\n"]
    (file,) = files.made
    assert file.octets == text + b"\r\n"
    assert file.closed


@pytest.mark.parametrize("ending", [b"RSET", b""], ids=["behind the end", "disconnected"])
def test_a_file_is_closed_when_nobody_gets_its_message(ending: bytes) -> None:
    files = Files()
    driver = Driver(space=_space(files=files))
    driver.send(b"HELO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<data-reject@b>\r\nDATA\r\n" + _lines(100_000))
    states = [files.made[0].closed]
    if ending:
        driver.send(END)
    else:
        driver.session.disconnected()
    states.append(files.made[0].closed)
    assert states == [False, True]
    assert driver.messages == []


@pytest.mark.parametrize(
    "files", [Files(room=0), Files(room=50_000), Files(refuses=True)], ids=["full", "filling", "none"]
)
def test_a_file_that_fails_refuses_the_message_at_its_end(files: Files) -> None:
    driver = Driver(space=_space(files=files))
    dialogue = b"HELO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n"
    driver.send(dialogue + _lines(100_000))
    assert driver.output.endswith(b"354 end data with <CR><LF>.<CR><LF>\r\n")
    driver.send(END)
    assert driver.output.endswith(b"\r\n" + replies.INSUFFICIENT_STORAGE.encoded)
    assert driver.messages == []
    assert all(file.closed for file in files.made)
    driver.send(dialogue + b"small" + END)
    assert [message.content for message in driver.messages] == [b"small\r\n"]


def test_a_file_that_fails_at_the_very_end() -> None:
    """What is still in memory at the end of data is written then."""
    files = Files(room=100_000)
    found = read(_lines(100_001) + END, LIMITS, [8000], _space(files=files))
    assert found.verdict is replies.INSUFFICIENT_STORAGE


def test_a_message_of_exactly_the_limit_is_written_whole() -> None:
    limits = Limits(max_message_bytes=100_000, max_header_bytes=1000)
    text = _lines(100_000)
    found = read(text + END, limits, [8000], _space(limits, Files()))
    assert (found.verdict, found.content) == (None, text + b"\r\n")


def test_a_message_over_the_limit_is_not_written_on() -> None:
    files = Files()
    limits = Limits(max_message_bytes=100_000, max_header_bytes=1000)
    found = read(_lines(190_000) + END, limits, [8000], _space(limits, files))
    assert found.verdict is replies.TOO_LARGE
    assert len(files.made[0].octets) <= 110_000


def test_size_is_told_before_storage() -> None:
    limits = Limits(max_message_bytes=100_000, max_header_bytes=1000)
    found = read(_lines(190_000) + END, limits, [8000], _space(limits, Files(room=0)))
    assert found.verdict is replies.TOO_LARGE


# -- the header section -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filed", [False, True], ids=["memory", "file"])
@pytest.mark.parametrize("limit", [100, 8000, 12_000, 16_384, 20_000, 65_536, 100_000, 262_144])
@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("segment", [777, 8000])
def test_a_header_section_may_have_its_limit_and_no_more(limit: int, over: int, segment: int, filed: bool) -> None:
    """Wherever the content goes; RFC 5322 2.1 says what the header section is."""
    limits = Limits(max_header_bytes=limit)
    header = b"a: " + b"x" * (limit + over - 5) + b"\r\n"
    space = _space(limits, Files() if filed else None)
    found = read(header + b"\r\nbody" * 3000 + END, limits, [segment], space)
    assert found.verdict is (replies.HEADER_TOO_LARGE if over else None)


@pytest.mark.parametrize("fields", [3, 4])
@pytest.mark.parametrize("position", [0, 7000, 15000])
@pytest.mark.parametrize("segment", [1, 10, 13, 8000])
def test_received_fields_are_counted_wherever_they_stand(fields: int, position: int, segment: int) -> None:
    limits = Limits(max_received=3)
    header = b"x: %b\r\n" % (b"y" * position) + b"Received: from a\r\n\tby b\r\n" * fields
    found = read(header + b"\r\nReceived: body" + END, limits, [segment], _space(limits))
    assert found.verdict is (replies.TOO_MANY_HOPS if fields > 3 else None)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (b"x" * 10 + b"\r\n" + b"y" * 10, None),
        (b"x" * 11, replies.CONTENT_NOT_ALLOWED),
        (b"\r\n" * 5 + b"x" * 11, replies.CONTENT_NOT_ALLOWED),
        (b"." + b"." + b"x" * 9, None),
        (b"a\nb\nc\nd\nef", None),
        (b"a\rb\rc\rd\ref", None),
        (b"aaaaaa\rbbbbbb", replies.CONTENT_NOT_ALLOWED),
        (b"aaaaaa\nbbbbbb", replies.CONTENT_NOT_ALLOWED),
    ],
)
@pytest.mark.parametrize("segment", [1, 2, 100])
def test_text_lines_end_in_crlf_only(text: bytes, verdict: Reply | None, segment: int) -> None:
    """RFC 5321 2.3.8: for the length of a text line, too, a bare LF ends nothing."""
    assert read(text + END, Limits(max_text_line=12, bare_newline="keep"), [segment]).verdict is verdict


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "buffer"), [(1, SIZES[0]), (9000, SIZES[1]), (100_000, SIZES[2]), (10**20, SIZES[3])])
def test_an_announced_size_gets_no_more_than_the_pools_memory(size: int, buffer: int) -> None:
    content = Content(ContentSpace(Limits(), BufferPool()))
    content.reserve(size)
    assert len(content.room()) == buffer - 2


def test_the_room_is_at_least_8_kb() -> None:
    content = Content(ContentSpace(Limits(), BufferPool()))
    for _ in range(300):
        room = content.room()
        assert len(room) >= 8192
        room[:1000] = b"z" * 1000
        content.filled += 1000
        content.commit(content.filled)
    assert content.octets() == b"z" * 300_000


def test_memory_that_became_too_small_is_given_back() -> None:
    pool = BufferPool()
    first = pool.acquire(SIZES[0])
    pool.release(first)
    content = Content(ContentSpace(Limits(), pool))
    content.reserve(20_000)
    assert pool.acquire(SIZES[0]) is first


def test_octets_are_read_only_and_outlive_their_content() -> None:
    pool = BufferPool()
    content = Content(ContentSpace(Limits(), pool))
    content.room()[:5] = b"one\r\n"
    content.filled += 5
    content.commit(content.filled)
    octets = content.octets()
    assert octets.readonly
    content.release()
    other = Content(ContentSpace(Limits(), pool))
    other.room()[:5] = b"two\r\n"
    assert bytes(octets) == b"one\r\n"


def test_far_over_the_limit_nobody_reads_on() -> None:
    content = Content(ContentSpace(Limits(max_message_bytes=10), BufferPool()))
    content.room()[:25] = b"z" * 25
    content.filled += 18
    content.commit(content.filled)
    content.filled += 5
    with pytest.raises(SMTPError) as caught:
        content.commit(content.filled)
    assert caught.value.reply is replies.FAR_TOO_LARGE
