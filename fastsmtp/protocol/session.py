"""One SMTP conversation (RFC 5321), without any I/O: octets in; questions and reply octets out.

The driver hands in what it read, and sends what gathers in `output`:

    session.greet()                            once, when the client has connected
    session.receive(octets)                    commands; while `reader` is set, content
    session.content_received(length)           content that was put into reader.room(), without a copy
    session.answer(answer)                     to a question whose decider returned PENDING

`stopped` says that the session takes no commands now: it waits for an answer (`pending`), for content (`reader`), or
for nothing any more (`closing`: the driver closes when the output is written).

Guarantees: replies come in the order of the commands, one for each; the replies are the same however the octets were
cut; after any refused command, refused message or failed hook the state is what the rules say; a message is handed
over once or not at all; nothing that came behind a reply that closes is executed. Assumes: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .commands import MAIL, RCPT, READY, START, TURNED_AWAY, look_closer
from .content import Content
from .data import DataReader
from .envelope import Endpoint, Envelope, Message, Recipient, Sender
from .events import ACCEPT, CLOSE, FAILED, PENDING, REJECT, STORE, Decider
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

Finished = tuple[str, Envelope, int, Reply | None, float, int]
"""A message that got its verdict, for the log: its id, its envelope, octets of content, the reply (None: accepted with
the default text), when MAIL was accepted by the service's clock, and how many recipients were refused.

