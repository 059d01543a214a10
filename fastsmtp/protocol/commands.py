"""The commands, and the states in which each one is legal (RFC 5321 3, 4.1.1, 4.1.4).

The second half of `Session`, cut off so that the rules stand together: this is the one other module that uses the
session's underscored members. A state is the table of its commands: what runs there, or the reply that says what is
missing. Nothing else decides what is legal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .envelope import Recipient, Sender
from .grammar import SIMPLE_OCTETS, SIMPLE_PATH, parse_client_name, parse_mailbox, split_path
from .lines import Fault
from .replies import (
    ARGUMENT_MISSING,
    BAD_CLIENT_NAME,
    BAD_RECIPIENT,
    BAD_SENDER,
    BAD_UTF8,
    BARE_LF,
    MAIL_SYNTAX,
    NEED_EHLO,
    NEED_MAIL,
    NEED_RCPT,
    NESTED_MAIL,
    NO_ARGUMENT_ALLOWED,
    NO_VALID_RECIPIENTS,
    NOT_IMPLEMENTED,
    NOT_SMTP,
    RCPT_SYNTAX,
    SESSION_REFUSED,
    TOO_MANY_MESSAGES,
    TOO_MANY_RECIPIENTS,
    UNKNOWN_COMMAND,
    WRONG_PROTOCOL,
    Reply,
    SMTPError,
)

if TYPE_CHECKING:
    from .session import Session

Run = Callable[["Session", bytes], None]
"""Executes a command with its argument, or raises the SMTPError that refuses it."""


class State(dict[bytes, Run]):
    """A state of the session: for each verb, what happens there."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


