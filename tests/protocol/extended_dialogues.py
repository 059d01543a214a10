"""What a client may say with every extension there is, in any situation, for hypothesis."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from fastsmtp.protocol.extensions import Switches
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.policy import Policy
from tests.protocol.dialogues import DIALOGUES, LENGTHS
from tests.protocol.logins import RESPONSES
from tests.protocol.situations import CIRCUMSTANCES, LIMITS, POLICIES, SWITCHES, Manner, Situation


def _each(options: Mapping[str, Sequence[Any]]) -> dict[str, st.SearchStrategy[Any]]:
    return {name: st.sampled_from(values) for name, values in options.items()}


SITUATIONS: Final = st.builds(
    Situation,
    st.builds(Limits, **_each(LIMITS)),
    st.builds(Switches, **_each(SWITCHES)),
    st.builds(Policy, **_each(POLICIES)),
    **_each(CIRCUMSTANCES),
)

_FLAGS: Final = st.lists(st.booleans(), min_size=1, max_size=8).map(tuple)
_NO: Final = st.just((False,))
MANNERS: Final = st.one_of(
    st.just(Manner((1,))),
    st.builds(Manner, LENGTHS.map(tuple), st.booleans(), _NO, _NO),
    st.builds(Manner, LENGTHS.map(tuple), st.booleans(), _FLAGS, _FLAGS),
)

_PARAMETERS_OF_MAIL: Final = (
    *(b"SIZE=50", b"SIZE=99999", b"SIZE=x", b"BODY=8BITMIME", b"BODY=BINARYMIME", b"BODY=x", b"SMTPUTF8", b"AUTH=<>"),
    *(b"AUTH=a+40a", b"AUTH=", b"RET=FULL", b"RET=x", b"ENVID=x+2By", b"ENVID=+00", b"REQUIRETLS", b"REQUIRETLS=1"),
    *(b"BY=120;RT", b"BY=0;R", b"BY=-5;N", b"HOLDFOR=60", b"HOLDFOR=999999999", b"HOLDUNTIL=1970-01-01T12:00:00Z"),
    *(b"HOLDUNTIL=2030-01-01T00:00:00Z", b"MT-PRIORITY=-9", b"MT-PRIORITY=10", b"FOO=1", b"=", b"size=7"),
)
_PARAMETERS_OF_RCPT: Final = (
    *(b"NOTIFY=NEVER", b"NOTIFY=SUCCESS,DELAY", b"NOTIFY=NEVER,DELAY", b"ORCPT=rfc822;b+40b", b"ORCPT=rfc822;+0D"),
    *(b"ORCPT=utf-8;\\x{FC}@b", b"ORCPT=utf-8;\xc3\xbc@b", b"ORCPT=x", b"SMTPUTF8", b"SIZE=5", b"FOO"),
)
_SENDERS: Final = (b"<a@a>", b"<>", b"<\xc3\xbc@a>", b"<reject@a>", b"<broken@a>")
_RECIPIENTS: Final = (
    *(b"<b@b>", b"<c@c>", b"<postmaster>", b"<\xc3\xbc@b>", b"<reject@b>", b"<close@b>", b"<gone@b>", b"<busy@b>"),
    *(b"<data-reject@b>", b"<data-close@b>", b"<data-broken@b>", b"<data-welcome@b>"),
    *(b"<each@b>", b"<each.x@b>", b"<store-reject@b>", b"<store-broken@b>", b"<store-busy@b>"),
)
_OTHERS: Final = (
    *(b"LHLO a", b"LHLO reject", b"EHLO b", b"EHLO welcome", b"HELO c", b"RSET", b"NOOP", b"QUIT", b"VRFY b", b"DATA"),
    *(b"STARTTLS", b"STARTTLS x", b"AUTH", b"AUTH FOO", b"AUTH PLAIN a b", b"AUTH LOGIN\r\n*", b"AUTH PLAIN\r\n\x16"),
    *(b"AUTH PLAIN %", b"AUTH PLAIN " + b"A" * 120, b"AUTH CRAM-MD5\r\n" + b"A" * 120, b"AUTH LOGIN\r\nQUIT\nx"),
    *(b"XCLIENT ADDR=192.0.2.9 PORT=9", b"XCLIENT LOGIN=tim NAME=x", b"XCLIENT NAME=reject", b"XCLIENT NAME=close"),
    *(b"XCLIENT", b"XCLIENT FOO=1", b"XCLIENT ADDR=IPV6:::1 DESTADDR=[UNAVAILABLE] PROTO=SMTP HELO=x", b"ETRN x"),
    *(b"BDAT", b"BDAT x", b"BDAT 99999999", b"BDAT 5 FIRST", b"GET / HTTP/1.1", b"\x16\x03", b"PROXY UNKNOWN"),
)
_TEXT: Final = st.lists(
    st.sampled_from(
        (b"x", b"\r\n", b"\r", b"\n", b".", b"\r\n.\r\n", b"\0", b"QUIT\r\n", b"Received: x\r\n", b"y" * 50)
    ),
    max_size=8,
).map(b"".join)


def _with(verb: bytes, paths: Sequence[bytes], parameters: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    chosen = st.lists(st.sampled_from(parameters), max_size=3)
    return st.builds(lambda path, words: b" ".join([verb + path, *words]) + b"\r\n", st.sampled_from(paths), chosen)


def _chunk(text: bytes, last: bytes, lie: int) -> bytes:
    return b"BDAT %d%b\r\n%b" % (max(0, len(text) + lie), last, text)


def _login(responses: tuple[str, tuple[bytes, ...]], at_once: bool, spoil: int) -> bytes:
    mechanism, messages = responses
    lines = [b64encode(message) for message in messages]
    command = b"AUTH " + mechanism.encode()
    if at_once:
        first, *lines = lines
        command += b" " + (first or b"=")
    if lines and spoil < 3:
        lines[-1] = (b"*", b"=", lines[-1] + b"A")[spoil]
    return b"\r\n".join([command, *lines, b""])


_mail = _with(b"MAIL FROM:", _SENDERS, _PARAMETERS_OF_MAIL)
_rcpt = _with(b"RCPT TO:", _RECIPIENTS, _PARAMETERS_OF_RCPT)
_plain_mail = st.one_of(st.just(b"MAIL FROM:<a@a>\r\n"), _mail)
_plain_rcpt = st.lists(st.one_of(st.just(b"RCPT TO:<b@b>\r\n"), _rcpt), min_size=1, max_size=4).map(b"".join)
_bdat = st.builds(
    _chunk, _TEXT, st.sampled_from((b"", b"", b" LAST", b" last ")), st.sampled_from((0,) * 8 + (-1, 1, 100))
)
_large = st.builds(
    lambda number, last: _chunk(b"0123456789abcdef\r\n" * number, last, 0),
    st.sampled_from((5, 60, 1000, 2300)),
    st.sampled_from((b"", b" LAST")),
)
_data = st.builds(lambda text: b"DATA\r\n" + text + b"\r\n.\r\n", _TEXT)
LOGINS: Final = st.builds(_login, st.sampled_from(RESPONSES), st.booleans(), st.sampled_from((9,) * 8 + (0, 1, 2)))
"""AUTH and what follows it, right and wrong."""

_transaction = st.builds(
    lambda sender, recipients, content: sender + recipients + content,
    _plain_mail,
    _plain_rcpt,
    st.one_of(_data, _bdat, _large, st.lists(_bdat, max_size=4).map(b"".join)),
)
_other = st.sampled_from(_OTHERS).map(lambda line: line + b"\r\n")
_piece = st.one_of(_transaction, _transaction, LOGINS, _bdat, _mail, _rcpt, _data, _other, _other, DIALOGUES)
_greeting = st.sampled_from((b"EHLO a\r\n", b"EHLO a\r\n", b"LHLO a\r\n", b"LHLO a\r\nEHLO a\r\n", b""))
_stage = st.builds(
    lambda greeting, pieces, end: greeting + b"".join(pieces) + end,
    _greeting,
    st.lists(_piece, max_size=5),
    st.sampled_from((b"", b"STARTTLS\r\n", b"STARTTLS\r\nNOOP\r\nEHLO x\r\nhalf a li", b"QUIT\r\nNOOP\r\n")),
)

STAGES: Final = st.lists(_stage, min_size=1, max_size=3)
"""All that a client says in a session; behind each stage TLS begins, if the server asks for it."""
