"""Sessions in every situation that settings, trust and TLS make, with hooks that decide by the addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Final, NamedTuple

from fastsmtp import TLS, Recipient, Reply
from fastsmtp.protocol.content import ContentSpace
from fastsmtp.protocol.events import HOOKS, STORE
from fastsmtp.protocol.extensions import Switches
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.memory import SIZES
from fastsmtp.protocol.policy import Policy
from fastsmtp.protocol.replies import INSUFFICIENT_STORAGE
from fastsmtp.protocol.sasl import MECHANISMS
from fastsmtp.protocol.service import Service
from tests.protocol.application import ANSWERING, Delivered, decide, delivered
from tests.protocol.dialogues import cut
from tests.protocol.driver import HOSTNAME, Driver
from tests.protocol.fakes import FakeFile
from tests.protocol.invariants import CountingPool, check_end, check_log, check_state
from tests.protocol.logins import BINDINGS, answer_to, predictable

# The first option is the usual one. Limits are small, so that short dialogues reach them.
LIMITS: Final[Mapping[str, Sequence[Any]]] = {
    "max_command_octets": (2048, 36, 64),
    "max_auth_octets": (12288, 40, 100),
    "max_line_discard_octets": (131072, 70, 150),
    "max_message_bytes": (1000, 40, 100, 40000),
    "max_header_bytes": (1000, 12, 262144),
    "max_received": (1,),
    "max_text_line": (0, 12),
    "max_recipients": (3, 100),
    "max_messages": (0, 2),
    "max_errors": (20, 3, 1000),
    "error_delay_after": (10, 2),
    "max_auth_failures": (3, 1, 1000),
    "auth_failure_delay": (1.0, 0.0),
    "max_junk_commands": (20, 2, 1000),
    "bare_newline": ("reject", "normalize", "keep"),
    "nul_in_data": ("reject", "keep"),
}
_ON: Final = (True, True, True, False)
_OFF: Final = (False, True)
SWITCHES: Final[Mapping[str, Sequence[Any]]] = {
    **dict.fromkeys(("pipelining", "size", "eightbitmime", "smtputf8", "limits", "chunking"), _ON),
    **dict.fromkeys(("binarymime", "dsn", "requiretls", "deliverby", "mt_priority"), _OFF),
    "deliverby_min": (0, 60),
    "futurerelease": (0, 86400),
}
POLICIES: Final[Mapping[str, Sequence[Any]]] = {
    "lmtp": (False, False, True),
    "starttls": (True, False),
    "require_tls": (False, False, True),
    "require_auth": (False, False, True),
    "auth_requires_tls": (False, True),
    "mechanisms": (MECHANISMS, ("PLAIN", "LOGIN"), ()),
    "vrfy": (True, False),
    "authzid": (False, True),
}
CIRCUMSTANCES: Final[Mapping[str, Sequence[Any]]] = {
    "hooks": (ANSWERING, (*HOOKS, STORE), (), ("data", STORE), ("auth", "error")),
    "may_xclient": (False, True),
    "encrypted": (False, True),
    "bindings": (BINDINGS, {}),
    "full": (False, False, False, True),
    "attempts": (1000, 1),
}
_SPOILT: Final = Reply(554, "5.7.1", "in our own words")


@dataclass(frozen=True)
class Situation:
    """Settings, and what the client finds.

    Attributes:
        hooks: those that the handler implements.
        may_xclient: the client is trusted with XCLIENT.
        encrypted: the connection has TLS from its beginning.
        bindings: the channel bindings of TLS.
        full: the server has no room for mail.
        attempts: how many failed logins a client may have.
    """

    limits: Limits = field(default_factory=Limits)
    switches: Switches = field(default_factory=Switches)
    policy: Policy = field(default_factory=Policy)
    hooks: tuple[str, ...] = ANSWERING
    may_xclient: bool = False
    encrypted: bool = False
    bindings: Mapping[str, bytes] = field(default_factory=dict)
    full: bool = False
    attempts: int = 1000

    @property
    def tls(self) -> TLS:
        """What a handshake leads to."""
        return TLS("TLSv1.3", "TLS_AES_256_GCM_SHA384", bindings=self.bindings)


class Manner(NamedTuple):
    """How the octets come, and how hooks answer.

    Attributes:
        lengths: of the segments, in turn; none: each stage in one.
        into_room: content is put into the reader's memory.
        later: for each question in turn, whether its hook answers PENDING first.
        waits: for each pending question in turn, whether the answer comes only behind the next octets.
    """

    lengths: tuple[int, ...] = ()
    into_room: bool = False
    later: tuple[bool, ...] = (False,)
    waits: tuple[bool, ...] = (False,)


WHOLE: Final = Manner()


class _Clients:
    """Remembers the failed logins of the one client there is."""

    def __init__(self, attempts: int) -> None:
        self._left = attempts

    def key_of(self, host: str) -> bytes | None:
        return host.encode()

    def may_try(self, client: bytes | None) -> bool:
        return self._left > 0

    def auth_failed(self, client: bytes | None) -> None:
        self._left -= 1

    def auth_accepted(self) -> None:
        pass


class Actor(Driver):
    """A session in a situation; some of its hooks know answers that the transcripts do not need.

    Attributes:
        handed: the messages that were handed to the data hook, and those to the store.
    """

    def __init__(self, situation: Situation, manner: Manner = WHOLE) -> None:
        self.hooks = situation.hooks
        self.handed: dict[str, list[Delivered]] = {"data": [], STORE: []}
        self.pool = CountingPool()
        self.files: list[FakeFile] = []
        space = ContentSpace(situation.limits, self.pool, SIZES[0], self._open_file)
        clients = _Clients(situation.attempts)
        service = Service(HOSTNAME, space, situation.switches, situation.policy, clients)
        if situation.full:
            service.mail_refusal = INSUFFICIENT_STORAGE
        later, waits = cycle(manner.later), cycle(manner.waits)
        super().__init__(
            service=service,
            may_xclient=situation.may_xclient,
            into_room=manner.into_room,
            asks_later=lambda: next(later),
            waits=lambda: next(waits),
            tls=situation.tls if situation.encrypted else None,
        )

    def _open_file(self) -> FakeFile:
        self.files.append(FakeFile())
        return self.files[-1]

    def decide(self, hook: str, subject: Any) -> object:
        """What a hook answers.

        Recipients that begin with "each" get a verdict each; those that begin with "store-" decide for the store.
        """
        match hook:
            case "auth":
                return answer_to(subject)
            case "welcome":
                told = self.session.xclient if hasattr(self, "session") else None
                return decide("welcome", told.name or "") if told else None
            case "error":
                return _SPOILT if subject.code == 555 else None
            case "timeout" | "closed":
                return None
        recipients: Sequence[Recipient] = ()
        if hook in self.handed:
            self.handed[hook].append(delivered(subject))
            recipients = subject.recipients
        if hook == "data" and any(each.local.startswith("each") for each in recipients):
            return [decide("rcpt", each) if "-" not in each.local else None for each in recipients]
        if hook == STORE:
            words = {each.local.removeprefix("store-") for each in recipients if each.local.startswith("store-")}
            return decide("store", min(words)) if words else None
        return decide(hook, subject)

    def check(self) -> None:
        """Assert what must hold whenever the session waits for its client."""
        check_state(self)
        if self.session.content is None:
            assert self.pool.lent == 0
            assert all(file.closed for file in self.files)
        accepted = {message_id for message_id, _, _, reply, _, _ in self.finished if reply is None or reply.code < 300}
        assert len(accepted) == self.session.messages
        for hook, messages in self.handed.items():
            ids = [message.id for message in messages]
            assert len(set(ids)) == len(ids)
            assert hook not in self.hooks or accepted <= set(ids)

    def finish(self, manner: Manner = WHOLE) -> None:
        """Every open question gets its answer; behind that it is as before."""
        self._waits = lambda: False
        super().finish()
        waits = cycle(manner.waits)
        self._waits = lambda: next(waits)


class Outcome(NamedTuple):
    """What became of a dialogue."""

    output: bytes
    handed: dict[str, list[Delivered]]
    delays: list[float]
    refusals: list[Reply]
    finished: list[tuple[str, int, Reply | None, int]]
    facts: tuple[object, ...]


def rehearse(
    situation: Situation, stages: Sequence[bytes], manner: Manner = WHOLE, secrets: Sequence[bytes] = ()
) -> Outcome:
    """Play a dialogue, and see that what must hold does.

    Args:
        situation: the settings, and what the client finds.
        stages: what the client says; behind each of them TLS begins, if the server asks for it.
        manner: how it says it.
        secrets: what no log may show.
    """
    with predictable():
        actor = Actor(situation, manner)
        for stage in stages:
            if actor.session.starting_tls:
                actor.start_tls(situation.tls)
            for octets in cut(stage, manner.lengths) if manner.lengths else (stage,):
                actor.send(octets)
                if not any(manner.waits):
                    actor.check()
            actor.finish(manner)
        actor.check()
        outcome = _outcome(actor)
        check_end(actor)
        check_log(actor, secrets)
        assert actor.pool.lent == 0
    return outcome


def _outcome(actor: Actor) -> Outcome:
    session, envelope = actor.session, actor.session.envelope
    return Outcome(
        actor.output,
        actor.handed,
        actor.delays,
        [reply for _, reply in actor.refusals],
        # Of a message that is given up nobody needs to know how much of it there was.
        [
            (name, 0 if reply and reply.close else size, reply, refused)
            for name, _, size, reply, _, refused in actor.finished
        ],
        (
            session.closing, session.starting_tls, session.tls is None, session.client_name, session.esmtp,
            session.user, session.peer, session.local, session.xclient, session.closing or session.state.name,
            session.protocol,
            session.errors, session.auth_failures, session.messages, session.transactions, session.last_words,
            envelope and (envelope.sender, envelope.recipients), session.content is None,
            session.in_command and not session.closing,
        ),
    )  # fmt: skip
