"""How the admin process and the workers talk of traces: what is asked for goes out, what is seen comes back.

Made by the master before it forks, so that it outlives every process at its ends.

* A **board** in shared memory, to which only the admin process writes: which traces there are. A worker looks at one
  number once a second, and reads the rest when that has changed. The number is odd while the board is written; a
  reader that sees it odd, or another one behind than before, looks again a second later.
* A **socket** with the boundaries of messages, into which all workers write without ever waiting. When it is full the
  record is lost, and counted: who watches shall not slow down what is watched.
"""

from __future__ import annotations

import json
import mmap
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

MOST_TRACES: Final = 8  # at a time
_TEXT: Final = 1024  # octets of the text of one trace, its length in front
_HEAD: Final = 8  # octets of the number
_BUFFER: Final = 2**20  # octets of records that wait; the kernel may give less
_MAX_RECORD: Final = 16384  # octets


class Filter(NamedTuple):
    """Which sessions a trace is about; None: any."""

    peer: str | None = None  # a network
    rcpt: str | None = None  # a recipient's domain, in lower case
    listener: str | None = None  # an address, as the log names it

    @property
    def text(self) -> str:
        """In words, for the log."""
        return ", ".join(f"{name} {value}" for name, value in self._asdict().items() if value) or "every session"


class TraceLink:
    """Board and socket."""

    def __init__(self) -> None:
        self._memory: Final = mmap.mmap(-1, _HEAD + MOST_TRACES * _TEXT)
        self._number: Final = memoryview(self._memory)[:_HEAD].cast("Q")
        # Not datagrams: of those only a few may wait, however small they are (unix(7), max_dgram_qlen).
        self._receiver, self._sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        for end in (self._receiver, self._sender):
            end.setblocking(False)

    def close(self) -> None:
        """Close our copies of the socket's ends."""
        self._receiver.close()
        self._sender.close()

    def keep_receiver(self) -> None:
        """In the admin process: who sends is somebody else."""
        self._sender.close()

    def keep_sender(self) -> None:
        """In a worker: who receives is somebody else."""
        self._receiver.close()

    # -- for the admin process ----------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when there are records."""
        return self._receiver.fileno()

    def write(self, traces: Mapping[int, Filter]) -> None:
        """Say which traces there are, by their ids.

        Raises:
            ValueError: there are too many, or the text of one is too long.
        """
        texts = [json.dumps([number, *wanted]).encode() for number, wanted in traces.items()]
        if len(texts) > MOST_TRACES or any(len(text) > _TEXT - 2 for text in texts):
            raise ValueError("too many traces at a time, or too long a filter")
        self._number[0] |= 1
        for place in range(MOST_TRACES):
            text = texts[place] if place < len(texts) else b""
            start = _HEAD + place * _TEXT
            self._memory[start : start + 2 + len(text)] = len(text).to_bytes(2, "big") + text
        self._number[0] += 1

    def received(self) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """The records that have come: for which traces, and what."""
        while True:
            try:
                to, record = json.loads(self._receiver.recv(_MAX_RECORD))
            except BlockingIOError:
                return
            yield to, record

    # -- for workers --------------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """Another one whenever the traces are."""
        return self._number[0]

    def read(self) -> dict[int, Filter] | None:
        """The traces that there are; None if they are just being written."""
        before = self.number
        traces: dict[int, Filter] = {}
        for place in range(MOST_TRACES):
            start = _HEAD + place * _TEXT
            length = int.from_bytes(self._memory[start : start + 2], "big")
            try:
                number, *wanted = json.loads(self._memory[start + 2 : start + 2 + length] or "[0]")
            except ValueError:
                return None
            if number:
                traces[number] = Filter(*wanted)
        return traces if before % 2 == 0 and before == self.number else None

    def send(self, to: list[int], record: Mapping[str, object]) -> bool:
        """Hand over a record for these traces, on any thread; returns whether there was room for it."""
        try:
            self._sender.send(json.dumps([to, record], separators=(",", ":")).encode())
        except OSError:  # full, or nobody is left
            return False
        return True