# -- reading a line ---------------------------------------------------------------------------------------------------

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_COMMAND: Final = re.compile(rb"([A-Za-z]+)(?:[ \t]+(.*))?", re.S)
_HTTP: Final = frozenset(b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PRI".split())


def look_closer(state: State, line: bytes) -> tuple[Run, bytes]:
    """Find the command of a line that is not plainly one: lower case, tabs, controls, another protocol.

    Raises:
        SMTPError: there is none.
    """
    if isinstance(line, Fault):
        raise SMTPError(line.reply)
    if line[:1] == b"\x16":  # a TLS ClientHello
        raise SMTPError(NOT_SMTP)
    if b"\n" in line:
        raise SMTPError(BARE_LF)
    match = _COMMAND.fullmatch(line)
    if not match or _CONTROL.search(line):
        raise SMTPError(UNKNOWN_COMMAND)
    verb = match[1].upper()
    if verb in _HTTP:  # a browser made to talk to a mail server: what follows would be its header lines
        raise SMTPError(NOT_SMTP)
    run = state.get(verb)
    if run is None:
        raise SMTPError(UNKNOWN_COMMAND)
    return run, match[2] or b""


# -- the commands -----------------------------------------------------------------------------------------------------


def _ehlo(session: Session, argument: bytes) -> None:
    session._ask("ehlo", _client_name(session, argument))


def _helo(session: Session, argument: bytes) -> None:
    session._ask("helo", _client_name(session, argument))


def _client_name(session: Session, argument: bytes) -> str:
    name = parse_client_name(argument.strip())
    if name is None:
        raise SMTPError(BAD_CLIENT_NAME)
    if session.client_name:
        session._count_junk()
    return name


def _mail(session: Session, argument: bytes) -> None:
    match = _simple_path(argument, 5) if argument.startswith(b"FROM:") and len(argument) < SIMPLE_OCTETS else None
    if match:
        local, domain, parameters = match.groups()
        sender = Sender(local.decode(), domain.decode().lower())
    else:
        sender, parameters = _read_sender(argument.lstrip(), session)
    if parameters:
        session._offer.read_mail(sender, parameters)
    limit = session.service.limits.max_messages
    if limit and session._transactions >= limit:
        raise SMTPError(TOO_MANY_MESSAGES)
    session._ask("mail", sender)


def _rcpt(session: Session, argument: bytes) -> None:
    try:
        recipient = _recipient(session, argument)
    except SMTPError:
        session._recipients_refused += 1
        raise
    session._ask("rcpt", recipient)


def _recipient(session: Session, argument: bytes) -> Recipient:
    match = _simple_path(argument, 3) if argument.startswith(b"TO:") and len(argument) < SIMPLE_OCTETS else None
    if match:
        local, domain, parameters = match.groups()
        recipient = Recipient(local.decode(), domain.decode().lower())
    else:
        recipient, parameters = _read_recipient(argument.lstrip(), session)
    if parameters:
        session._offer.read_rcpt(recipient, parameters)
    if len(session._transaction.recipients) >= session.service.limits.max_recipients:
        raise SMTPError(TOO_MANY_RECIPIENTS)
    return recipient


_simple_path: Final = SIMPLE_PATH.fullmatch


def _read_sender(argument: bytes, session: Session) -> tuple[Sender, bytes]:
    """``FROM:<path>`` of any kind, and the parameters behind it, unread."""
    path, parameters = _split(argument, b"FROM:", MAIL_SYNTAX)
    if not path:
        return Sender("", ""), parameters
    utf8 = session._offer.offers("SMTPUTF8") and b"SMTPUTF8" in parameters.upper().split()
    return Sender(*parse_mailbox(path, utf8, BAD_SENDER)), parameters


def _read_recipient(argument: bytes, session: Session) -> tuple[Recipient, bytes]:
    """``TO:<path>`` of any kind, and the parameters behind it, unread."""
    path, parameters = _split(argument, b"TO:", RCPT_SYNTAX)
    if path.lower() == b"postmaster":  # RFC 5321 4.1.1.3: the one path without a domain
        return Recipient(path.decode("ascii"), ""), parameters
    if not path:  # <> is for senders
        raise SMTPError(BAD_RECIPIENT)
    return Recipient(*parse_mailbox(path, session._transaction.sender.smtputf8, BAD_RECIPIENT)), parameters


def _split(argument: bytes, keyword: bytes, syntax: Reply) -> tuple[bytes, bytes]:
    """What stands between the brackets, and what behind them."""
    parts = split_path(argument[len(keyword) :]) if argument[: len(keyword)].upper() == keyword else None
    if parts is None:
        raise SMTPError(syntax)
    return parts


def _data(session: Session, argument: bytes) -> None:
    _no_argument(argument)
    session._start_data()


def _data_without_recipients(session: Session, argument: bytes) -> None:
    _no_argument(argument)
    raise SMTPError(NO_VALID_RECIPIENTS if session._recipients_refused else NEED_RCPT)


def _rset(session: Session, argument: bytes) -> None:
    _no_argument(argument)
    session._count_junk()
    session._ask("rset")


def _noop(session: Session, argument: bytes) -> None:
    session._count_junk()
    session._ask("noop", argument.decode("utf-8", "replace"))


def _help(session: Session, argument: bytes) -> None:
    session._count_junk()
    session._ask("help", argument.decode("utf-8", "replace"))


def _vrfy(session: Session, argument: bytes) -> None:
    session._count_junk()
    name = argument.strip()
    if not name:
        raise SMTPError(ARGUMENT_MISSING)
    try:
        session._ask("vrfy", name.decode("utf-8"))
    except UnicodeDecodeError:
        raise SMTPError(BAD_UTF8) from None


def _expn(session: Session, argument: bytes) -> None:
    session._count_junk()
    raise SMTPError(NOT_IMPLEMENTED if argument.strip() else ARGUMENT_MISSING)


def _quit(session: Session, argument: bytes) -> None:
    _no_argument(argument)
    session._end_transaction()
    session._say(session.service.replies.goodbye)
    session.said_goodbye = True
    session._close()


def _no_argument(argument: bytes) -> None:
    """A command with an argument that it must not have is not executed (RFC 5321 4.1.1)."""
    if argument and not argument.isspace():
        raise SMTPError(NO_ARGUMENT_ALLOWED)


def _refuse(reply: Reply) -> Run:
    def run(session: Session, argument: bytes) -> None:
        raise SMTPError(reply)

    return run


def _refuse_bare(reply: Reply) -> Run:
    """As `_refuse`, for a command without argument: a forbidden argument is the greater fault."""

    def run(session: Session, argument: bytes) -> None:
        _no_argument(argument)
        raise SMTPError(reply)

    return run


# -- the table --------------------------------------------------------------------------------------------------------

TURNED_AWAY: Final = State("TURNED_AWAY")  # refused with the banner: the client may only leave (RFC 5321 3.1)
START: Final = State("START")  # before EHLO or HELO
READY: Final = State("READY")  # no transaction
MAIL: Final = State("MAIL")  # a sender, no recipient
RCPT: Final = State("RCPT")  # at least one recipient

_no_ehlo, _no_mail, _nested = _refuse(NEED_EHLO), _refuse(NEED_MAIL), _refuse(NESTED_MAIL)
_no_ehlo_bare, _no_mail_bare = _refuse_bare(NEED_EHLO), _refuse_bare(NEED_MAIL)
_absent, _absent_bare, _wrong = _refuse(NOT_IMPLEMENTED), _refuse_bare(NOT_IMPLEMENTED), _refuse(WRONG_PROTOCOL)

_TABLE: Final[dict[bytes, tuple[Run, Run, Run, Run]]] = {
    # verb          START            READY            MAIL                       RCPT
    b"EHLO":     (_ehlo,           _ehlo,           _ehlo,                     _ehlo),
    b"HELO":     (_helo,           _helo,           _helo,                     _helo),
    b"MAIL":     (_no_ehlo,        _mail,           _nested,                   _nested),
    b"RCPT":     (_no_ehlo,        _no_mail,        _rcpt,                     _rcpt),
    b"DATA":     (_no_ehlo_bare,   _no_mail_bare,   _data_without_recipients,  _data),
    b"RSET":     (_rset,           _rset,           _rset,                     _rset),
    b"NOOP":     (_noop,           _noop,           _noop,                     _noop),
    b"HELP":     (_help,           _help,           _help,                     _help),
    b"VRFY":     (_vrfy,           _vrfy,           _vrfy,                     _vrfy),
    b"EXPN":     (_expn,           _expn,           _expn,                     _expn),
    b"QUIT":     (_quit,           _quit,           _quit,                     _quit),
    b"AUTH":     (_no_ehlo,        _absent,         _absent,                   _absent),
    b"STARTTLS": (_no_ehlo_bare,   _absent_bare,    _absent_bare,              _absent_bare),
    b"ETRN":     (_absent,         _absent,         _absent,                   _absent),
    b"TURN":     (_absent,         _absent,         _absent,                   _absent),
    b"SEND":     (_absent,         _absent,         _absent,                   _absent),
    b"SOML":     (_absent,         _absent,         _absent,                   _absent),
    b"SAML":     (_absent,         _absent,         _absent,                   _absent),
    b"LHLO":     (_wrong,          _wrong,          _wrong,                    _wrong),
}  # fmt: skip

for _verb, _runs in _TABLE.items():
    for _state, _run in zip((START, READY, MAIL, RCPT), _runs, strict=True):
        _state[_verb] = _run
    TURNED_AWAY[_verb] = _quit if _verb == b"QUIT" else _refuse(SESSION_REFUSED)
