"""One SMTP or LMTP conversation (RFC 5321, RFC 2033), without any I/O: octets in; questions and reply octets out.

The driver hands in what it read, and sends what gathers in `output`:

    session.greet()                            once, when the client has connected
    session.receive(octets)                    commands; while `reader` is set, content
    session.content_received(length)           content that was put into reader.room(), without a copy
    session.answer(answer)                     to a question whose decider returned PENDING
    session.go_on()                            when the replies have waited for `delay`, and are sent
    session.tls_started(tls)                   when the handshake is done that `starting_tls` asked for

`stopped` says that the session takes no commands now: it waits for an answer (`pending`), for content (`reader`), for
a delay to pass (`delay`), for TLS (`starting_tls`), or for nothing any more (`closing`: the driver closes when the
output is written).

Guarantees: replies come in the order of the commands, one for each; the replies are the same however the octets were
cut; after any refused command, refused message or failed hook the state is what the rules say; a message is handed
over once or not at all; nothing that came behind a reply that closes is executed. Assumes: one thread at a time.

Three modules go with this one: `commands` has the states and what runs in them, `outcomes` what follows from an
answer, and this one what holds them together. Handlers read a session's attributes; methods are for the driver and
for those modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .authentication import without_secrets
from .chunking import ChunkReader, Swallower
from .commands import look_closer
from .content import Content
from .data import DataReader
from .envelope import Endpoint, Envelope
from .events import ACCEPT, CLOSE, PENDING, REJECT, Decider
from .extensions import Offer
from .lines import LineReader
from .outcomes import ACCEPTED, OUTCOMES, SPECIAL, fail
from .replies import OVERLOADED, Reply, SMTPError
from .sasl import Exchange
from .service import Service
from .states import State
from .tls import TLS
from .xclient import XClient

Finished = tuple[str, Envelope, int, Reply | None, float, int]
"""A message that got its verdict, for the log: its id, its envelope, octets of content, the reply (None: accepted with
the default text), when MAIL was accepted by the service's clock, and how many recipients were refused.