A plain tuple: naming its parts costs 0.4 us a message.
"""


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
        "_behind_data", "_errors", "_junk", "_lines", "_offer", "_recipients_refused", "_reply", "_started", "_state",
        "_transactions", "_user_data", "client_name", "closing", "deciders", "driver", "envelope", "esmtp", "finished",
        "id", "local", "messages", "output", "peer", "pending", "reader", "said_goodbye", "service", "stopped",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        deciders: Mapping[str, Decider],
        driver: object,
        id: str,
        peer: Endpoint,
        local: Endpoint,
    ) -> None:
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
        self.deciders = deciders  # for each question that somebody decides
        self.driver = driver  # for the deciders; the session does not look at it
        self.output: list[bytes] = []  # replies, for the driver to send and clear
        self.finished: list[Finished] = []  # for the log; the driver clears it
        self.pending: tuple[str, tuple[Any, ...]] | None = None  # the question that waits for its answer
        self.closing = False
        self.stopped = False
        self.said_goodbye = False  # the client said QUIT
        self._lines = LineReader(
            limits.max_command_octets, limits.max_line_discard_octets, limits.bare_newline == "normalize"
        )
        self._state = TURNED_AWAY  # until the banner
        self._offer = service.plain_offer
        self._errors = self._junk = 0  # since the last accepted message
        self._transactions = 0
        # per transaction
        self.envelope: Envelope | None = None
        self.reader: DataReader | None = None  # while what comes is content, not commands
        self._recipients_refused = 0
        self._behind_data = b""  # what the flight with DATA brought behind it
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

    def greet(self) -> None:
        """The client has connected: say the banner."""
        self._ask("welcome")
        self._work()

    def receive(self, octets: bytes) -> None:
        """Take octets, commands or content, unless an answer is pending."""
        if self.reader is None:
            self._lines.feed(octets)
        else:
            self._receive_content(octets)
        self._work()

    def content_received(self, length: int) -> None:
        """`length` octets were put into `reader.room()`."""
        self._take_content(length)
        self._work()

    def answer(self, answer: Any) -> None:
        """Answer the pending question, and go on.

        Args:
            answer: what the hook returned, an `Answer` if the handler is right; or FAILED.
        """
        assert self.pending is not None, "nothing was asked"
        hook, arguments = self.pending
        self.stop_waiting()
        self._conclude(hook, answer, arguments)
        self._work()

    def wait(self, hook: str, arguments: tuple[Any, ...]) -> None:
        """A question waits for its answer. A decider says so itself where another thread may have to answer for it."""
        self.pending = (hook, arguments)
        self.stopped = True

    def stop_waiting(self) -> None:
        """The answer is there."""
        self.pending = None
        self.stopped = self.closing

    def overloaded_reply(self) -> Reply:
        """The answer to a question that nobody has time for: at the banner it ends the session."""
        return OVERLOADED if self._state is not TURNED_AWAY else self.service.replies.too_busy

    def turn_away(self, reply: Reply) -> None:
        """Refuse the client before anything else was said."""
        self._say(reply)

    def time_out(self) -> None:
        """A deadline has passed: say so and close."""
        self._ask("timeout")

    def shut_down(self) -> None:
        """The server goes away, between two commands."""
        self._say(self.service.replies.shutting_down)

    def disconnected(self) -> None:
        """The connection is gone; nothing unfinished is kept."""
        self._end_transaction()
        self._close()
        self._ask("closed")

    @property
    def in_command(self) -> bool:
        """Whether there is input that was not executed."""
        return self._lines.in_line

    # -- the machine --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Execute the commands that are there, until something stops us."""
        while not self.stopped:
            for line in self._lines.lines:
                verb, _, argument = line.partition(b" ")
                run = self._state.get(verb)
                try:
                    # Hot path: isprintable proves a line free of controls in 0.26 us, a regular expression in 0.35.
                    if run is None or not line.decode("latin-1").isprintable():
                        run, argument = look_closer(self._state, line)
                    run(self, argument)
                except SMTPError as error:
                    self._refuse(error.reply)
                if self.stopped:
                    break  # type: ignore[unreachable]  # the command has done it
            else:
                if self._lines.tail and (fault := self._lines.judge_tail()):
                    self._refuse(fault)
                return
            if self._behind_data:  # type: ignore[unreachable]
                octets, self._behind_data = self._behind_data, b""
                self._receive_content(octets)

    def _ask(self, hook: str, *arguments: object) -> None:
        """Have a question decided. What nobody decides is accepted."""
        decide = self.deciders.get(hook)
        if decide is None or (answer := decide(self, arguments)) is None:
            _ACCEPTED[hook](self, None, *arguments)
        else:
            self._conclude(hook, answer, arguments)

    def _conclude(self, hook: str, answer: Any, arguments: tuple[Any, ...]) -> None:
        """Do what follows from an answer."""
        accept, refusal, refuse = _OUTCOMES[hook]
        if answer is None or answer is ACCEPT:
            accept(self, None, *arguments)
            return
        if answer is PENDING:
            self.wait(hook, arguments)
            return
        if answer is REJECT:
            answer = refusal
        elif answer is CLOSE:
            answer = self.service.replies.closing
        if isinstance(answer, Reply):
            (accept if answer.code < 300 else refuse)(self, answer, *arguments)
        else:
            assert answer is FAILED
            self._fail(hook, arguments)

    def _fail(self, hook: str, arguments: tuple[Any, ...]) -> None:
        """A hook raised, or did not answer in time: 451, and the transaction is over."""
        if hook in ("error", "timeout", "closed"):
            _OUTCOMES[hook][0](self, None, *arguments)
        elif hook in ("data", STORE):
            self._refuse_message(TEMPORARY_FAILURE)
        else:
            self._say(TEMPORARY_FAILURE)
            self._end_transaction()
            if hook == "welcome":
                self._close()

    def _close(self) -> None:
        self.closing = self.stopped = True

    def _say(self, reply: Reply) -> None:
        self.output.append(reply.encoded)
        if reply.plain:
            return
        if reply.close:
            self._close()
        else:
            self._errors += 1
            if self._errors >= self.service.limits.max_errors:
                self._say(self.service.replies.too_many_errors)

    def _refuse(self, reply: Reply) -> None:
        """The protocol refuses a command."""
        self._ask("error", reply)

    @property
    def _transaction(self) -> Envelope:
        """The envelope, in the states that have one."""
        assert self.envelope is not None
        return self.envelope

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
        self.stopped = True
        self._say(START_DATA)
        self._behind_data = self._lines.take_rest()

    def _receive_content(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest and (reader := self.reader) and not reader.done:
            room = reader.room()
            length = min(len(room), len(rest))
            room[:length] = rest[:length]
            rest = rest[length:]
            self._take_content(length, rest)

    def _take_content(self, length: int, behind: bytes | memoryview = b"") -> None:
        """`length` octets are in the reader's room; `behind` came behind them, and matters if they hold the end."""
        reader = self.reader
        assert reader is not None
        try:
            surplus = reader.received(length)
        except SMTPError as error:  # far too large: there is no hope of reading it to its end
            self._refuse_message(error.reply)
            return
        if reader.done:
            if surplus or behind:
                self._lines.feed(surplus + behind)
            self._end_of_data(reader.content)

    def _end_of_data(self, content: Content) -> None:
        assert self.envelope is not None
        if broken_rule := content.verdict():
            self._finish(self._message_id(), broken_rule)
            self._refuse(broken_rule)
        else:
            self._ask("data", Message(self._message_id(), self.envelope, content.octets(), self))

    def _message_id(self) -> str:
        return f"{self.id}.{self._transactions}"

    def _finish(self, message_id: str, reply: Reply | None) -> None:
        """The message got its verdict: whatever it was, the transaction is over (RFC 5321 4.1.1.4)."""
        if self.envelope and self.reader:
            size = max(self.reader.content.size, 0)
            self.finished.append((message_id, self.envelope, size, reply, self._started, self._recipients_refused))
        self._end_transaction()

    def _end_transaction(self) -> None:
        if self.reader:
            self.reader.content.release()
            self.reader = None
            self.stopped = self.closing
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
        if STORE in self.deciders:
            self._reply = reply
            self._ask(STORE, message)
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
            self.output.append(b"250 2.0.0 accepted, %b\r\n" % message.id.encode())

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
        if reply.close:
            self._close()

    def _timed_out(self, reply: Reply | None) -> None:
        self._end_transaction()
        self._say(reply if reply and reply.code == 421 else self.service.replies.timeout)
        self._close()

    def _closed(self, reply: Reply | None) -> None:
        pass

    def _refused(self, reply: Reply, *arguments: object) -> None:
        self._say(reply)

    def _noop_done(self, reply: Reply | None, argument: str) -> None:
        self._say(reply or OK)

    def _help_done(self, reply: Reply | None, argument: str) -> None:
        self._say(reply or HELP)

    def _vrfy_done(self, reply: Reply | None, argument: str) -> None:
        self._say(reply or CANNOT_VERIFY)


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
_ACCEPTED: Final = {hook: accept for hook, (accept, _, _) in _OUTCOMES.items()}
