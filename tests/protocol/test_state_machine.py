"""A session against a small model of the rules: one reply for each command, the right one, and the state that it says.

The model knows what the standards say of order, limits and what ends a transaction, in the words of a table; nothing of
how the session does it. Each step is one command, good or bad, cut anywhere.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastsmtp.protocol.extensions import Switches
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.policy import Policy
from tests.protocol.dialogues import cut
from tests.protocol.invariants import check_end, replies
from tests.protocol.situations import Actor, Manner, Situation

MAX_MESSAGE: Final = 60
STEPS: Final = 40
LIMITS: Final = st.builds(
    Limits,
    max_recipients=st.just(3),
    max_errors=st.sampled_from((1000, 6)),
    error_delay_after=st.just(3),
    max_junk_commands=st.sampled_from((1000, 6)),
    max_auth_failures=st.sampled_from((1000, 2)),
    max_messages=st.sampled_from((0, 4)),
    max_message_bytes=st.just(MAX_MESSAGE),
)
POLICIES: Final = st.builds(
    Policy,
    lmtp=st.sampled_from((False, False, True)),
    starttls=st.booleans(),
    require_tls=st.sampled_from((False, False, False, True)),
    require_auth=st.sampled_from((False, False, False, True)),
    auth_requires_tls=st.booleans(),
    vrfy=st.booleans(),
)

SEQUENCE: Final = "503 5.5.1"
SYNTAX: Final = "501 5.5.4"
TOO_LARGE: Final = "552 5.3.4"
OK: Final = "250 2.0.0"
CLOSES: Final = "421 4.7.0"
TLS_FIRST: Final = "530 5.7.0"

# What stands behind MAIL and RCPT, and what becomes of it where the command is in order.
SENDERS: Final = {
    b"<a@a>": "250 2.1.0",
    b"<>": "250 2.1.0",
    b"<reject@a>": "550 5.7.1",
    b"<broken@a>": "451 4.3.0",
    b"a@a": SYNTAX,
    b"<a@>": "501 5.1.7",
    b"<\xc3\xbc@a>": "553 5.6.7",
}
PARAMETERS: Final = {
    b"": None,
    b" BODY=BINARYMIME": None,
    b" SIZE=%d" % MAX_MESSAGE: None,
    b" SIZE=%d" % (MAX_MESSAGE + 1): TOO_LARGE,
    b" SIZE=x": SYNTAX,
    b" FOO=1": "555 5.5.4",
}
RECIPIENTS: Final = {
    b"<b@b>": "250 2.1.5",
    b"<data-reject@b>": "250 2.1.5",
    b"<postmaster>": "250 2.1.5",
    b"<reject@b>": "550 5.7.1",
    b"<busy@b>": "450 4.2.1",
    b"<broken@b>": "451 4.3.0",
    b"<close@b>": CLOSES,
    b"<>": "501 5.1.3",
    b"b": SYNTAX,
    b"<b@b> FOO=1": "555 5.5.4",
}
# Contents, and the rule that each breaks.
CONTENTS: Final = {
    b"": None,
    b"Subject: x\r\n\r\n..\r\n": None,
    b"x\ny\r\n": "550 5.5.2",
    b"x\0\r\n": "554 5.6.0",
    b"x" * MAX_MESSAGE + b"\r\n": TOO_LARGE,
}
FAR_TOO_LARGE: Final = b"x" * (2 * MAX_MESSAGE + 1) + b"\r\n"
LOGINS: Final = {
    b"PLAIN " + b64encode(b"\0tim\0secret"): ["235 2.7.0"],
    b"plain\r\n" + b64encode(b"\0tim\0secret"): ["334", "235 2.7.0"],
    b"LOGIN\r\n" + b64encode(b"tim") + b"\r\n" + b64encode(b"secret"): ["334", "334", "235 2.7.0"],
    b"PLAIN " + b64encode(b"\0tim\0wrong"): ["535 5.7.8"],
    b"PLAIN " + b64encode(b"\0busy\0secret"): ["454 4.7.0"],
    b"PLAIN %": ["501 5.5.2"],
    b"PLAIN\r\n*": ["334", "501 5.7.0"],
    b"PLAIN a b": [SYNTAX],
    b"FOO": ["504 5.5.4"],
    b"": [SYNTAX],
}
# What is no command, or none that can be executed, whatever the state is.
NO_COMMANDS: Final = {
    **dict.fromkeys((b"", b" NOOP", b"FOO", b"NOOP\0", b"MAIL\rx", b"D\xc3\x84TA", b"x" * 3000), "500 5.5.2"),
    **dict.fromkeys((b"ETRN a", b"TURN", b"SEND FROM:<a@a>", b"SOML", b"SAML"), "502 5.5.1"),
    **dict.fromkeys((b"DATA x", b"RSET x", b"QUIT x", b"STARTTLS x"), SYNTAX),
}
BAD_NAMES: Final = (b"", b"a b", b"(", b"[1.2.3]", b"\xc3\xbc")


@dataclass
class Transaction:
    """What the model knows of one."""

    binary: bool
    recipients: list[bytes] = field(default_factory=list)
    refused: int = 0
    chunks: bytes | None = None


def _code(reply: bytes) -> str:
    """Code and enhanced code, as far as there is one."""
    words = reply.decode().replace("-", " ", 1).split()
    return " ".join(words[:2]) if len(words) > 1 and words[1][:2] in ("2.", "4.", "5.") else words[0]


class Conversation(RuleBasedStateMachine):
    """One session."""

    actor: Actor
    limits: Limits
    policy: Policy
    lengths: list[int]
    may_xclient: bool

    def __init__(self) -> None:
        super().__init__()
        self.greeted = self.esmtp = self.tls = self.closed = False
        self.user: str | None = None
        self.transaction: Transaction | None = None
        self.errors = self.junk = self.failures = self.transactions = self.messages = 0
        self.steps = 0

    @initialize(
        limits=LIMITS,
        policy=POLICIES,
        may_xclient=st.booleans(),
        into_room=st.booleans(),
        later=st.booleans(),
        lengths=st.sampled_from(([1], [2, 5], [1000])),
        politely=st.sampled_from((True, True, True, False)),
    )
    def connect(
        self,
        limits: Limits,
        policy: Policy,
        may_xclient: bool,
        into_room: bool,
        later: bool,
        lengths: list[int],
        politely: bool,
    ) -> None:
        self.limits, self.policy, self.may_xclient, self.lengths = limits, policy, may_xclient, lengths
        situation = Situation(limits, Switches(binarymime=True), policy, may_xclient=may_xclient)
        self.actor = Actor(situation, Manner(into_room=into_room, later=(later, False)))
        assert _code(self.actor.output) == "220"
        if politely:
            self.greet_well()

    # -- what every command goes through ------------------------------------------------------------------------------

    def _say(self, octets: bytes, *expected: str, fatal: bool = False) -> None:
        """The client says it; these are the replies, and those that follow from them by the limits.

        Args:
            octets: what the client says.
            expected: the codes of the replies; more than one of 5xx are one error, said to several.
            fatal: the last one closes.
        """
        self.steps += 1
        codes = list(expected)
        self.closed = fatal or codes[-1] == CLOSES or codes[-1].startswith("221")
        if codes[-1][0] == "5" and not fatal:
            self.errors += 1
        if codes[-1] == "535 5.7.8":
            self.failures += 1
        if not self.closed and (
            (codes[-1][0] == "5" and self.errors >= self.limits.max_errors)
            or (codes[-1] == "535 5.7.8" and self.failures >= self.limits.max_auth_failures)
        ):
            codes.append(CLOSES)
            self.closed = True
        said = len(self.actor.output)
        for segment in cut(octets, self.lengths):
            self.actor.send(segment)
        assert [_code(reply) for reply in replies(self.actor.output[said:])] == codes
        assert self.actor.session.closing == self.closed

    def _count_junk(self) -> bool:
        """Whether there is too much of it."""
        self.junk += 1
        return self.junk > self.limits.max_junk_commands

    def _order(self, verb: bytes) -> str | None:
        """The reply to a command that is out of order."""
        transaction = self.transaction
        if not self.greeted:
            return SEQUENCE
        if self.policy.require_tls and not self.tls:
            return TLS_FIRST
        match verb:
            case b"MAIL":
                if transaction is not None:
                    return SEQUENCE
                return "530 5.7.0" if self.policy.require_auth and self.user is None else None
            case b"RCPT":
                return None if transaction and transaction.chunks is None else SEQUENCE
            case b"DATA":
                if transaction and not transaction.recipients and transaction.refused and not self.policy.lmtp:
                    return "554 5.5.1"
                ready = transaction and transaction.recipients and transaction.chunks is None and not transaction.binary
                return None if ready else SEQUENCE
            case b"BDAT":
                return None if transaction and transaction.recipients and self.esmtp else SEQUENCE
        raise AssertionError(verb)

    def _forget(self) -> None:
        self.greeted = self.esmtp = False
        self.user = self.transaction = None

    # -- greeting -----------------------------------------------------------------------------------------------------

    open = precondition(lambda self: not self.closed)
    late = precondition(lambda self: not self.closed and self.steps > STEPS // 2)  # what ends a session

    @open
    @rule(
        verb=st.sampled_from((b"EHLO", b"HELO", b"LHLO", b"ehlo", b"lhlo")),
        name=st.sampled_from((b"c", b"c", b"reject", *BAD_NAMES)),
    )
    def greet(self, verb: bytes, name: bytes) -> None:
        if (verb.upper() == b"LHLO") != self.policy.lmtp:
            self._say(verb + b" a\r\n", "500 5.5.1")
        elif name in BAD_NAMES:
            self._say(verb + b" " + name + b"\r\n", SYNTAX)
        elif self.greeted and self._count_junk():
            self._say(verb + b" a\r\n", CLOSES)
        elif name == b"reject":
            self._say(verb + b" reject\r\n", "550 5.7.1")
        else:
            self.transaction = None
            self.greeted, self.esmtp = True, verb.upper() != b"HELO"
            self._say(verb + b" c\r\n", "250")

    @precondition(lambda self: not self.closed and not self.greeted)
    @rule()
    def greet_well(self) -> None:
        self.greet(b"LHLO" if self.policy.lmtp else b"EHLO", b"c")

    # -- the transaction ----------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.closed and self._order(b"MAIL") is None)
    @rule(parameter=st.sampled_from((b"", b"", b" BODY=BINARYMIME")), recipients=st.integers(0, 4))
    def mail_well(self, parameter: bytes, recipients: int) -> None:
        self.mail(b"<a@a>", parameter if self.esmtp else b"")
        for _ in range(recipients if self.transaction else 0):
            self.rcpt(b"<b@b>")

    @precondition(lambda self: not self.closed and self._order(b"BDAT") is None)
    @rule(last=st.sampled_from((b"", b" LAST")))
    def bdat_well(self, last: bytes) -> None:
        self.bdat(b"Subject: x\r\n\r\n..\r\n", last)

    @open
    @rule(path=st.sampled_from([*SENDERS, *[b"<a@a>"] * 8]), parameter=st.sampled_from([*PARAMETERS, *[b""] * 6]))
    def mail(self, path: bytes, parameter: bytes) -> None:
        verdict, refusal = SENDERS[path], PARAMETERS[parameter]
        if parameter and not self.esmtp:
            refusal = "555 5.5.4"
        if order := self._order(b"MAIL"):
            verdict = order
        elif verdict[:3] in ("501", "553"):
            pass
        elif refusal:
            verdict = refusal
        elif 0 < self.limits.max_messages <= self.transactions:
            verdict = "452 4.5.3"
        elif verdict.startswith("250"):
            self.transaction = Transaction(b"BINARY" in parameter)
            self.transactions += 1
        self._say(b"MAIL FROM:" + path + parameter + b"\r\n", verdict)

    @open
    @rule(path=st.sampled_from([key for key in RECIPIENTS if key != b"<close@b>"]))
    def rcpt(self, path: bytes) -> None:
        verdict = RECIPIENTS[path]
        if order := self._order(b"RCPT"):
            verdict = order
        elif (transaction := self.transaction) is not None:
            if len(transaction.recipients) >= self.limits.max_recipients and verdict[:3] not in ("501", "555"):
                verdict = "452 4.5.3"
            if verdict.startswith("250"):
                transaction.recipients.append(path)
            elif verdict.startswith("451"):
                self.transaction = None
            else:
                transaction.refused += 1
        self._say(b"RCPT TO:" + path + b"\r\n", verdict)

    def _verdicts(self, content: bytes, *, binary: bool = False) -> list[str]:
        """What a complete message gets; the transaction is over."""
        transaction, self.transaction = self.transaction, None
        assert transaction is not None
        copies = len(transaction.recipients) if self.policy.lmtp else 1
        broken = next((reply for text, reply in CONTENTS.items() if reply and text and text in content), None)
        if len(content) > MAX_MESSAGE:
            return [TOO_LARGE] * copies
        if broken and broken != TOO_LARGE and not binary:
            return [broken] * copies
        if b"<data-reject@b>" in transaction.recipients:
            return ["554 5.7.1"] * copies
        self.messages += 1
        self.errors = self.junk = 0
        return [OK] * copies

    @open
    @rule(content=st.sampled_from(list(CONTENTS)))
    def data(self, content: bytes) -> None:
        if order := self._order(b"DATA"):
            self._say(b"DATA\r\n", order)
            return
        self._say(b"data\r\n", "354")
        self._say(content + b".\r\n", *self._verdicts(content))

    @late
    @precondition(lambda self: self.transaction is not None)
    @rule()
    def data_far_too_large(self) -> None:
        if self._order(b"DATA") is None:
            self._say(b"DATA\r\n", "354")
            self._say(FAR_TOO_LARGE, *self._verdicts(FAR_TOO_LARGE), fatal=True)

    @open
    @rule(content=st.sampled_from(list(CONTENTS)), last=st.sampled_from((b"", b" LAST", b" last\t")))
    def bdat(self, content: bytes, last: bytes) -> None:
        octets = b"BDAT %d%b\r\n%b" % (len(content), last, content)
        if order := self._order(b"BDAT"):
            self.transaction = None
            self._say(octets, order)
            return
        transaction = self.transaction
        assert transaction is not None
        transaction.chunks = message = (transaction.chunks or b"") + content
        if len(message) > MAX_MESSAGE and not last:
            self.transaction = None
            self._say(octets, TOO_LARGE)
        elif last:
            self._say(octets, *self._verdicts(message, binary=transaction.binary))
        else:
            self._say(octets, OK)

    @late
    @rule(argument=st.sampled_from((b"", b" x", b" -1", b" 0x1", b" 5 FIRST", b" 12345678901234567890")))
    def bdat_that_cannot_be_counted(self, argument: bytes) -> None:
        self._say(b"BDAT" + argument + b"\r\nQUIT\r\n", "521 5.5.4", fatal=True)

    @late
    @precondition(lambda self: self.transaction is not None)
    @rule()
    def rcpt_that_closes(self) -> None:
        self.rcpt(b"<close@b>")

    @late
    @rule()
    def bdat_far_too_large(self) -> None:
        self._say(b"BDAT %d LAST\r\nQUIT\r\n" % (2 * MAX_MESSAGE + 1), TOO_LARGE, fatal=True)

    @open
    @rule()
    def rset(self) -> None:
        if self._count_junk():
            self._say(b"RSET\r\n", CLOSES)
        else:
            self.transaction = None
            self._say(b"RSET\r\n", OK)

    @precondition(lambda self: not self.closed and self._order(b"DATA") is None)
    @rule(content=st.sampled_from(list(CONTENTS)))
    def data_well(self, content: bytes) -> None:
        self.data(content)

    # -- TLS, logins, proxies -----------------------------------------------------------------------------------------

    @open
    @rule()
    def starttls(self) -> None:
        if not self.greeted or self.tls:
            self._say(b"STARTTLS\r\n", SEQUENCE)
        elif not self.policy.starttls:
            self._say(b"STARTTLS\r\n", "502 5.5.1")
        else:
            self._forget()
            self._say(b"STARTTLS\r\nQUIT\r\nEHLO a\r\nhalf a li", "220 2.0.0")
            self.actor.start_tls()
            self.tls = True

    @open
    @rule(login=st.sampled_from(list(LOGINS)))
    def auth(self, login: bytes) -> None:
        command, *rest = (b"AUTH " + login).split(b"\r\n")
        refusal = None
        if not self.greeted:
            refusal = SEQUENCE
        elif self.policy.require_tls and not self.tls:
            refusal = TLS_FIRST
        elif self.user is not None or self.transaction is not None:
            refusal = SEQUENCE
        elif self.policy.auth_requires_tls and not self.tls:
            refusal = "538 5.7.11"
        if refusal:
            self._say(command + b"\r\n", refusal)
            return
        if LOGINS[login][-1].startswith("235"):
            self.user = "tim"
        self._say(b"\r\n".join([command, *rest, b""]), *LOGINS[login])

    @precondition(lambda self: not self.closed and self.greeted and self.user is None)
    @rule()
    def auth_well(self) -> None:
        self.auth(next(iter(LOGINS)))

    @open
    @rule(argument=st.sampled_from((b"LOGIN=jim", b"ADDR=192.0.2.9", b"LOGIN=x+20y", b"FOO=1", b"ADDR=x", b"")))
    def xclient(self, argument: bytes) -> None:
        verdict = "220"
        if not self.may_xclient:
            verdict = "550 5.7.0"
        elif self.transaction is not None or not self.greeted:
            verdict = SEQUENCE
        elif argument in (b"FOO=1", b"ADDR=x", b""):
            verdict = SYNTAX
        else:
            self._forget()
            self.user = {b"LOGIN=jim": "jim", b"LOGIN=x+20y": "x y"}.get(argument)
        self._say(b"XCLIENT " + argument + b"\r\n", verdict)

    # -- the rest -----------------------------------------------------------------------------------------------------

    @open
    @rule(line=st.sampled_from((b"NOOP", b"noop x", b"HELP", b"VRFY b", b"VRFY", b"EXPN x", b"EXPN")))
    def ask_something(self, line: bytes) -> None:
        verb, _, argument = line.upper().partition(b" ")
        verdict = {b"NOOP": OK, b"HELP": "214 2.0.0", b"VRFY": "252 2.0.0", b"EXPN": "502 5.5.1"}[verb]
        if verb == b"VRFY" and self.policy.require_tls and not self.tls:
            verdict = TLS_FIRST
        elif self._count_junk():
            verdict = CLOSES
        elif verb == b"VRFY" and not self.policy.vrfy:
            verdict = "502 5.5.1"
        elif verb in (b"VRFY", b"EXPN") and not argument:
            verdict = SYNTAX
        self._say(line + b"\r\n", verdict)

    @open
    @rule(line=st.sampled_from(list(NO_COMMANDS)))
    def no_command(self, line: bytes) -> None:
        self._say(line + b"\r\n", NO_COMMANDS[line])

    @late
    @rule(line=st.sampled_from((b"GET / HTTP/1.1\r\nQUIT\r\n", b"\x16\x03\x01", b"NOOP\nQUIT\r\n", b"\n")))
    def not_smtp(self, line: bytes) -> None:
        self._say(line, "521 5.5.2" if b"\x16" not in line and b"GET" not in line else "521 5.5.1", fatal=True)

    @late
    @rule()
    def quit(self) -> None:
        self.transaction = None
        self._say(b"QUIT\r\nNOOP\r\n", "221 2.0.0")

    @precondition(lambda self: self.closed)
    @rule(octets=st.sampled_from((b"NOOP\r\n", b"QUIT\r\n", b"\n", b"MAIL FROM:<a@a>\r\n")))
    def talk_behind_the_close(self, octets: bytes) -> None:
        said = self.actor.output
        self.actor.send(octets)
        assert self.actor.output == said

    @invariant()
    def state_is_the_models(self) -> None:
        session = self.actor.session
        assert session.messages == self.messages
        assert len(self.actor.handed["data"]) >= self.messages
        if self.closed:
            return
        self.actor.check()
        transaction = self.transaction
        assert bool(session.client_name) == self.greeted
        assert session.esmtp == self.esmtp
        assert (session.tls is not None) == self.tls
        assert session.user == self.user
        assert session.errors == self.errors
        assert session.transactions == self.transactions
        assert (session.envelope is not None) == (transaction is not None)
        assert (session.content is not None) == (transaction is not None and transaction.chunks is not None)
        if session.envelope and transaction:
            assert len(session.envelope.recipients) == len(transaction.recipients)

    def teardown(self) -> None:
        if hasattr(self, "actor"):
            check_end(self.actor)
            assert self.actor.pool.lent == 0


TestConversation: Any = Conversation.TestCase
TestConversation.settings = settings(deadline=None, max_examples=300, stateful_step_count=STEPS, derandomize=True)
