r"""Dialogues in the notation of RFC 5321, appendix D, read from files.

    # RFC 5321 4.5.2: a line that starts with a dot loses it     the first line: where the behaviour is demanded
    Settings: max_recipients=100 smtputf8=false                  settings other than the defaults
    After: data                                                  plays transcripts/beginnings/data.txt first
    C: ..a line                                                  the client says this and CR LF
    C+: half a li                                                ... this, and nothing behind it
    C*100: NOOP                                                  ... this a hundred times
    S: 250 2.0.0 accepted, {id}                                  the server's reply, to its last octet
    E: a@a.example                                               the sender as the handler saw it; each further E:
    E: b@b.example                                               line is a recipient
    M: .a line                                                   a line of the content handed over; M+: without CR LF
    T: starts                                                    both sides negotiate TLS
    S: <closes>                                                  the server ends the connection, having said no more

In C and M lines ``\r \n \t \0 \\ \xNN`` are octets and ``{text*N}`` is a repetition. ``{id}`` is the id of the message
that was accepted, ``{same}`` once more that of the last ``{id}``; ``{max_message_bytes}`` is the value of that setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import Final

from fastsmtp.config import Config
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.memory import BufferPool
from fastsmtp.protocol.service import NoMemory, Service
from fastsmtp.server.services import limits_of, make_service
from tests.protocol.application import Delivered

MECHANISMS: Final = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER")
FOLDER: Final = Path(__file__).parent / "transcripts"
_LINE: Final = re.compile(r"([CSMET])(\+?)(?:\*(\d+))?:(?: (.*))?")
_ESCAPE: Final = re.compile(r"\{([^{}]+?)\*(\d+)\}|\\x([0-9A-Fa-f]{2})|\\([rnt0\\])")
_ESCAPED: Final = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
_CLOSES: Final = "<closes>"


class TranscriptError(ValueError):
    """A file is no transcript."""


@dataclass
class Expected:
    """A message that must have been handed over; None is not compared."""

    envelope: list[str] = field(default_factory=list)
    content: bytes | None = None

    def check(self, delivered: Delivered) -> None:
        """Assert that this is the message."""
        if self.content is not None:
            assert delivered.content == self.content
        if self.envelope:
            assert [delivered.sender, *delivered.recipients] == self.envelope


@dataclass
class Turn:
    """What the client says in one go, and the lines that the server answers with, CR LF included.

    `tls`: behind them TLS is negotiated.
    """

    says: bytes = b""
    answers: list[str] = field(default_factory=list)
    tls: bool = False


@dataclass
class Transcript:
    """One dialogue.

    Attributes:
        name: of its file.
        settings: by name, as on the command line; also what `After` named has set.
        turns: the first one has nothing to say: it waits for the banner.
        messages: those that are accepted.
        closes: whether the server ends the connection at the end.
    """

    name: str
    settings: dict[str, str]
    turns: list[Turn]
    messages: list[Expected]
    closes: bool

    @property
    def config(self) -> Config:
        """The settings, as a server has them."""
        return Config.of(**{"hostname": "mx.example", **self.settings})

    @property
    def service(self) -> Service:
        """A service with these settings."""
        return make_service(self.config, BufferPool(), MECHANISMS, NoMemory())

    @property
    def stages(self) -> list[bytes]:
        """All that the client says: before TLS, inside TLS."""
        stages = [b""]
        for turn in self.turns:
            stages[-1] += turn.says
            if turn.tls:
                stages.append(b"")
        return stages

    def expected(self, turns: int, delivered: list[Delivered]) -> bytes:
        """The octets that the server has said behind so many turns, given the messages that it handed over."""
        text, *parts = "".join("".join(turn.answers) for turn in self.turns[:turns]).split("{id}")
        ids = [message.id for message in delivered[: len(parts)]]
        for part, each in zip_longest(parts, ids, fillvalue="{id}"):
            text += each + part.replace("{same}", each)
        return text.encode()

    def check_messages(self, delivered: list[Delivered]) -> None:
        """Assert that these messages were handed over, and no other."""
        assert len(delivered) == len(self.messages)
        for message, expected in zip(delivered, self.messages, strict=True):
            expected.check(message)


def load_all() -> list[Transcript]:
    """Every transcript there is."""
    return [load(path) for path in sorted(FOLDER.glob("*.txt"))]


def load(path: Path) -> Transcript:
    """Read one transcript."""
    return parse(path.read_text("utf-8"), path.stem)


def parse(text: str, name: str) -> Transcript:
    """Read a transcript's text.

    Raises:
        TranscriptError: it is none.
    """
    first, *lines = text.splitlines()
    if not re.match(r"# (RFC \d+ [\dA-Z]|CVE-\d{4}-\d+|standards [A-Z]\b)", first):
        raise TranscriptError(f"{name}: the first line must name its RFC section, CVE or chapter of the standards")
    transcript = Transcript(name, {}, [Turn()], [], False)
    for line in _with_beginnings(lines, transcript.settings):
        _read_line(transcript, line)
    limits = limits_of(transcript.config)
    values = {each.name: getattr(limits, each.name) for each in fields(Limits)}
    for turn in transcript.turns:
        turn.answers = [re.sub(r"\{(max_\w+)\}", lambda match: str(values[match[1]]), line) for line in turn.answers]
    return transcript


def _with_beginnings(lines: list[str], settings: dict[str, str]) -> Iterator[str]:
    """The dialogue's own lines, behind those of the file that it says it comes after."""
    for line in lines:
        keyword, _, value = line.partition(": ")
        if keyword == "Settings":
            settings.update(dict(setting.split("=") for setting in value.split()))
        elif keyword == "After":
            beginning = (FOLDER / "beginnings" / f"{value}.txt").read_text("utf-8")
            yield from _with_beginnings(beginning.splitlines(), settings)
        elif line and not line.startswith("#"):
            yield line


def _read_line(transcript: Transcript, line: str) -> None:
    match = _LINE.fullmatch(line)
    if match is None or (transcript.closes and match[1] in "SC"):
        raise TranscriptError(f"{transcript.name}: {line}")
    who, unended, repeated, text = match[1], match[2], int(match[3] or 1), match[4] or ""
    turn = transcript.turns[-1]
    if who == "S" and text == _CLOSES:
        transcript.closes = True
    elif who == "S":
        turn.answers += [text + "\r\n"] * repeated
        transcript.messages += [Expected() for _ in range(text.count("{id}") * repeated)]
    elif who == "T":
        turn.tls = True
    elif who == "C":
        if turn.answers:
            turn = Turn()
            transcript.turns.append(turn)
        turn.says += _octets(text, unended) * repeated
    elif who == "M":
        message = transcript.messages[-1]
        message.content = (message.content or b"") + _octets(text, unended) * repeated
    else:
        transcript.messages[-1].envelope.append(text)


def _octets(text: str, unended: str) -> bytes:
    return unescape(text) + (b"" if unended else b"\r\n")


def unescape(text: str) -> bytes:
    """The octets that a text stands for."""
    octets, end = b"", 0
    for match in _ESCAPE.finditer(text):
        octets += text[end : match.start()].encode()
        end = match.end()
        repeated, times, code, letter = match.groups()
        if repeated:
            octets += unescape(repeated) * int(times)
        else:
            octets += bytes([int(code, 16)]) if code else _ESCAPED[letter]
    return octets + text[end:].encode()
