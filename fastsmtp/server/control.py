"""What the admin process asks of the master beyond what a signal can carry: a request, and its answer.

A pair of SOCK_SEQPACKET sockets, made before the fork: a packet is a whole request or answer in JSON, and has the
number of its request, for an admin process that dies leaves an answer that its successor did not ask for.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

_MAX_PACKET: Final = 65536
_ANSWER_TIME: Final = 2.0  # seconds; the master does nothing that takes longer than a fork
_log = logging.getLogger("fastsmtp.master")


class RefusedError(Exception):
    """The master will not; the text says why."""


class NoAnswerError(Exception):
    """The master is busy, stopped or gone."""


Act = Callable[[Mapping[str, Any]], str]
"""Does what is asked for, with its arguments; returns what to say, or raises RefusedError."""


class Control:
    """Both ends; after the fork each process uses its own.

    Args:
        acts: what there is to ask for.
    """

    def __init__(self, acts: Mapping[str, Act]) -> None:
        self._acts = acts
        self._master, self._admin = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._master.setblocking(False)
        self._asked = int(time.monotonic() * 1e6)  # so that a successor begins with other numbers

    def close(self) -> None:
        """Close both ends in this process."""
        self._master.close()
        self._admin.close()

    # -- in the master ------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """What is readable when a request has come."""
        return self._master.fileno()

    def answer(self) -> None:
        """Do what the requests ask that have come."""
        while True:
            try:
                packet = self._master.recv(_MAX_PACKET)
            except BlockingIOError:
                return
            try:
                self._master.send(json.dumps(self._answer_to(packet)).encode())
            except OSError as error:  # nobody reads answers
                _log.warning("an answer to the admin process was lost: %s", error)

    def _answer_to(self, packet: bytes) -> dict[str, Any]:
        number = None
        try:
            request = json.loads(packet)
            number = request["number"]
            return {"number": number, "done": self._acts[request["do"]](request)}
        except RefusedError as error:
            return {"number": number, "refused": str(error)}
        except (ValueError, KeyError, TypeError) as error:
            return {"number": number, "refused": f"not understood: {error}"}

    # -- in the admin process -----------------------------------------------------------------------------------------

    def be_admin(self) -> None:
        """Called when the admin process begins."""
        self._master.close()

    def ask(self, do: str, **arguments: object) -> str:
        """Have the master do something; returns what it says. Blocks for a moment.

        Raises:
            RefusedError: it will not.
            NoAnswerError: it says nothing.
        """
        self._asked += 1
        try:
            self._admin.send(json.dumps({"number": self._asked, "do": do, **arguments}).encode(), socket.MSG_DONTWAIT)
            answer = self._receive(time.monotonic() + _ANSWER_TIME)
        except OSError as error:
            raise NoAnswerError(f"the master cannot be asked: {error.strerror}") from None
        if "refused" in answer:
            raise RefusedError(str(answer["refused"]))
        return str(answer["done"])

    def _receive(self, until: float) -> dict[str, Any]:
        while select.select([self._admin], [], [], max(0.0, until - time.monotonic()))[0]:
            packet = self._admin.recv(_MAX_PACKET)
            if not packet:
                break
            answer: dict[str, Any] = json.loads(packet)
            if answer["number"] == self._asked:
                return answer
        raise NoAnswerError("the master does not answer")
