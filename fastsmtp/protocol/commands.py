"""The commands, and the states in which each one is legal (RFC 5321 3, 4.1.1, 4.1.4; RFC 2033; RFC 3030; RFC 4954).

A state is the table of its commands: what runs there, or the reply that says what is missing. Nothing else decides
what is legal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from .authentication import auth
from .greeting import ehlo, helo, starttls, xclient
from .lines import Fault, LongLine, is_auth
from .replies import (
    ARGUMENT_MISSING,
    AUTH_REQUIRED,
    BAD_UTF8,
    BARE_LF,
    LINE_TOO_LONG,
    NEED_BDAT,
    NEED_EHLO,
    NEED_MAIL,
    NEED_RCPT,
    NESTED_MAIL,
    NO_ARGUMENT_ALLOWED,
    NOT_IMPLEMENTED,
    NOT_SMTP,
    SESSION_REFUSED,
    TLS_REQUIRED,
    UNKNOWN_COMMAND,
    WRONG_PROTOCOL,
    Reply,
    SMTPError,
)
from .states import Run, State, States
from .transaction import (
    bdat,
    data,
    data_without_recipients,
    lmtp_data_without_recipients,
    mail,
    rcpt,
    refuse_bdat,
    rset,
)

if TYPE_CHECKING:
    from .session import Session

# -- reading a line ---------------------------------------------------------------------------------------------------

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_COMMAND: Final = re.compile(rb"([A-Za-z]+)(?:[ \t]+(.*))?", re.S)
_HTTP: Final = frozenset(b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PRI".split())


def look_closer(state: State, line: bytes) -> tuple[bytes, Run, bytes]:
    """Find the command of a line that is not plainly one: lower case, tabs, controls, another protocol.

    Returns:
        The verb (empty where lines are no commands), what runs, and the argument.

    Raises:
        SMTPError: there is none.
    """
    if line[:1] == b"\x16" and not isinstance(line, Fault):  # a TLS ClientHello, also where a response is awaited
        raise SMTPError(NOT_SMTP)
    if state.every_line and b"\n" not in line:
        return b"", state.every_line, line
    if isinstance(line, Fault):
        raise SMTPError(line.reply)
    if b"\n" in line:
        raise SMTPError(BARE_LF)
    if isinstance(line, LongLine) and not is_auth(line):
        raise SMTPError(LINE_TOO_LONG)
    match = _COMMAND.fullmatch(line)
    verb = match[1].upper() if match else b""
    # What stands behind a BDAT is content, also behind one with a control octet in it: it finds that fault itself.
    if not match or (verb != b"BDAT" and _CONTROL.search(line)):
        raise SMTPError(UNKNOWN_COMMAND)
    if verb in _HTTP:  # a browser made to talk to a mail server: what follows would be its header lines
        raise SMTPError(NOT_SMTP)
    run = state.get(verb)
    if run is None:
        raise SMTPError(UNKNOWN_COMMAND)
    return verb, run, match[2] or b""


# -- the small commands -----------------------------------------------------------------------------------------------


def _noop(session: Session, argument: bytes) -> None:
    session.count_junk()
    session.ask("noop", argument.decode("utf-8", "replace"))


def _help(session: Session, argument: bytes) -> None:
    session.count_junk()
    session.ask("help", argument.decode("utf-8", "replace"))


def _vrfy(session: Session, argument: bytes) -> None:
    session.count_junk()
    name = argument.strip()
    if not session.service.policy.vrfy:
        raise SMTPError(NOT_IMPLEMENTED)
    if not name:
        raise SMTPError(ARGUMENT_MISSING)
    try:
        session.ask("vrfy", name.decode("utf-8"))
    except UnicodeDecodeError:
        raise SMTPError(BAD_UTF8) from None


def _expn(session: Session, argument: bytes) -> None:
    session.count_junk()
    raise SMTPError(NOT_IMPLEMENTED if argument.strip() else ARGUMENT_MISSING)


def _quit(session: Session, argument: bytes) -> None:
    no_argument(argument)
    session.end_transaction()
    session.say(session.service.replies.goodbye)
    session.said_goodbye = True
    session.close()


def no_argument(argument: bytes) -> None:
    """A command with an argument that it must not have is not executed (RFC 5321 4.1.1)."""
    if argument and not argument.isspace():
        raise SMTPError(NO_ARGUMENT_ALLOWED)


def _bare(run: Run) -> Run:
    """A command without argument, for which a forbidden argument is the greatest fault."""

    def checked(session: Session, argument: bytes) -> None:
        no_argument(argument)
        run(session, b"")

    return checked


def _no(reply: Reply) -> Run:
    def refuse(session: Session, argument: bytes) -> None:
        raise SMTPError(reply)

    return refuse


# -- the table --------------------------------------------------------------------------------------------------------

_no_ehlo, _no_mail, _nested, _chunked = _no(NEED_EHLO), _no(NEED_MAIL), _no(NESTED_MAIL), _no(NEED_BDAT)
_absent, _wrong = _no(NOT_IMPLEMENTED), _no(WRONG_PROTOCOL)
_data, _starttls, _rset = _bare(data), _bare(starttls), _bare(rset)
_bare_no_ehlo, _bare_no_mail, _bare_chunked = _bare(_no_ehlo), _bare(_no_mail), _bare(_chunked)
_data_no_rcpt = _bare(data_without_recipients)

_Row = tuple[Run, Run, Run, Run, Run]
_TABLE: Final[dict[bytes, _Row]] = {
    # verb          START                    READY                    MAIL                     RCPT        CHUNKS
    b"MAIL":     (_no_ehlo,                mail,                    _nested,                 _nested,    _nested),
    b"RCPT":     (_no_ehlo,                _no_mail,                rcpt,                    rcpt,       _chunked),
    b"DATA":     (_bare_no_ehlo,           _bare_no_mail,           _data_no_rcpt,           _data,      _bare_chunked),
    b"BDAT":     (refuse_bdat(NEED_EHLO),  refuse_bdat(NEED_MAIL),  refuse_bdat(NEED_RCPT),  bdat,       bdat),
    b"RSET":     (_rset,                   _rset,                   _rset,                   _rset,      _rset),
    b"NOOP":     (_noop,                   _noop,                   _noop,                   _noop,      _noop),
    b"HELP":     (_help,                   _help,                   _help,                   _help,      _help),
    b"VRFY":     (_vrfy,                   _vrfy,                   _vrfy,                   _vrfy,      _vrfy),
    b"EXPN":     (_expn,                   _expn,                   _expn,                   _expn,      _expn),
    b"QUIT":     (_quit,                   _quit,                   _quit,                   _quit,      _quit),
    b"AUTH":     (_no_ehlo,                auth,                    auth,                    auth,       auth),
    b"STARTTLS": (_bare_no_ehlo,           _starttls,               _starttls,               _starttls,  _starttls),
    b"XCLIENT":  (xclient,                 xclient,                 xclient,                 xclient,    xclient),
    b"ETRN":     (_absent,                 _absent,                 _absent,                 _absent,    _absent),
    b"TURN":     (_absent,                 _absent,                 _absent,                 _absent,    _absent),
    b"SEND":     (_absent,                 _absent,                 _absent,                 _absent,    _absent),
    b"SOML":     (_absent,                 _absent,                 _absent,                 _absent,    _absent),
    b"SAML":     (_absent,                 _absent,                 _absent,                 _absent,    _absent),
}  # fmt: skip

_SMTP_ROWS: Final[dict[bytes, _Row]] = {
    b"EHLO": (ehlo,) * 5,
    b"HELO": (helo,) * 5,
    b"LHLO": (_wrong,) * 5,
}
# RFC 2033 4.1: LHLO replaces both; 4.2: DATA without a valid recipient is out of order.
_LMTP_ROWS: Final[dict[bytes, _Row]] = {
    b"EHLO": (_wrong,) * 5,
    b"HELO": (_wrong,) * 5,
    b"LHLO": (ehlo,) * 5,
    b"DATA": (*_TABLE[b"DATA"][:2], _bare(lmtp_data_without_recipients), *_TABLE[b"DATA"][3:]),
}


def _demanding(state: State, name: str, verbs: bytes, reply: Reply) -> State:
    """As `state`, where these commands need something first."""
    demanding = State(name)
    demanding.update(state)
    demanding.update({verb: _bare(_no(reply)) if verb == b"DATA" else _no(reply) for verb in verbs.split()})
    if b"BDAT" in verbs:
        demanding[b"BDAT"] = refuse_bdat(reply)
    return demanding


def _states(rows: Mapping[bytes, _Row]) -> States:
    start, ready, mail_, rcpt_, chunks = (State(name) for name in ("START", "READY", "MAIL", "RCPT", "CHUNKS"))
    turned_away = State("TURNED_AWAY")
    for verb, runs in rows.items():
        for state, run in zip((start, ready, mail_, rcpt_, chunks), runs, strict=True):
            state[verb] = run
        turned_away[verb] = _no(SESSION_REFUSED)
    turned_away[b"QUIT"] = _quit
    turned_away[b"BDAT"] = refuse_bdat(SESSION_REFUSED)
    return States(
        turned_away,
        start,
        _demanding(start, "START_IN_CLEAR", b"VRFY", TLS_REQUIRED),
        _demanding(ready, "TLS_FIRST", b"MAIL RCPT DATA BDAT VRFY AUTH", TLS_REQUIRED),
        _demanding(ready, "LOGIN_FIRST", b"MAIL", AUTH_REQUIRED),
        ready,
        mail_,
        rcpt_,
        chunks,
    )


SMTP: Final = _states(_TABLE | _SMTP_ROWS)
LMTP: Final = _states(_TABLE | _LMTP_ROWS)
