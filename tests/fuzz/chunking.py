"""BDAT: whatever the chunks are and however they come, a message is what its octets are, and is judged by them."""

from __future__ import annotations

import re
from itertools import cycle
from typing import Final

from fastsmtp.protocol.content import ContentSpace
from fastsmtp.protocol.extensions import Switches
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.memory import BufferPool
from fastsmtp.protocol.replies import (
    BARE_NEWLINE,
    CONTENT_NOT_ALLOWED,
    HEADER_TOO_LARGE,
    TOO_MANY_HOPS,
    Reply,
)
from fastsmtp.protocol.service import Service
from tests.fuzz.engine import run
from tests.fuzz.octets import Octets
from tests.protocol.dialogues import cut
from tests.protocol.driver import HOSTNAME, SESSION_ID, Driver

_OPTIONS: Final = {
    "bare_newline": ("reject", "normalize", "keep"),
    "nul_in_data": ("reject", "keep"),
    "max_text_line": (0, 5, 80),
    "max_header_bytes": (262144, 10, 60),
    "max_received": (100, 0, 1),
    "max_message_bytes": (33554432, 20, 400),
}
_POOL: Final = BufferPool()
_BARE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")


def fuzz_one(octets: bytes) -> None:
    """The octets: limits, whether it is binary, lengths of chunks and segments, how they are read, the content."""
    choices = Octets(octets)
    limits = Limits(**choices.each(_OPTIONS))
    binary, chunks, segments, into_room = choices.flag(), choices.lengths(), choices.lengths(), choices.flag()
    content = choices.rest
    verdict, kept = _expected(content, limits, binary)
    if max(len(content), len(kept)) > limits.max_message_bytes:  # which chunk is refused depends on where they end
        return
    service = Service(HOSTNAME, ContentSpace(limits, _POOL), Switches(binarymime=True))
    driver = Driver(service=service, into_room=into_room)
    body = b" BODY=BINARYMIME" if binary else b""
    driver.send(b"EHLO a\r\nMAIL FROM:<a@a>%b\r\nRCPT TO:<b@b>\r\n" % body)
    said = len(driver.output)
    for segment in cut(_in_chunks(content, chunks) + b"NOOP\r\n", segments):
        driver.send(segment)
    *_, last, noop = driver.output[said:].splitlines(keepends=True)
    assert noop == b"250 2.0.0 ok\r\n"
    if verdict:
        assert last == verdict.encoded, (last, verdict)
        assert not driver.messages
    else:
        assert last == b"250 2.0.0 accepted, %b.1\r\n" % SESSION_ID.encode()
        assert [message.content for message in driver.messages] == [kept]


def _in_chunks(content: bytes, lengths: list[int]) -> bytes:
    """With BDAT in front of each; there may be an empty one behind them."""
    chunks, rest = b"", content
    for length in cycle(lengths):
        chunk, rest = rest[:length], rest[length:]
        last = b" LAST" if not rest and (len(chunk) < length or length % 2) else b""
        chunks += b"BDAT %d%b\r\n%b" % (len(chunk), last, chunk)
        if last:
            break
    return chunks


def _expected(content: bytes, limits: Limits, binary: bool) -> tuple[Reply | None, bytes]:
    """What the rules say of a content: the order is that of the standards, chapter G."""
    kept = content
    if limits.bare_newline == "normalize" and not binary:
        kept = _BARE.sub(lambda match: b" " if match[0] == b"\r" else b"\r\n", content)
    header = _header_of(kept)
    lines = kept.split(b"\r\n")
    for broken, reply in (
        (limits.bare_newline == "reject" and not binary and _BARE.search(content), BARE_NEWLINE),
        (limits.nul_in_data == "reject" and not binary and b"\0" in content, CONTENT_NOT_ALLOWED),
        (len(header) > limits.max_header_bytes, HEADER_TOO_LARGE),
        (len(re.findall(rb"(?im)(?:\A|\r\n)received:", header)) > limits.max_received, TOO_MANY_HOPS),
        (limits.max_text_line and not binary and _longest(lines) > limits.max_text_line, CONTENT_NOT_ALLOWED),
    ):
        if broken:
            return reply, kept
    return None, kept


def _header_of(content: bytes) -> bytes:
    """The header section, with the line end that the empty line follows."""
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n")
    return content if end < 0 else content[: end + 2]


def _longest(lines: list[bytes]) -> int:
    """Octets of the longest line, with its line end if it has one."""
    *complete, rest = lines
    return max([len(rest), *(len(line) + 2 for line in complete)])


if __name__ == "__main__":
    run(fuzz_one)
