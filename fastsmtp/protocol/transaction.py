"""The commands of a mail transaction: MAIL, RCPT, DATA, BDAT, RSET (RFC 5321 3.3, RFC 3030)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .chunking import Chunk, ChunkReader, Swallower, parse_chunk
from .content import Content
from .data import DataReader
from .envelope import Message, Recipient, Sender
from .grammar import SIMPLE_OCTETS, SIMPLE_PATH, parse_mailbox, split_path
from .replies import (
    BAD_RECIPIENT,
    BAD_SENDER,
    BINARY_NEEDS_BDAT,
    MAIL_SYNTAX,
    NEED_RCPT,
    NO_CHUNKING,
    NO_VALID_RECIPIENTS,
    RCPT_SYNTAX,
    START_DATA,
    TOO_LARGE,
    TOO_MANY_MESSAGES,
    TOO_MANY_RECIPIENTS,
    Reply,
    SMTPError,
)
from .states import Run

if TYPE_CHECKING:
    from .session import Session

_simple_path: Final = SIMPLE_PATH.fullmatch


def mail(session: Session, argument: bytes) -> None:
    """MAIL (RFC 5321 4.1.1.2)."""
    match = _simple_path(argument, 5) if argument.startswith(b"FROM:") and len(argument) < SIMPLE_OCTETS else None
    if match:
        local, domain, parameters = match.groups()
        sender = Sender(local.decode(), domain.decode().lower())
    else:
        sender, parameters = _read_sender(argument.lstrip(), session)
    if parameters:
        session.offer.read_mail(sender, parameters)
        if sender.auth and session.user is None:
            sender.auth = ""  # RFC 4954 5: from a client that is not trusted it counts as <>
    service = session.service
    if service.mail_refusal:
        raise SMTPError(service.mail_refusal)
    limit = service.limits.max_messages
    if limit and session.transactions >= limit:
        raise SMTPError(TOO_MANY_MESSAGES)
    session.ask("mail", sender)


def rcpt(session: Session, argument: bytes) -> None:
    """RCPT (RFC 5321 4.1.1.3)."""
    try:
        match = _simple_path(argument, 3) if argument.startswith(b"TO:") and len(argument) < SIMPLE_OCTETS else None
        if match:
            local, domain, parameters = match.groups()
            recipient = Recipient(local.decode(), domain.decode().lower())
        else:
            recipient, parameters = _read_recipient(argument.lstrip(), session)
        envelope = session.envelope
        assert envelope is not None
        if parameters:
            session.offer.read_rcpt(recipient, parameters, envelope.sender.smtputf8)
        limit = session.service.limits.max_recipients
        if len(envelope.recipients) >= limit:
            if session.recipients_refused >= limit:  # a flight may bring many; who says still more does not listen
                session.count_junk()
            raise SMTPError(TOO_MANY_RECIPIENTS)
    except SMTPError:
        session.recipients_refused += 1
        raise
    session.ask("rcpt", recipient)


def _read_sender(argument: bytes, session: Session) -> tuple[Sender, bytes]:
    """``FROM:<path>`` of any kind, and the parameters behind it, unread."""
    path, parameters = _split(argument, b"FROM:", MAIL_SYNTAX)
    if not path:
        return Sender("", ""), parameters
    utf8 = session.offer.offers("SMTPUTF8") and b"SMTPUTF8" in parameters.upper().split()
    return Sender(*parse_mailbox(path, utf8, BAD_SENDER)), parameters


def _read_recipient(argument: bytes, session: Session) -> tuple[Recipient, bytes]:
    """``TO:<path>`` of any kind, and the parameters behind it, unread."""
    path, parameters = _split(argument, b"TO:", RCPT_SYNTAX)
    if path.lower() == b"postmaster":  # RFC 5321 4.1.1.3: the one path without a domain
        return Recipient(path.decode("ascii"), ""), parameters
    if not path:  # <> is for senders
        raise SMTPError(BAD_RECIPIENT)
    return Recipient(*parse_mailbox(path, session.transaction.sender.smtputf8, BAD_RECIPIENT)), parameters


def _split(argument: bytes, keyword: bytes, syntax: Reply) -> tuple[bytes, bytes]:
    """What stands between the brackets, and what behind them."""
    parts = split_path(argument[len(keyword) :]) if argument[: len(keyword)].upper() == keyword else None
    if parts is None:
        raise SMTPError(syntax)
    return parts


def rset(session: Session, argument: bytes) -> None:
    """RSET (RFC 5321 4.1.1.5)."""
    session.count_junk()
    session.ask("rset")


# -- DATA -------------------------------------------------------------------------------------------------------------


def data(session: Session, argument: bytes) -> None:
    """DATA (RFC 5321 4.1.1.4): everything behind it is content, also what was read together with it."""
    envelope = session.envelope
    assert envelope is not None
    sender = envelope.sender
    if sender.body == "BINARYMIME":
        raise SMTPError(BINARY_NEEDS_BDAT)
    session.content = content = Content(session.service.space)
    if sender.size:
        content.reserve(sender.size)
    session.say(START_DATA)
    session.read(DataReader(content), _judge, session.lines.take_rest())


def _judge(session: Session, reader: DataReader | ChunkReader) -> None:
    """The content is complete: hand the message over, unless it breaks a rule."""
    content = reader.content
    if broken_rule := content.verdict():
        session.refuse_content(broken_rule)
    else:
        session.ask("data", Message(session.message_id, session.transaction, content.octets(), session))


def data_without_recipients(session: Session, argument: bytes) -> None:
    """DATA when no recipient was accepted (RFC 5321 3.3)."""
    raise SMTPError(NO_VALID_RECIPIENTS if session.recipients_refused else NEED_RCPT)


def lmtp_data_without_recipients(session: Session, argument: bytes) -> None:
    """Likewise in LMTP, which has one code for it (RFC 2033 4.2)."""
    raise SMTPError(NEED_RCPT)


# -- BDAT -------------------------------------------------------------------------------------------------------------


def bdat(session: Session, argument: bytes) -> None:
    """BDAT where a chunk is legal (RFC 3030 2)."""
    chunk = parse_chunk(argument, session.service.limits.max_message_bytes)
    if not session.offer.offers("CHUNKING"):
        _swallow(session, chunk, NO_CHUNKING)
        return
    content = session.content
    if content is None:
        sender = session.transaction.sender
        session.content = content = Content(session.service.space, sender.body == "BINARYMIME")
        content.reserve(max(sender.size or 0, chunk.size))
        session.state = session.service.states.chunks
    if content.arrived + chunk.size > session.service.limits.max_message_bytes:
        if chunk.last:
            session.copies = session.replies_due
        session.finish(session.message_id, TOO_LARGE)
        _swallow(session, chunk, TOO_LARGE)
        return
    reader = ChunkReader(content, chunk)
    session.read(reader, _chunk_ended, session.lines.take(chunk.size))
    if not chunk.size:
        reader.received(0)
        _chunk_ended(session, reader)


def _chunk_ended(session: Session, reader: ChunkReader) -> None:
    if reader.chunk.last:
        _judge(session, reader)
    else:
        session.reader = None
        session.rest()
        session.output.append(b"250 2.0.0 %d octets received\r\n" % reader.chunk.size)


def refuse_bdat(reply: Reply) -> Run:
    """BDAT where no chunk is legal: its octets must be consumed nevertheless."""

    def refuse(session: Session, argument: bytes) -> None:
        _swallow(session, parse_chunk(argument, session.service.limits.max_message_bytes), reply)

    return refuse


def _swallow(session: Session, chunk: Chunk, reply: Reply) -> None:
    """Refuse a chunk, and with it the transaction: no message may be accepted without its first chunk."""
    session.end_transaction()
    swallower = Swallower(chunk.size, reply)
    session.read(swallower, _swallowed, session.lines.take(chunk.size))
    if swallower.done:
        _swallowed(session, swallower)


def _swallowed(session: Session, swallower: Swallower) -> None:
    session.reader = None
    session.rest()
    session.refuse_command(swallower.reply)
