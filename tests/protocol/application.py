"""The application behind the transcripts: what its hooks decide stands in the addresses.

`decide` is the one set of rules. The handlers run it in a real server, and note each accepted message in the file that
`RECORD` names; `tests.protocol.driver` runs it for a session without a server.
"""

from __future__ import annotations

import json
import os
from typing import Final, NamedTuple

from fastsmtp import (
    CLOSE,
    REJECT,
    Answer,
    AuthAnswer,
    Credentials,
    Handler,
    Mailbox,
    Message,
    Recipient,
    Reply,
    ScramKey,
    Sender,
    Session,
    SMTPError,
)

RECORD: Final = "TRANSCRIPT_RECORD"  # the environment variable with the path of the file
ANSWERING: Final = ("helo", "ehlo", "auth", "mail", "rcpt", "data", "rset", "noop", "vrfy", "help")
"""The hooks that the handlers implement."""


class Delivered(NamedTuple):
    """A message that was handed over and accepted."""

    id: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes


def delivered(message: Message) -> Delivered:
    """What the transcripts say of a message."""
    recipients = tuple(written(recipient) for recipient in message.recipients)
    return Delivered(message.id, written(message.sender), recipients, bytes(message.content))


def written(mailbox: Mailbox) -> str:
    """A mailbox as the handler sees it: without quotes."""
    if mailbox.domain:
        return f"{mailbox.local}@{mailbox.domain}"
    return mailbox.local or "<>"


def decide(hook: str, *arguments: object) -> Answer:
    """What a hook answers.

    Raises:
        RuntimeError: as a handler with a bug would.
        SMTPError: as a handler may.
    """
    subject = arguments[0] if arguments else None
    if hook == "data" and isinstance(subject, Message):
        words = {recipient.local for recipient in subject.recipients if recipient.local.startswith("data-")}
        return _answer(words.pop().removeprefix("data-")) if words else None
    if isinstance(subject, Mailbox):
        return _answer(subject.local)
    return _answer(str(subject).partition(".")[0])


def let_in(credentials: Credentials) -> AuthAnswer:
    """The password of whoever the name does not say something else of is "secret"."""
    if credentials.mechanism.startswith("SCRAM"):
        return ScramKey.of("secret", b"salt", 4096)
    if credentials.token is not None:
        return None if credentials.token == "token" else REJECT
    return _answer(credentials.username) if credentials.verify("secret") else REJECT


def _answer(word: str) -> Answer:
    match word:
        case "reject":
            return REJECT
        case "close":
            return CLOSE
        case "busy":
            return Reply(450, "4.2.1", "mailbox busy")
        case "gone":
            raise SMTPError(Reply(551, "5.1.6", "mailbox moved"))
        case "welcome":
            return Reply(250, "2.1.5", "very welcome\nindeed")
        case "broken":
            raise RuntimeError("secret")
    return None


def _note(message: Message) -> None:
    noted = delivered(message)
    line = json.dumps({**noted._asdict(), "content": noted.content.decode("latin-1")})
    # One write to a file opened for appending: complete before the 250 is sent, which is what the reader waits for.
    with open(os.environ[RECORD], "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def read_note(line: bytes) -> Delivered:
    """What a handler noted."""
    note = json.loads(line)
    return Delivered(note["id"], note["sender"], tuple(note["recipients"]), note["content"].encode("latin-1"))


class AsyncRecorder(Handler):
    """Every hook on the event loop."""

    async def helo(self, session: Session, name: str) -> Answer:
        return decide("helo", name)

    async def ehlo(self, session: Session, name: str) -> Answer:
        return decide("ehlo", name)

    async def auth(self, session: Session, credentials: Credentials) -> AuthAnswer:
        return let_in(credentials)

    async def mail(self, session: Session, sender: Sender) -> Answer:
        return decide("mail", sender)

    async def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        return decide("rcpt", recipient)

    async def data(self, session: Session, message: Message) -> Answer:
        answer = decide("data", message)
        if answer is None:
            _note(message)
        return answer

    async def rset(self, session: Session) -> Answer:
        return decide("rset")

    async def noop(self, session: Session, argument: str) -> Answer:
        return decide("noop", argument)

    async def vrfy(self, session: Session, argument: str) -> Answer:
        return decide("vrfy", argument)

    async def help(self, session: Session, argument: str) -> Answer:
        return decide("help", argument)


class ThreadedRecorder(Handler):
    """Every hook in the thread pool."""

    def helo(self, session: Session, name: str) -> Answer:
        return decide("helo", name)

    def ehlo(self, session: Session, name: str) -> Answer:
        return decide("ehlo", name)

    def auth(self, session: Session, credentials: Credentials) -> AuthAnswer:
        return let_in(credentials)

    def mail(self, session: Session, sender: Sender) -> Answer:
        return decide("mail", sender)

    def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        return decide("rcpt", recipient)

    def data(self, session: Session, message: Message) -> Answer:
        answer = decide("data", message)
        if answer is None:
            _note(message)
        return answer

    def rset(self, session: Session) -> Answer:
        return decide("rset")

    def noop(self, session: Session, argument: str) -> Answer:
        return decide("noop", argument)

    def vrfy(self, session: Session, argument: str) -> Answer:
        return decide("vrfy", argument)

    def help(self, session: Session, argument: str) -> Answer:
        return decide("help", argument)
