"""What follows from an answer: for each question what acceptance does, the reply of a REJECT, what a refusal does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .authentication import end_exchange, take_step
from .credentials import Credentials, ScramKey
from .envelope import Envelope, Message, Recipient, Sender
from .events import CLOSE, REJECT, STORE
from .replies import (
    AUTH_FAILED,
    AUTH_TEMPORARY,
    CANNOT_VERIFY,
    HELP,
    MAIL_OK,
    OK,
    RCPT_OK,
    REJECTED,
    REJECTED_ADDRESS,
    TEMPORARY_FAILURE,
    Reply,
)

if TYPE_CHECKING:
    from .session import Session


def fail(session: Session, hook: str, answer: object, subject: Any) -> None:
    """A hook raised, or did not answer in time: 451, and the transaction is over."""
    if hook in ("error", "timeout", "closed"):
        OUTCOMES[hook].accept(session, None, subject)
    elif hook in ("data", STORE):
        _refuse_message(session, TEMPORARY_FAILURE)
    elif hook == "auth":
        _auth_undecided(session, AUTH_TEMPORARY)
    else:
        session.refuse(TEMPORARY_FAILURE)
        session.end_transaction()
        if hook == "welcome":
            session.last_words = TEMPORARY_FAILURE
            session.close()


# -- greeting ---------------------------------------------------------------------------------------------------------


def _welcomed(session: Session, reply: Reply | None, nothing: None) -> None:
    session.find_home()
    session.say(reply or session.service.replies.banner)


def _named_ehlo(session: Session, reply: Reply | None, name: str) -> None:
    session.named(name, True)
    session.say(session.service.ehlo_reply(session.offer, reply))


def _named_helo(session: Session, reply: Reply | None, name: str) -> None:
    session.named(name, False)
    session.say(reply or session.service.helo)


# -- AUTH -------------------------------------------------------------------------------------------------------------


def _auth_accepted(session: Session, reply: Reply | None, credentials: Credentials) -> None:
    assert session.exchange is not None
    session.own_reply = reply
    take_step(session, session.exchange.decided(True))


def _auth_refused(session: Session, reply: Reply, credentials: Credentials) -> None:
    if reply.code // 100 == 4:
        _auth_undecided(session, reply)
    else:
        assert session.exchange is not None
        session.own_reply = reply
        take_step(session, session.exchange.decided(False))


def _auth_undecided(session: Session, reply: Reply) -> None:
    end_exchange(session)
    session.refuse(reply)


def _auth_keyed(session: Session, hook: str, key: ScramKey, credentials: Credentials) -> None:
    assert session.exchange is not None
    take_step(session, session.exchange.keyed(key))


# -- the transaction --------------------------------------------------------------------------------------------------


def _sender_accepted(session: Session, reply: Reply | None, sender: Sender) -> None:
    session.envelope = Envelope(sender)
    session.state = session.service.states.mail
    session.transactions += 1
    session.started = session.service.clock()
    session.say(reply or MAIL_OK)


def _recipient_accepted(session: Session, reply: Reply | None, recipient: Recipient) -> None:
    envelope = session.envelope
    assert envelope is not None
    envelope.recipients.append(recipient)
    session.state = session.service.states.rcpt
    session.say(reply or RCPT_OK)


def _recipient_refused(session: Session, reply: Reply, recipient: Recipient) -> None:
    session.recipients_refused += 1
    session.refuse(reply)


def _data_accepted(session: Session, reply: Reply | None, message: Message) -> None:
    if STORE in session.deciders:
        session.own_reply = reply
        session.ask(STORE, message)
    else:
        _message_accepted(session, reply, message)


def _judged_for_each(session: Session, hook: str, answers: Sequence[Any], message: Message) -> None:
    if hook == STORE:
        _stored_for_some(session, answers, message)
    else:
        _data_judged(session, answers, message)


def _data_judged(session: Session, answers: Sequence[object], message: Message) -> None:
    """The data hook has an answer for each recipient; the message goes on to those who take it.

    SMTP has one reply for all. The first refusal is it: a message that some recipients refuse is better sent again to
    all than lost for some without a word.
    """
    replies = [_reply_of(session, answer) for answer in answers]
    refusals = [reply for reply in replies if reply and reply.code >= 300]
    if len(refusals) == len(replies) or (refusals and not session.service.policy.lmtp):
        session.verdicts = replies if session.service.policy.lmtp else None
        _refuse_message(session, refusals[0])
        return
    taken = [
        recipient
        for recipient, reply in zip(message.recipients, replies, strict=True)
        if reply is None or reply.code < 300
    ]
    session.verdicts = replies
    session.recipients_refused += len(refusals)
    _data_accepted(session, None, Message(message.id, Envelope(message.sender, taken), message.content, session))


def _reply_of(session: Session, answer: object) -> Reply | None:
    if answer is REJECT:
        return REJECTED_ADDRESS
    if answer is CLOSE:
        return session.service.replies.closing
    return answer if isinstance(answer, Reply) else None


def _stored(session: Session, reply: Reply | None, message: Message) -> None:
    own, session.own_reply = session.own_reply, None
    _message_accepted(session, reply or own, message)


def _stored_for_some(session: Session, answers: Sequence[Reply | None], message: Message) -> None:
    """The store has a refusal, or None, for each recipient of the message that it was given.

    SMTP has one reply for all. It is a temporary refusal if there is one: what is tried again is lost for nobody, while
    a 550 ends it for those, too, who could have had it later.
    """
    refusals = [answer for answer in answers if answer]
    if not session.service.policy.lmtp:
        _refuse_message(session, min(refusals, key=lambda refusal: refusal.code))
        return
    left = iter(answers)
    before = session.verdicts or [None] * session.replies_due
    session.verdicts = [each if each and each.code >= 300 else next(left) or each for each in before]
    if len(refusals) == len(answers):
        _refuse_message(session, refusals[0])
    else:
        session.recipients_refused += len(refusals)
        _stored(session, None, message)


def _message_accepted(session: Session, reply: Reply | None, message: Message) -> None:
    session.message_accepted()
    if session.service.policy.lmtp:
        _answer_for_each(session, reply, message.id)
        return
    session.finish(message.id, reply)
    if reply:
        session.say(reply)
    else:
        session.output.append(b"250 2.0.0 accepted, %b\r\n" % message.id.encode())


def _message_refused(session: Session, reply: Reply, message: Message) -> None:
    _refuse_message(session, reply)


def _refuse_message(session: Session, reply: Reply) -> None:
    if session.service.policy.lmtp:
        _answer_for_each(session, reply, session.message_id)
        return
    session.finish(session.message_id, reply)
    session.say(reply)


def _answer_for_each(session: Session, reply: Reply | None, message_id: str) -> None:
    """LMTP: a reply for each accepted RCPT, in their order (RFC 2033 4.2)."""
    default = reply or Reply(250, "2.0.0", f"accepted, {message_id}")
    verdicts = session.verdicts or [None] * session.replies_due
    session.finish(message_id, reply)
    # What became of the message holds for those who took it; words of their own stand if it became something.
    replies = [verdict if verdict and (verdict.code >= 300 or default.code < 300) else default for verdict in verdicts]
    session.output.extend([each.encoded for each in replies])
    worst = max(replies, key=lambda each: (each.close, each.code))  # one message, one error at most
    taken = any(each.code < 300 for each in replies)
    if worst.close or not (taken or worst.plain):
        session.count(worst)


def _reset(session: Session, reply: Reply | None, nothing: None) -> None:
    session.end_transaction()
    session.say(reply or OK)


# -- the rest ---------------------------------------------------------------------------------------------------------


def _refused(session: Session, reply: Reply, subject: object) -> None:
    session.refuse(reply)


def _error_reported(session: Session, own: Reply | None, reply: Reply) -> None:
    copies, session.copies = session.copies - 1, 1
    session.output.extend([(own or reply).encoded] * copies)
    session.refuse(own or reply)
    if reply.close:
        session.close()


def _timed_out(session: Session, reply: Reply | None, nothing: None) -> None:
    session.end_transaction()
    session.say(reply if reply and reply.code == 421 else session.service.replies.timeout)
    session.close()


def _closed(session: Session, reply: Reply | None, nothing: None) -> None:
    pass


def _noop_done(session: Session, reply: Reply | None, argument: str) -> None:
    session.say(reply or OK)


def _help_done(session: Session, reply: Reply | None, argument: str) -> None:
    session.say(reply or HELP)


def _vrfy_done(session: Session, reply: Reply | None, argument: str) -> None:
    session.say(reply or CANNOT_VERIFY)


class Outcome(NamedTuple):
    """What follows from the answer to one question."""

    accept: Callable[..., None]  # takes the session, the handler's own reply, and the question's subject
    refusal: Reply  # what REJECT says
    refuse: Callable[..., None]


OUTCOMES: Final = {
    "welcome": Outcome(_welcomed, REJECTED, _refused),
    "helo": Outcome(_named_helo, REJECTED_ADDRESS, _refused),
    "ehlo": Outcome(_named_ehlo, REJECTED_ADDRESS, _refused),
    "auth": Outcome(_auth_accepted, AUTH_FAILED, _auth_refused),
    "mail": Outcome(_sender_accepted, REJECTED_ADDRESS, _refused),
    "rcpt": Outcome(_recipient_accepted, REJECTED_ADDRESS, _recipient_refused),
    "data": Outcome(_data_accepted, REJECTED, _message_refused),
    STORE: Outcome(_stored, REJECTED, _message_refused),
    "rset": Outcome(_reset, REJECTED, _refused),
    "noop": Outcome(_noop_done, REJECTED, _refused),
    "vrfy": Outcome(_vrfy_done, REJECTED_ADDRESS, _refused),
    "help": Outcome(_help_done, REJECTED, _refused),
    "error": Outcome(_error_reported, REJECTED, _error_reported),
    "timeout": Outcome(_timed_out, REJECTED, _timed_out),
    "closed": Outcome(_closed, REJECTED, _refused),
}
ACCEPTED: Final = {hook: outcome.accept for hook, outcome in OUTCOMES.items()}
# Answers that are neither verdict nor reply; any other one is a failure.
SPECIAL: Final[dict[type[object], Callable[[Session, str, Any, Any], None]]] = {
    ScramKey: _auth_keyed,
    list: _judged_for_each,
    tuple: _judged_for_each,
}
