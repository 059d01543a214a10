"""AUTH (RFC 4954): the command, and the lines that follow it until somebody is known or refused."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING, Final

from .credentials import Credentials
from .lines import Fault
from .replies import (
    ALREADY_AUTHENTICATED,
    AUTH_CANCELLED,
    AUTH_FAILED,
    AUTH_LINE_TOO_LONG,
    AUTH_NEEDS_TLS,
    AUTH_OK,
    AUTH_SYNTAX,
    AUTH_TEMPORARY,
    BARE_LF,
    LINE_FAR_TOO_LONG,
    LINE_TOO_LONG,
    NESTED_AUTH,
    NOT_IMPLEMENTED,
    UNKNOWN_MECHANISM,
    Reply,
    SMTPError,
)
from .sasl import MECHANISMS, Challenge, Step, begin, decode_base64
from .states import State

if TYPE_CHECKING:
    from .session import Session

_NO_SECRETS: Final = b"AUTH"  # what the log sees of a line that may hold a secret
_LOGIN: Final = re.compile(rb"[^A-Za-z]*AUTH", re.I)  # whoever types it wrongly means it all the same
_MECHANISM: Final = re.compile(rb"AUTH[ \t]+([A-Za-z0-9-]+)(?![^ \t])", re.I)
_VERB: Final = re.compile(rb"[A-Za-z]{1,20}(?=[ \t])")
_BROKEN_LINES: Final = frozenset({LINE_TOO_LONG, AUTH_LINE_TOO_LONG, LINE_FAR_TOO_LONG, BARE_LF})


def auth(session: Session, argument: bytes) -> None:
    """AUTH mechanism [initial-response]."""
    session.line = _without_credentials(session.line)
    session.said_auth = True
    mechanisms = session.service.mechanisms_for(session)
    if not mechanisms:
        raise SMTPError(NOT_IMPLEMENTED)
    if session.user is not None:
        raise SMTPError(ALREADY_AUTHENTICATED)
    if session.envelope:
        raise SMTPError(NESTED_AUTH)
    if session.service.policy.auth_requires_tls and not session.tls:
        raise SMTPError(AUTH_NEEDS_TLS)
    name, *responses = argument.split() or (b"",)
    if not name or len(responses) > 1:
        raise SMTPError(AUTH_SYNTAX)
    mechanism = name.upper().decode("ascii", "replace")
    if mechanism not in mechanisms:
        raise SMTPError(UNKNOWN_MECHANISM)
    if session.auth_failures >= session.service.limits.max_auth_failures:  # the last one was cancelled
        raise SMTPError(session.service.replies.too_many_logins)
    if not session.service.clients.may_try(session.client):
        raise SMTPError(AUTH_TEMPORARY)
    # Bindings only where PLUS is offered: a client that was not offered it rightly says that we have none (RFC 5802 6).
    bindings = session.tls.bindings if session.tls and "SCRAM-SHA-256-PLUS" in mechanisms else {}
    session.exchange = begin(mechanism, session.server_name, bindings)
    session.state = AUTHENTICATING
    _respond(session, _initial(responses[0]) if responses else None)


def without_secrets(session: Session, reply: Reply) -> bytes:
    """As much of a line that is refused as cannot be a secret.

    A client that does not look at replies says its password behind a refused AUTH too, as a command that there is not;
    and what is left of a line that is too long need not be its beginning.
    """
    line = session.line
    if session.exchange:
        return _NO_SECRETS
    if _LOGIN.match(line):
        session.said_auth = True
        return _without_credentials(line)
    if session.said_auth and reply.code in (500, 521):
        return b""
    if reply in _BROKEN_LINES:
        verb = _VERB.match(line)
        return verb[0] if verb else b""
    return line


def _without_credentials(line: bytes) -> bytes:
    match = _MECHANISM.match(line)
    return match[0] if match and match[1].upper().decode("ascii") in MECHANISMS else _NO_SECRETS


def _initial(octets: bytes) -> bytes:
    return b"" if octets == b"=" else octets  # RFC 4954 4: "=" is the empty string


def _read_response(session: Session, line: bytes) -> None:
    """A line that is no command, whatever it says."""
    session.line = _NO_SECRETS
    if isinstance(line, Fault):
        end_exchange(session)
        raise SMTPError(AUTH_LINE_TOO_LONG if line.reply is LINE_TOO_LONG else line.reply)
    if line == b"*":
        end_exchange(session)
        raise SMTPError(AUTH_CANCELLED)
    _respond(session, line)


AUTHENTICATING: Final = State("AUTHENTICATING", _read_response)


def _respond(session: Session, response: bytes | None) -> None:
    """Hand the client's response to the mechanism."""
    assert session.exchange is not None
    try:
        step = session.exchange.respond(None if response is None else decode_base64(response))
    except SMTPError:
        end_exchange(session)
        raise
    take_step(session, step)


def take_step(session: Session, step: Step) -> None:
    """Do what the mechanism wants next."""
    if isinstance(step, Challenge):
        if step.refusal:  # counted here: the client may cancel now, or leave
            _count_failure(session)
        session.output.append(b"334 %b\r\n" % b64encode(step.octets))
    elif isinstance(step, Credentials):
        if step.authzid and not session.service.policy.authzid:  # nobody decides who may act for whom
            assert session.exchange is not None
            take_step(session, session.exchange.decided(False))
        else:
            session.ask("auth", step)
    elif step.accepted:
        _accept(session, step.username)
    else:
        own = session.own_reply
        _reject(session, own if own and own.code >= 500 else AUTH_FAILED)


def _accept(session: Session, username: str) -> None:
    own = session.own_reply
    session.user = username
    session.service.clients.auth_accepted()
    end_exchange(session)
    # Clients look for the code 235 (RFC 4954 6), whatever the handler's own words are.
    session.say(Reply(AUTH_OK.code, own.enhanced, own.text) if own else AUTH_OK)


def _reject(session: Session, reply: Reply) -> None:
    """Wrong: the reply waits, and tells nobody why. Guessing is limited per connection and per client."""
    limits = session.service.limits
    assert session.exchange is not None
    if not session.exchange.refused:
        _count_failure(session)
    end_exchange(session)
    session.hold_back(limits.auth_failure_delay)
    session.refuse(reply)
    if session.auth_failures >= limits.max_auth_failures and not session.closing:
        session.say(session.service.replies.too_many_logins)


def _count_failure(session: Session) -> None:
    session.service.clients.auth_failed(session.client)
    session.auth_failures += 1


def end_exchange(session: Session) -> None:
    """The exchange is over, for good or ill."""
    session.exchange = None
    session.own_reply = None
    session.find_home()