A plain tuple: naming its parts costs 0.4 us a message.
"""

Reader = DataReader | ChunkReader | Swallower


class Session:
    """One conversation with one client. Handlers read its attributes; its methods are for the server.

    Attributes:
        id: unique over all workers and machines.
        peer: the client's address; behind a proxy the one that the proxy names.
        local: the address that the client connected to.
        client_name: the argument of the last EHLO, HELO or LHLO; empty before.
        esmtp: whether that was not HELO.
        tls: what was negotiated; None in clear text.
        user: who has logged in; None before.
        xclient: what a trusted proxy has told with XCLIENT, if it did.
        envelope: the transaction at hand, if any.
        messages: how many messages were accepted in this session.
        service: the server's name, limits and offers.
    """

    __slots__ = (
        "_behind", "_errors", "_junk", "_tally", "_then", "_user_data", "auth_failures", "client", "client_name",
        "closing", "content", "copies", "deciders", "delay", "driver", "envelope", "esmtp", "exchange", "finished",
        "home", "id", "last_words", "line", "lines", "local", "may_xclient", "messages", "offer", "output",
        "own_reply", "peer", "pending", "reader", "recipients_refused", "refusals", "said_auth", "said_goodbye",
        "service", "started", "starting_tls", "state", "stopped", "tls", "transactions", "user", "verdicts", "xclient",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        deciders: Mapping[str, Decider],
        driver: object,
        id: str,
        peer: Endpoint,
        local: Endpoint,
        tls: TLS | None = None,
        may_xclient: bool = False,
        client: bytes | None = None,
    ) -> None:
        # per connection: what handlers may know
        self.service = service
        self._tally = service.tally
        self.id = id
        self.peer = peer
        self.local = local
        self.tls = tls
        self.client_name = ""
        self.esmtp = False
        self.user: str | None = None
        self.xclient: XClient | None = None
        self.messages = 0
        self._user_data: dict[str, object] | None = None
        # per connection: the machine
        self.deciders = deciders  # for each question that somebody decides
        self.driver = driver  # for the deciders; the session does not look at it
        self.client = client  # under which the service remembers it
        self.may_xclient = may_xclient  # the client is a proxy that we trust
        self.output: list[bytes] = []  # replies, for the driver to send and clear
        self.finished: list[Finished] = []  # for the log; the driver clears it
        self.refusals: list[tuple[bytes, Reply]] = []  # command lines that were refused, likewise
        self.pending: tuple[str, Any] | None = None  # the question that waits for its answer: hook, subject
        self.delay = 0.0  # seconds for which the output is to wait
        self.starting_tls = False  # the handshake comes next
        self.closing = False
        self.stopped = False
        self.said_goodbye = False  # the client said QUIT
        self.last_words: Reply | None = None  # what we said, if it was us who ended the session
        self.lines = LineReader(service.line_rules)
        self.line = b""  # the command at hand
        self.state: State = service.states.turned_away  # until the banner
        self.home: State = self.state  # the state between two transactions
        self.offer: Offer = service.no_offer
        self.exchange: Exchange | None = None  # AUTH is under way
        self.auth_failures = 0
        self.said_auth = False  # what is no command may be its response, also when it was refused
        self._errors = self._junk = 0  # since the last accepted message
        self.transactions = 0
        # per transaction
        self.envelope: Envelope | None = None
        self.content: Content | None = None  # of the message at hand
        self.reader: Reader | None = None  # while what comes is content, not commands
        self._then: Callable[[Session, Any], None]  # what is to be done when the reader is
        self._behind: bytes | None = None  # what the flight with DATA or BDAT brought behind it
        self.recipients_refused = 0
        self.own_reply: Reply | None = None  # the data hook's own, while the store works
        self.verdicts: list[Reply | None] | None = None  # the data hook's, if there is one for each recipient
        self.copies = 1  # how often the next refusal is said
        self.started = 0.0

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
        """The protocol as a Received field names it (RFC 3848, RFC 6531 4.3): SMTP, ESMTPSA, UTF8LMTPS, ..."""
        return self.protocol_of(self.envelope)

    def protocol_of(self, envelope: Envelope | None) -> str:
        """Likewise, for a transaction that may be over."""
        if not self.esmtp:
            return "SMTP"
        if self.tls is None and self.user is None and not self.service.policy.lmtp:
            name = "ESMTP"
        else:
            name = "LMTP" if self.service.policy.lmtp else "ESMTP"
            name = f"{name}{'S' if self.tls else ''}{'A' if self.user is not None else ''}"
        if envelope and envelope.sender.smtputf8:
            return "UTF8" + name.removeprefix("E")
        return name

    @property
    def is_lmtp(self) -> bool:
        """Whether each recipient of a message gets a reply of its own (RFC 2033 4.2)."""
        return self.service.policy.lmtp

    # -- for the driver -----------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """The client has connected: say the banner."""
        self.ask("welcome")
        self._work()

    def receive(self, octets: bytes) -> None:
        """Take octets, commands or content, unless an answer is pending."""
        if self.reader is None:
            self.lines.feed(octets)
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
        hook, subject = self.pending
        self.stop_waiting()
        self._conclude(hook, answer, subject)
        self._work()

    def go_on(self) -> None:
        """The delay has passed, and the output is sent."""
        self.delay = 0.0
        self.rest()
        self._work()

    def tls_started(self, tls: TLS) -> None:
        """The handshake is done: the session is as new (RFC 3207 4.2)."""
        self.starting_tls = False
        self.tls = tls
        self.forget()
        self.rest()

    def wait(self, hook: str, subject: Any) -> None:
        """A question waits for its answer. A decider says so itself where another thread may have to answer for it."""
        self.pending = (hook, subject)
        self.stopped = True

    def stop_waiting(self) -> None:
        """The answer is there."""
        self.pending = None
        self.rest()

    def overloaded_reply(self) -> Reply:
        """The answer to a question that nobody has time for: at the banner it ends the session."""
        turned_away = self.service.states.turned_away
        return OVERLOADED if self.state is not turned_away else self.service.replies.too_busy

    def turn_away(self, reply: Reply) -> None:
        """Refuse the client before anything else was said."""
        self.say(reply)

    def time_out(self) -> None:
        """A deadline has passed: say so and close."""
        self.ask("timeout")

    def shut_down(self) -> None:
        """The server goes away, between two commands."""
        self.say(self.service.replies.shutting_down)

    def disconnected(self) -> None:
        """The connection is gone; nothing unfinished is kept."""
        self.end_transaction()
        self.close()
        self.ask("closed")

    @property
    def in_command(self) -> bool:
        """Whether there is input that was not executed."""
        return self.lines.in_line

    # -- the machine --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Execute the commands that are there, until something stops us."""
        while not self.stopped:
            lines = self.lines.lines
            while lines:
                self.line = line = lines.pop()
                verb, _, argument = line.partition(b" ")
                run = self.state.get(verb)
                try:
                    # Hot path: isprintable proves octets free of controls in 0.26 us, a regular expression in 0.35.
                    if run is None or (argument and not argument.decode("latin-1").isprintable()):
                        verb, run, argument = look_closer(self.state, line)
                    self._tally(verb)
                    run(self, argument)
                except SMTPError as error:
                    self.refuse_command(error.reply)
                if self.stopped:
                    break  # type: ignore[unreachable]  # the command has done it
            else:
                if self.lines.tail:
                    if fault := self.lines.judge_tail():
                        self.line = self.lines.tail
                        self.refuse_command(fault)
                    elif self.lines.lines:
                        continue
                return
            if self._behind is not None:  # type: ignore[unreachable]
                octets, self._behind = self._behind, None
                self._receive_content(octets)

    def ask(self, hook: str, subject: Any = None) -> None:
        """Have a question decided. What nobody decides is accepted."""
        decide = self.deciders.get(hook)
        if decide is None or (answer := decide(self, subject)) is None:
            ACCEPTED[hook](self, None, subject)
        else:
            self._conclude(hook, answer, subject)

    def _conclude(self, hook: str, answer: Any, subject: Any) -> None:
        """Do what follows from an answer."""
        accept, refusal, refuse = OUTCOMES[hook]
        if answer is None or answer is ACCEPT:
            accept(self, None, subject)
            return
        if answer is PENDING:
            self.wait(hook, subject)
            return
        if answer is REJECT:
            answer = refusal
        elif answer is CLOSE:
            answer = self.service.replies.closing
        if isinstance(answer, Reply):
            (accept if answer.code < 300 else refuse)(self, answer, subject)
        else:
            follow: Callable[..., None] = SPECIAL.get(type(answer), fail)
            follow(self, hook, answer, subject)

    def rest(self) -> None:
        """One reason to stop is gone: see whether there is another."""
        self.stopped = bool(self.closing or self.reader or self.pending or self.delay or self.starting_tls)

    def close(self) -> None:
        """The session is over when the output is sent."""
        self.closing = self.stopped = True

    def say(self, reply: Reply) -> None:
        """Answer the client."""
        self.output.append(reply.encoded)
        if not reply.plain:
            self.count(reply)

    def count(self, reply: Reply) -> None:
        """A reply has consequences: it closes, or it was an error."""
        limits = self.service.limits
        if reply.close:
            self.last_words = reply
            self.close()
            return
        self._errors += 1
        if self._errors >= limits.error_delay_after:
            self.hold_back(limits.error_delay)
        if self._errors >= limits.max_errors:
            self.say(self.service.replies.too_many_errors)

    def hold_back(self, seconds: float) -> None:
        """The replies so far are to be sent later, and nothing is executed meanwhile."""
        if seconds > 0:
            self.delay = max(self.delay, seconds)
            self.stopped = True

    def refuse(self, reply: Reply) -> None:
        """Refuse the command at hand."""
        if reply.code >= 400:  # an error hook may have made it an acceptance
            self.refusals.append((self.line, reply))
        self.say(reply)

    def refuse_command(self, reply: Reply) -> None:
        """The protocol refuses the command at hand, which the handler may want to know."""
        self.line = without_secrets(self, reply)
        self.ask("error", reply)

    def count_junk(self) -> None:
        """Count a command that brings no mail nearer."""
        self._junk += 1
        if self._junk > self.service.limits.max_junk_commands:
            raise SMTPError(self.service.replies.too_many_junk)

    # -- between two transactions -------------------------------------------------------------------------------------

    def named(self, name: str, esmtp: bool) -> None:
        """The client has said who it is, which also ends a transaction (RFC 5321 4.1.4)."""
        self.end_transaction()
        self.client_name = name
        self.esmtp = esmtp
        self.offer = self.service.offer_to(self) if esmtp else self.service.no_offer
        self.find_home()

    def find_home(self) -> None:
        """Which commands are legal between two transactions: TLS, login or name may have changed."""
        self.home = self.state = self.service.home_of(self)

    def forget(self) -> None:
        """Start anew, for a client of whom nothing is known (RFC 3207 4.2; XCLIENT). Counts of errors stay."""
        self.end_transaction()
        self.client_name = ""
        self.esmtp = False
        self.user = None
        self.offer = self.service.no_offer
        self.find_home()

    def message_accepted(self) -> None:
        """A message was: the client is no nuisance."""
        self.messages += 1
        self._errors = self._junk = 0

    # -- content ------------------------------------------------------------------------------------------------------

    def read(self, reader: Reader, then: Callable[[Session, Any], None], behind: bytes) -> None:
        """What comes next is no command: until the reader is done everything goes to it.

        Args:
            reader: takes the octets.
            then: what is to be done with the reader when it is done.
            behind: octets that are there already.
        """
        self.reader = reader
        self._then = then
        self._behind = behind or None
        self.stopped = True

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
            self.refuse_content(error.reply)
            return
        if reader.done:
            if surplus or behind:
                self.lines.feed(surplus + behind)
            self._then(self, reader)

    @property
    def transaction(self) -> Envelope:
        """The envelope, in the states that have one. Hot paths assert that themselves, and save the call."""
        assert self.envelope is not None
        return self.envelope

    @property
    def message_id(self) -> str:
        """Of the message at hand."""
        return f"{self.id}.{self.transactions}"

    @property
    def replies_due(self) -> int:
        """How many replies the message at hand gets: LMTP has one for each accepted recipient (RFC 2033 4.2)."""
        return len(self.transaction.recipients) if self.service.policy.lmtp else 1

    def refuse_content(self, broken_rule: Reply) -> None:
        """The content breaks a rule, which the handler may want to know."""
        self.copies = self.replies_due
        self.finish(self.message_id, broken_rule)
        self.refuse_command(broken_rule)

    def finish(self, message_id: str, reply: Reply | None) -> None:
        """The message got its verdict: whatever it was, the transaction is over (RFC 5321 4.1.1.4)."""
        if self.envelope and self.content:
            size = max(self.content.size, 0)
            self.finished.append((message_id, self.envelope, size, reply, self.started, self.recipients_refused))
        self.end_transaction()

    def end_transaction(self) -> None:
        """Forget the transaction, if there is one."""
        if self.content:
            self.content.release()
            self.content = None
        if self.reader:
            self.reader = None
            self.rest()
        if self.envelope:
            self.envelope = None
            self.recipients_refused = 0
            self.verdicts = None
            self.state = self.home
