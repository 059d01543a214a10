"""One SMTP conversation (RFC 5321), without any I/O: octets in; questions and reply octets out.

The driver feeds what it read and asks for events until there is none; each event is a question that it answers before
it goes on:

    session.receive(octets)                    or, without a copy, while session.reader wants content:
    session.content_received(length)           octets that were put into session.reader.room()
    while (event := session.next_event()):     session.answer(whatever the hook said)
    session.take_output()                      what to send; then close, if session.closing

Guarantees: replies come in the order of the commands, one for each; the replies are the same however the octets were
cut; after any refused command, refused message or failed hook the state is what the rules say; a message is handed
over once or not at all; nothing that came behind a reply that closes is executed. Assumes: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Final, NamedTuple

from .commands import MAIL, RCPT, READY, START, TURNED_AWAY, State, look_closer
from .content import Content
from .data import DataReader
from .envelope import Endpoint, Envelope, Message, Recipient, Sender
from .events import ACCEPT, CLOSE, REJECT, STORE, Answer, Event
from .lines import LineReader
from .replies import (
    CANNOT_VERIFY,
    HELP,
    MAIL_OK,
    OK,
    OVERLOADED,
    RCPT_OK,
    REJECTED,
    REJECTED_ADDRESS,
    START_DATA,
    TEMPORARY_FAILURE,
    Reply,
    SMTPError,
)
from .service import Service


class Finished(NamedTuple):
    """A message that got its verdict; what an operator wants to read in the log."""

    message_id: str
    envelope: Envelope
    size: int  # octets of the content
    reply: Reply | None  # None: accepted with the default text
    started: float  # when MAIL was accepted, by the service's clock
    recipients_refused: int


class Session:
    """One conversation with one client. Handlers read its attributes; its methods are for the driver.

    Attributes:
        id: unique over all workers and machines.
        peer: the client's address.
        local: the address that the client connected to.
        client_name: the argument of the last EHLO or HELO; empty before.
        esmtp: whether that was EHLO.
        envelope: the transaction at hand, if any.
        messages: how many messages were accepted in this session.
        service: the server's name, limits and offers.
    """

    __slots__ = (
        "_errors", "_follow", "_hooks", "_junk", "_lines", "_offer", "_output", "_pending", "_reply", "_state",
        "_started", "_transactions", "_recipients_refused", "_user_data", "client_name", "closing", "envelope",
        "esmtp", "finished", "id", "local", "messages", "peer", "reader", "said_goodbye", "service",
    )  # fmt: skip

    def __init__(self, service: Service, hooks: Container[str], id: str, peer: Endpoint, local: Endpoint) -> None:
        limits = service.limits
        # per connection: what handlers may know
        self.service = service
        self.id = id
        self.peer = peer
        self.local = local
        self.client_name = ""
        self.esmtp = False
        self.messages = 0
        self._user_data: dict[str, object] | None = None
        # per connection: the machine
        self.closing = False  # close when the output is written
        self.said_goodbye = False  # the client said QUIT
        self.finished: list[Finished] = []  # for the log; the driver empties it
        self._hooks = hooks  # the questions that somebody answers
        self._lines = LineReader(limits.max_command_octets, limits.max_line_discard_octets, limits.bare_newline == "normalize")
        self._state: State | None = None  # None: the banner is still to come
        self._offer = service.plain_offer
        self._pending: Event | None = None  # asked, not answered
        self._follow: Event | None = None  # asked by an answer
        self._output: list[bytes] = []
        self._errors = self._junk = 0  # since the last accepted message
        self._transactions = 0
        # per transaction
        self.envelope: Envelope | None = None
        self.reader: DataReader | None = None  # while what comes is content, not commands
        self._recipients_refused = 0
        self._reply: Reply | None = None  # the data hook's own, while the store works
        self._started = 0.0

    # -- for handlers -------------------------------------------------------------------------------------------------

    @property
    def user_data(self) -> dict[str, object]:
        """A dict of the handler's own; it lives as long as the session."""
        if self._user_data is None:
            self._user_data = {}
        return self._user_data

    @property
    def server_name(self) -> str:
        """The server's name, as it stands in the banner."""
        return self.service.hostname

    @property
    def errors(self) -> int:
        """Replies of 5xx since the last accepted message."""
        return self._errors

    @property
    def protocol(self) -> str:
        """The protocol as a Received field names it (RFC 5321 4.4, RFC 6531 4.3)."""
        if self.envelope and self.envelope.sender.smtputf8:
            return "UTF8SMTP"
        return "ESMTP" if self.esmtp else "SMTP"

    # -- for the driver -----------------------------------------------------------------------------------------------

    def receive(self, octets: bytes) -> None:
        """Take octets, commands or content."""
        if self.reader is None or self.reader.done:
            self._lines.feed(octets)
        else:
            self._receive_content(octets)

    def _receive_content(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest and self.reader and not self.reader.done and not self.closing:
            room = self.reader.room()
            length = min(len(room), len(rest))
            room[:length] = rest[:length]
            rest = rest[length:]
            self.content_received(length)
        if rest:
            self._lines.feed(bytes(rest))

    def content_received(self, length: int) -> None:
        """`length` octets were put into `reader.room()`."""
        assert self.reader is not None
        try:
            surplus = self.reader.received(length)
        except SMTPError as error:  # far too large: there is no hope of reading it to its end
            self._refuse_message(error.reply)
            return
        if surplus:
            self._lines.feed(surplus)

    def next_event(self) -> Event | None:
        """Go on until somebody must decide something; None: more input is needed, or the session is over."""
        event: Event | None
        if self._state is None:
            self._state = TURNED_AWAY
            if event := self._ask("welcome"):
                return event
        while not self.closing:
            if self._follow:
                event, self._follow = self._follow, None
                return event
            try:
                if self.reader is None:
                    line = self._lines.next_line()
                    if line is None:
                        return None
                    event = self._execute(line)
                elif self.reader.done:
                    event = self._end_of_data()
                else:
                    return None
            except SMTPError as error:
                event = self._refuse(error.reply)
            if event is not None:
                return event
        return None

    def answer(self, answer: Answer) -> None:
        """Answer the event that `next_event` gave.

        Raises:
            TypeError: this is no answer; the event is still open.
        """
        event = self._pending
        assert event is not None, "nothing was asked"
        accept, refusal, refuse = _OUTCOMES[event.hook]
        if answer is None or answer is ACCEPT:
            self._pending = None
            accept(self, None, *event.arguments)
            return
        if answer is REJECT:
            answer = refusal
        elif answer is CLOSE:
            answer = self.service.replies.closing
        if not isinstance(answer, Reply) or 300 <= answer.code < 400:
            raise TypeError(f"hook {event.hook} returned {answer!r}: must be None, ACCEPT, REJECT, CLOSE or a Reply of 2xx, 4xx, 5xx")
        self._pending = None
        if answer.code < 300:
            accept(self, answer, *event.arguments)
        else:
            refuse(self, answer, *event.arguments)

    def fail(self) -> None:
        """The event's hook raised or did not return in time: 451, and the transaction is over."""
        event, self._pending = self._pending, None
        assert event is not None, "nothing was asked"
        if event.hook in ("error", "timeout", "closed"):
            _OUTCOMES[event.hook][0](self, None, *event.arguments)
        elif event.hook in ("data", STORE):
            self._refuse_message(TEMPORARY_FAILURE)
        else:
            self._say(TEMPORARY_FAILURE)
            self._end_transaction()
            self.closing |= event.hook == "welcome"

    def overloaded(self) -> None:
        """Nobody has time for the event's hook."""
        assert self._pending is not None, "nothing was asked"
        self.answer(self.service.replies.too_busy if self._pending.hook == "welcome" else OVERLOADED)

    def turn_away(self, reply: Reply) -> None:
        """Refuse the client before anything else was said."""
        self._state = TURNED_AWAY
        self._say(reply)

    def time_out(self) -> Event | None:
        """A deadline has passed: say so and close."""
        return self._ask("timeout")

    def shut_down(self) -> None:
        """The server goes away, between two commands."""
        self._say(self.service.replies.shutting_down)

    def disconnected(self) -> Event | None:
        """The connection is gone; nothing unfinished is kept."""
        self._end_transaction()
        self.closing = True
        return self._ask("closed")

    def take_output(self) -> bytes:
        """What to send; it is forgotten here."""
        output = self._output
        octets = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return octets

    @property
    def in_command(self) -> bool:
        """Whether a part of a command line waits for its end."""
        return self._lines.in_line

    # -- the machine --------------------------------------------------------------------------------------------------

    def _execute(self, line: bytes) -> Event | None:
        state = self._state
        assert state is not None
        verb, _, argument = line.partition(b" ")
        run = state.get(verb)
        # Hot path: isprintable proves a line free of controls in 0.1 us, a regular expression in 0.3.
        if run is None or not line.decode("latin-1").isprintable():
            run, argument = look_closer(state, line)
        return run(self, argument)

    def _ask(self, hook: str, *arguments: object) -> Event | None:
        """Ask the driver, if somebody answers that question; else it is accepted."""
        if hook in self._hooks:
            self._pending = event = Event(hook, arguments)
            return event
        _OUTCOMES[hook][0](self, None, *arguments)
        return None

    def _say(self, reply: Reply) -> None:
        self._output.append(reply.encoded)
        if reply.close:
            self.closing = True
        elif reply.code >= 500:
            self._errors += 1
            if self._errors >= self.service.limits.max_errors:
                self._say(self.service.replies.too_many_errors)

    def _refuse(self, reply: Reply) -> Event | None:
        """The protocol refuses a command."""
        return self._ask("error", reply)

    def _count_junk(self) -> None:
        self._junk += 1
        if self._junk > self.service.limits.max_junk_commands:
            raise SMTPError(self.service.replies.too_many_junk)

    def _start_data(self) -> None:
        """Everything behind DATA is content, also what was read together with it."""
        assert self.envelope is not None
        content = Content(self.service.space)
        if self.envelope.sender.size:
            content.reserve(self.envelope.sender.size)
        self.reader = DataReader(content)
        self._say(START_DATA)
        if rest := self._lines.take_rest():
            self._receive_content(rest)

    def _end_of_data(self) -> Event | None:
        assert self.reader is not None and self.envelope is not None
        content = self.reader.content
        if broken_rule := content.verdict():
            self._finish(self._message_id(), broken_rule)
            return self._refuse(broken_rule)
        return self._ask("data", Message(self._message_id(), self.envelope, content.octets(), self))

    def _message_id(self) -> str:
        return f"{self.id}.{self._transactions}"

    def _finish(self, message_id: str, reply: Reply | None) -> None:
        """The message got its verdict: whatever it was, the transaction is over (RFC 5321 4.1.1.4)."""
        if self.envelope and self.reader:
            size = max(self.reader.content.size, 0)
            self.finished.append(
                Finished(message_id, self.envelope, size, reply, self._started, self._recipients_refused)
            )
        self._end_transaction()

    def _end_transaction(self) -> None:
        if self.reader:
            self.reader.content.release()
            self.reader = None
        if self.envelope:
            self.envelope = None
            self._recipients_refused = 0
            self._state = READY

    # -- what answers do ----------------------------------------------------------------------------------------------

    def _welcomed(self, reply: Reply | None) -> None:
        self._state = START
        self._say(reply or self.service.replies.banner)

    def _named_ehlo(self, reply: Reply | None, name: str) -> None:
        self._named(name, True)
        self._say(self.service.ehlo_reply(reply))

    def _named_helo(self, reply: Reply | None, name: str) -> None:
        self._named(name, False)
        self._say(reply or self.service.helo)

    def _named(self, name: str, esmtp: bool) -> None:
        self._end_transaction()
        self._state = READY
        self.client_name = name
        self.esmtp = esmtp
        self._offer = self.service.offer if esmtp else self.service.plain_offer

    def _sender_accepted(self, reply: Reply | None, sender: Sender) -> None:
        self.envelope = Envelope(sender)
        self._state = MAIL
        self._transactions += 1
        self._started = self.service.clock()
        self._say(reply or MAIL_OK)

    def _recipient_accepted(self, reply: Reply | None, recipient: Recipient) -> None:
        assert self.envelope is not None
        self.envelope.recipients.append(recipient)
        self._state = RCPT
        self._say(reply or RCPT_OK)

    def _recipient_refused(self, reply: Reply, recipient: Recipient) -> None:
        self._recipients_refused += 1
        self._say(reply)

    def _data_accepted(self, reply: Reply | None, message: Message) -> None:
        if STORE in self._hooks:
            self._reply = reply
            self._follow = self._ask(STORE, message)
        else:
            self._message_accepted(reply, message)

    def _stored(self, reply: Reply | None, message: Message) -> None:
        own, self._reply = self._reply, None
        self._message_accepted(reply or own, message)

    def _message_accepted(self, reply: Reply | None, message: Message) -> None:
        self.messages += 1
        self._errors = self._junk = 0
        self._finish(message.id, reply)
        if reply:
            self._say(reply)
        else:
            self._output.append(b"250 2.0.0 accepted, %b\r\n" % message.id.encode())

    def _message_refused(self, reply: Reply, message: Message) -> None:
        self._refuse_message(reply)

    def _refuse_message(self, reply: Reply) -> None:
        self._finish(self._message_id(), reply)
        self._say(reply)

    def _reset(self, reply: Reply | None) -> None:
        self._end_transaction()
        self._say(reply or OK)

    def _error_reported(self, own: Reply | None, reply: Reply) -> None:
        self._say(own or reply)
        self.closing |= reply.close

    def _timed_out(self, reply: Reply | None) -> None:
        self._end_transaction()
        self._say(reply or self.service.replies.timeout)
        self.closing = True

    def _closed(self, reply: Reply | None) -> None:
        pass

    def _refused(self, reply: Reply, *arguments: object) -> None:
        self._say(reply)

    def _replied(default: Reply) -> Callable[..., None]:  # type: ignore[misc]  # a maker of methods, not a method
        def method(self: Session, reply: Reply | None, argument: str) -> None:
            self._say(reply or default)

        return method

    _noop_done = _replied(OK)
    _help_done = _replied(HELP)
    _vrfy_done = _replied(CANNOT_VERIFY)


# What follows from an answer: what acceptance does, the reply of a REJECT, what a refusal does.
_OUTCOMES: Final[dict[str, tuple[Callable[..., None], Reply, Callable[..., None]]]] = {
    "welcome": (Session._welcomed, REJECTED, Session._refused),
    "helo": (Session._named_helo, REJECTED_ADDRESS, Session._refused),
    "ehlo": (Session._named_ehlo, REJECTED_ADDRESS, Session._refused),
    "mail": (Session._sender_accepted, REJECTED_ADDRESS, Session._refused),
    "rcpt": (Session._recipient_accepted, REJECTED_ADDRESS, Session._recipient_refused),
    "data": (Session._data_accepted, REJECTED, Session._message_refused),
    STORE: (Session._stored, REJECTED, Session._message_refused),
    "rset": (Session._reset, REJECTED, Session._refused),
    "noop": (Session._noop_done, REJECTED, Session._refused),
    "vrfy": (Session._vrfy_done, REJECTED_ADDRESS, Session._refused),
    "help": (Session._help_done, REJECTED, Session._refused),
    "error": (Session._error_reported, REJECTED, Session._error_reported),
    "timeout": (Session._timed_out, REJECTED, Session._timed_out),
    "closed": (Session._closed, REJECTED, Session._refused),
}
