"""One mail transaction with the next hop: MAIL and RCPT, then DATA or BDAT, and an answer for each recipient."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Final

from .dialogue import Dialogue
from .errors import TransferError
from .extensions import Extensions
from .outgoing import Outgoing
from .responses import Response, local_response

_CHUNK_BYTES: Final = 2**20  # of BDAT: each one is in memory, and costs a round trip
# RFC 2920 3.1: more commands are not sent before their answers are read, lest both sides wait for room to write.
_GROUP: Final = 100
_NOT_SAID: Final = local_response(451, "4.4.2", "the next hop has hung up before its answer")


class Transaction:
    """One message on its way over a connection.

    Args:
        dialogue: the connection; in step again afterwards, or closed.
        extensions: what the hop offers.
        lmtp: the hop answers for each recipient (RFC 2033 4.2).
        outgoing: the message.
    """

    def __init__(self, dialogue: Dialogue, extensions: Extensions, lmtp: bool, outgoing: Outgoing) -> None:
        self._dialogue = dialogue
        self._extensions = extensions
        self._lmtp = lmtp
        self._outgoing = outgoing
        self._content_begun = False
        # What is known of each recipient, by its place.
        self._answers: dict[int, Response] = {}

    async def run(self) -> list[Response]:
        """See `Connection.send`."""
        return await self._finish(self._run())

    async def probe(self) -> list[Response]:
        """Only the envelope: what the hop says to the recipients."""
        return await self._finish(self._probe())

    async def _finish(self, work: Coroutine[None, None, None]) -> list[Response]:
        try:
            await work
        except TransferError as error:
            self._dialogue.abort()
            raise TransferError(error.reason, before_content=not self._content_begun) from None
        except BaseException:  # cancelled in the middle: nobody knows where the connection stands
            self._dialogue.abort()
            raise
        return [self._answers[place] for place in range(len(self._outgoing.recipients))]

    async def _run(self) -> None:
        taken = await self._envelope() if self._is_acceptable() else []
        if not taken:
            return
        if self._outgoing.all_or_none and len(taken) < len(self._outgoing.recipients):
            await self._reset()
            return
        finals = await (self._chunks(taken) if "CHUNKING" in self._extensions else self._data(taken))
        self._answers.update(zip(taken, finals, strict=True))

    async def _probe(self) -> None:
        if self._is_acceptable() and await self._envelope():
            await self._reset()

    def _is_acceptable(self) -> bool:
        """Judges the message by what the hop offers, before a word is said of it."""
        recipients = self._outgoing.recipients
        refusal = self._extensions.refusal(self._outgoing)
        for place, recipient in enumerate(recipients):
            answer = refusal or self._extensions.refusal_of(recipient)
            if answer and self._outgoing.all_or_none:
                self._answers = dict.fromkeys(range(len(recipients)), answer)
                return False
            if answer:
                self._answers[place] = answer
        return len(self._answers) < len(recipients)

    # -- the envelope -------------------------------------------------------------------------------------------------

    async def _envelope(self) -> list[int]:
        """MAIL and RCPT; returns the places of the recipients that the hop takes."""
        places = [place for place in range(len(self._outgoing.recipients)) if place not in self._answers]
        mail = self._extensions.mail(self._outgoing)
        commands = [self._extensions.rcpt(self._outgoing.recipients[place]) for place in places]
        first, responses = await self._say(mail, commands)
        if not first.is_ok:
            responses = [first] * len(places)
        self._answers.update(zip(places, responses, strict=True))
        taken = [place for place in places if self._answers[place].is_ok]
        if first.is_ok and not taken:
            await self._reset()
        return taken

    async def _say(self, mail: bytes, commands: Sequence[bytes]) -> tuple[Response, list[Response]]:
        """MAIL, and RCPT commands behind it: in groups where the hop takes them in groups (RFC 2920)."""
        if "PIPELINING" not in self._extensions:
            first, *_ = await self._group([mail])
            return first, [(await self._group([each]))[0] for each in commands] if first.is_ok else []
        first, *responses = await self._group([mail, *commands[:_GROUP]])
        for start in range(_GROUP, len(commands), _GROUP):
            responses += await self._group(commands[start : start + _GROUP])
        return first, responses

    async def _group(self, commands: Sequence[bytes]) -> list[Response]:
        await self._dialogue.write(b"".join(commands))
        return [await self._dialogue.response(self._dialogue.patience.command) for _ in commands]

    async def _reset(self) -> None:
        """Gives the transaction up. The answers stand, also if the hop is gone by now."""
        try:
            await self._dialogue.ask(b"RSET")
        except TransferError:
            self._dialogue.abort()

    # -- the content --------------------------------------------------------------------------------------------------

    async def _data(self, taken: list[int]) -> list[Response]:
        go_ahead = await self._dialogue.ask(b"DATA")
        if go_ahead.code != 354:
            return await self._refused(go_ahead, taken)
        self._content_begun = True
        try:
            for octets in self._outgoing.stuffed():
                await self._dialogue.write(octets)
        except TransferError:
            return self._cut_short(taken)
        return await self._finals(taken)

    async def _chunks(self, taken: list[int]) -> list[Response]:
        """BDAT (RFC 3030 2): chunks of a size that is in memory, each answered before the next."""
        chunk = bytearray()
        for octets in self._outgoing.octets():
            if len(chunk) + len(octets) > _CHUNK_BYTES:
                await self._chunk(chunk, b"")
                answer = await self._dialogue.response(self._dialogue.patience.end)
                if not answer.is_ok:
                    return await self._refused(answer, taken)
                chunk = bytearray()
            chunk += octets
        await self._chunk(chunk, b" LAST")
        return await self._finals(taken)

    async def _chunk(self, octets: bytearray, last: bytes) -> None:
        self._content_begun = True
        await self._dialogue.write(b"BDAT %d%b\r\n" % (len(octets), last) + octets)

    async def _finals(self, taken: list[int]) -> list[Response]:
        """The verdict for each recipient that was taken."""
        first = await self._dialogue.response(self._dialogue.patience.end)
        if not self._lmtp:
            return [first] * len(taken)
        finals = [first]
        try:
            while len(finals) < len(taken):
                finals.append(await self._dialogue.response(self._dialogue.patience.end))
        except TransferError:  # what was said counts: who has the message shall not get it again
            self._dialogue.abort()
        return finals + [_NOT_SAID] * (len(taken) - len(finals))

    def _cut_short(self, taken: list[int]) -> list[Response]:
        """The hop has hung up in the middle of the content; it may have said why."""
        last = self._dialogue.last_word()
        self._dialogue.abort()
        if last is None or last.code < 400:
            raise TransferError("the next hop has hung up in the middle of the content")
        return [last] * len(taken)

    async def _refused(self, answer: Response, taken: list[int]) -> list[Response]:
        """The content was refused before its end."""
        if answer.code < 400:
            raise TransferError(f"the next hop is out of step: {answer}")
        await self._reset()
        return [answer] * len(taken)
