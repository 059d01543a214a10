"""What a client may say, good and bad, for hypothesis: with small limits, so that short dialogues reach them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Final

from hypothesis import strategies as st

from fastsmtp.protocol.limits import Limits

LIMITS: Final = st.builds(
    Limits,
    max_command_octets=st.sampled_from((36, 64)),
    max_line_discard_octets=st.sampled_from((70, 150)),
    max_message_bytes=st.sampled_from((40, 100, 1000)),
    max_header_bytes=st.sampled_from((12, 1000)),
    max_received=st.just(1),
    max_text_line=st.sampled_from((0, 0, 12)),
    max_recipients=st.just(2),
    max_messages=st.sampled_from((0, 2)),
    max_errors=st.sampled_from((3, 20)),
    max_junk_commands=st.sampled_from((2, 20)),
    bare_newline=st.sampled_from(("reject", "normalize", "keep")),
    nul_in_data=st.sampled_from(("reject", "keep")),
)

_COMMANDS: Final = (
    *(b"EHLO a", b"HELO a", b"EHLO", b"HELO reject", b"EHLO [1.2.3.4]"),
    *(b"MAIL FROM:<a@a>", b"MAIL FROM:<>", b"MAIL FROM:<a@a> SIZE=50", b"mail from:<a@a> BODY=7BIT"),
    *(b"MAIL FROM:<reject@a>", b"MAIL FROM:<broken@a>", b"MAIL FROM:<\xc3\xbc@a> SMTPUTF8"),
    *(b"MAIL FROM:a", b"MAIL FROM:<a@a> SIZE=9999", b"MAIL"),
    *(b"RCPT TO:<b@b>", b"RCPT TO:<postmaster>", b"RCPT TO:<reject@b>", b"RCPT TO:<broken@b>", b"RCPT TO:<>"),
    *(b'RCPT TO:<"b>"@b>', b"RCPT TO:<data-reject@b>", b"RCPT TO:<data-broken@b>", b"RCPT TO:<close@b>"),
    *(b"RCPT TO:<@r:b@b>", b"rcpt to: <b@b>", b"DATA", b"data ", b"DATA x", b"RSET", b"RSET x"),
    *(b"NOOP", b"noop x", b"NOOP\t\xff", b"HELP", b"VRFY b", b"VRFY", b"VRFY \xff"),
    *(b"QUIT", b"QUIT x", b"EXPN x", b"AUTH PLAIN", b"STARTTLS", b"LHLO a", b"BDAT 3", b"GET / HTTP/1.1", b"FOO"),
    *(b"", b" "),
)
_CONTENT: Final = (
    *(b"text", b"Subject: x", b"", b"Received: x", b"..", b"...", b".x", b". ", b"\0", b"x" * 11, b"\xff" * 30),
    *(b"QUIT", b".", b"\n.", b".\n", b"\r.", b".\r", b"\r.\r", b"\n.\n", b"\0.", b".\0"),
    *(b"\n", b"\r", b"x\ry", b"x\ny"),
)
_ENDS: Final = (b"\r\n",) * 12 + (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n\n", b"\r\0\n", b"", b"\r\n\r\n")
_END_OF_DATA: Final = b"\r\n.\r\n"

_opening = st.sampled_from(
    (
        b"",
        b"EHLO a\r\n",
        b"HELO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n",
        b"EHLO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n",
        b"EHLO a\nMAIL FROM:<a@a>\nRCPT TO:<b@b>\nDATA\n",
    )
)
_command = st.builds(bytes.__add__, st.sampled_from(_COMMANDS), st.sampled_from(_ENDS))
_overlong = st.builds(
    lambda octet, length, tail, end: octet * length + tail + end,
    st.sampled_from((b"x", b"NOOP", b"\r", b"\0", b" ")),
    st.integers(5, 160),
    st.sampled_from((b"", b"\r", b"\n", b"\rQUIT", b"\x16")),
    st.sampled_from(_ENDS),
)
_message = st.builds(
    lambda lines, end: b"".join(lines) + end,
    st.lists(st.builds(bytes.__add__, st.sampled_from(_CONTENT), st.sampled_from(_ENDS)), max_size=6),
    st.sampled_from((_END_OF_DATA, _END_OF_DATA, b".\r\n", b"\n.\n", b"")),
)
_transaction = st.builds(lambda message: b"MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n" + message, _message)
_noise = st.one_of(st.binary(max_size=8), st.sampled_from((b"\x16\x03\x01", b"\r", b"\n", b"\0")))

DIALOGUES: Final = st.builds(
    lambda opening, pieces: opening + b"".join(pieces),
    _opening,
    st.lists(st.one_of(_command, _command, _message, _transaction, _overlong, _noise), max_size=12),
)
"""All that a client says in a session."""

LENGTHS: Final = st.lists(st.one_of(st.just(1), st.integers(1, 6), st.integers(1, 200)), min_size=1, max_size=12)
"""The lengths of the segments that octets are cut into, over and over."""


def cut(octets: bytes, lengths: Sequence[int]) -> Iterator[bytes]:
    """Segments of these lengths, in turn."""
    for length in cycle(lengths):
        if not octets:
            return
        yield octets[:length]
        octets = octets[length:]
