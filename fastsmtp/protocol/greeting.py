"""The commands that begin a session, or begin it anew: EHLO, HELO and LHLO, STARTTLS, XCLIENT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .envelope import Endpoint
from .grammar import parse_client_name
from .replies import (
    ALREADY_TLS,
    BAD_CLIENT_NAME,
    NEED_EHLO,
    NESTED_MAIL,
    NOT_AUTHORIZED,
    NOT_IMPLEMENTED,
    START_TLS,
    SMTPError,
)
from .xclient import parse_xclient

if TYPE_CHECKING:
    from .session import Session


def ehlo(session: Session, argument: bytes) -> None:
    """EHLO, LHLO (RFC 5321 4.1.1.1, RFC 2033 4.1)."""
    session.ask("ehlo", _client_name(session, argument))


def helo(session: Session, argument: bytes) -> None:
    """HELO (RFC 5321 4.1.1.1)."""
    session.ask("helo", _client_name(session, argument))


def _client_name(session: Session, argument: bytes) -> str:
    name = parse_client_name(argument.strip())
    if name is None:
        raise SMTPError(BAD_CLIENT_NAME)
    if session.client_name:
        session.count_junk()
    return name


def starttls(session: Session, argument: bytes) -> None:
    """STARTTLS (RFC 3207 4). What came behind it in clear text may not be of the client (CVE-2011-0411)."""
    if session.tls:
        raise SMTPError(ALREADY_TLS)
    if not session.service.policy.starttls:
        raise SMTPError(NOT_IMPLEMENTED)
    session.end_transaction()
    session.lines.discard()
    session.say(START_TLS)
    session.starting_tls = session.stopped = True


def xclient(session: Session, argument: bytes) -> None:
    """XCLIENT: a proxy tells for whom it speaks. The session begins anew, and the welcome hook is asked again."""
    if not session.may_xclient:
        raise SMTPError(NOT_AUTHORIZED)
    if session.envelope:
        raise SMTPError(NESTED_MAIL)
    if not session.client_name:
        raise SMTPError(NEED_EHLO)
    told = parse_xclient(argument)
    session.forget()
    if told.address is not None:
        session.peer = Endpoint(told.address, told.port or 0)
        session.client = session.service.clients.key_of(told.address)
    elif told.port is not None:
        session.peer = session.peer._replace(port=told.port)
    if told.destination_address is not None:
        session.local = Endpoint(told.destination_address, told.destination_port or 0)
    elif told.destination_port is not None:
        session.local = session.local._replace(port=told.destination_port)
    session.user = told.login
    session.xclient = told
    session.state = session.service.states.turned_away
    session.ask("welcome")
