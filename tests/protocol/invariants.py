"""What must hold of a session whatever the client says, and whatever the settings are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fastsmtp.protocol.memory import SIZES, BufferPool
from fastsmtp.protocol.replies import MAX_REPLY_LINE
from tests.protocol.driver import Driver

# RFC 5321 4.2: a code, a separator, printable text, CR LF; one code per reply. RFC 2034: the class is the code's, and
# only the banner, the replies to EHLO and HELO, the 334 and the 354 have none.
_REPLY: Final = re.compile(rb"(?:(\d{3})-[\x20-\x7e]*\r\n(?:\1-[\x20-\x7e]*\r\n)*)?(?(1)\1|\d{3}) [\x20-\x7e]*\r\n")
_CODED: Final = re.compile(
    rb"220 mx\.example ESMTP\r\n|250[ -](?:mx\.example|indeed\r|[A-Z8][A-Z])|334 [A-Za-z0-9+/]*={0,2}\r\n|354 end"
    rb"|([245])\d\d[ -]\1\.\d{1,3}\.\d{1,3} "
)


class CountingPool(BufferPool):
    """Knows how many buffers are lent."""

    def __init__(self) -> None:
        super().__init__()
        self.lent = 0

    def acquire(self, size: int) -> bytearray:
        """Lend one."""
        self.lent += 1
        return super().acquire(size)

    def release(self, buffer: bytearray) -> None:
        """Take one back."""
        assert len(buffer) in SIZES
        self.lent -= 1
        assert self.lent >= 0
        super().release(buffer)


def replies(output: bytes) -> list[bytes]:
    """The replies that a session has said, each one well formed."""
    found, position = [], 0
    while position < len(output):
        reply = _REPLY.match(output, position)
        assert reply, output[position : position + 100]
        for line in reply[0].splitlines(keepends=True):
            assert len(line) <= MAX_REPLY_LINE
            assert _CODED.match(line), line
        found.append(reply[0])
        position = reply.end()
    return found


def check_state(driver: Driver) -> None:
    """What holds whenever a session waits for its client."""
    session = driver.session
    assert session.pending is None
    assert not session.output
    if session.envelope is None:
        assert session.content is None
    if session.reader is None:
        assert session.copies == 1
    if not session.closing and session.reader is None and session.exchange is None:
        states = session.service.states
        if session.envelope is None:
            assert session.state.name in (session.home.name, states.turned_away.name)
        else:
            assert session.state.name in (states.mail.name, states.rcpt.name, states.chunks.name)
            assert bool(session.envelope.recipients) == (session.state.name != states.mail.name)
            assert (session.content is not None) == (session.state.name == states.chunks.name)


def check_end(driver: Driver) -> None:
    """What holds at the end; then the client goes away."""
    replies(driver.output)
    check_state(driver)
    session, said = driver.session, driver.output
    if session.closing:
        driver.send(b"NOOP\r\n")
        assert driver.output == said
    session.disconnected()
    assert session.envelope is None
    assert session.content is None
    assert session.reader is None
    assert session.closing


def check_log(driver: Driver, secrets: Sequence[bytes]) -> None:
    """The log of refused commands shows no secret."""
    for line, _ in driver.refusals:
        for secret in secrets:
            assert secret not in line, line
