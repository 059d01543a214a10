"""A message on its way out, and its content as it stands on the wire."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fastsmtp.protocol.envelope import Recipient, Sender

_BLOCK: Final = 2**16  # octets
_CRLF: Final = b"\r\n"
_LONE_LF: Final = re.compile(rb"(?<!\r)\n")
_LONE_CR: Final = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True, slots=True, eq=False)
class Outgoing:
    """One message for one next hop.

    Attributes:
        sender: the reverse-path with its parameters.
        recipients: those of its recipients that this hop is to get.
        content: header and body.
        header: fields of ours that go in front of it, each with its CR LF.
        all_or_none: send nothing if one of the recipients is refused.
    """

    sender: Sender
    recipients: Sequence[Recipient]
    content: memoryview
    header: bytes = b""
    all_or_none: bool = False

    @property
    def size(self) -> int:
        """Octets, for SIZE= (RFC 1870 3: an estimate)."""
        return len(self.header) + len(self.content)

    @property
    def is_binary(self) -> bool:
        """Whether the octets must stay as they are (RFC 3030 3)."""
        return self.sender.body == "BINARYMIME"

    @property
    def is_ascii(self) -> bool:
        return all(block.isascii() for block in _blocks((memoryview(self.header), self.content)))

    @property
    def header_is_ascii(self) -> bool:
        """Whether the header section, ours and the message's, is ASCII."""
        for block in _blocks((memoryview(self.header), self.content)):
            section, end, _ = block.partition(b"\r\n\r\n")
            if not section.isascii():
                return False
            if end:
                return True
        return True

    def lines(self) -> Iterator[bytes]:
        """The content as text: each line ends in CR LF and no octet that could be taken for a line end is alone.

        A server that takes a bare LF or CR for a line end could be made to see an end of data that we do not see
        (CVE-2023-51764 and its kin). So a bare LF becomes CR LF and a bare CR becomes SP, before dots are stuffed.
        """
        ended = True
        for block in _unbroken(_blocks((memoryview(self.header), self.content))):
            text = _normalised(block)
            ended = text.endswith(_CRLF)
            yield text
        if not ended:
            yield _CRLF

    def octets(self) -> Iterator[bytes]:
        """The content as BDAT sends it: lines, or for BINARYMIME the octets themselves."""
        return _blocks((memoryview(self.header), self.content)) if self.is_binary else self.lines()

    def stuffed(self) -> Iterator[bytes]:
        """The content as DATA sends it, with the dots that RFC 5321 4.5.2 asks for and the final one.

        The end goes with what stands before it: in a packet of its own it would wake the hop once more.
        """
        line_begins, held = True, b""
        for text in self.lines():
            if held:
                yield held
            held = text.replace(b"\r\n.", b"\r\n..")
            held = b"." + held if line_begins and text.startswith(b".") else held
            line_begins = text.endswith(_CRLF)
        yield held + b".\r\n"


def _blocks(parts: Iterable[memoryview]) -> Iterator[bytes]:
    for part in parts:
        for start in range(0, len(part), _BLOCK):
            yield bytes(part[start : start + _BLOCK])


def _unbroken(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same octets, no CR separated from the LF behind it."""
    held = b""
    for block in blocks:
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        if held:
            block = block[:-1]
        if block:
            yield block
    if held:
        yield held


def _normalised(block: bytes) -> bytes:
    line_ends = block.count(_CRLF)
    if block.count(b"\r") == line_ends == block.count(b"\n"):
        return block
    return _LONE_CR.sub(b" ", _LONE_LF.sub(_CRLF, block))
