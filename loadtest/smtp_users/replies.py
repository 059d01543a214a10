"""Replies of the server, and the error that names the command and the reply that was not expected."""

from __future__ import annotations

SHOWN = 200  # characters of a reply that an error shows; Locust groups failures by their text


class UnexpectedReplyError(Exception):
    """A step ended otherwise than expected; the text names the command and the reply.

    Args:
        command: as it was sent, without its line end and without secrets.
        expected: the code.
        got: the reply that came instead, or what happened.
    """

    def __init__(self, command: str, expected: int, got: bytes | str) -> None:
        super().__init__(f"{command}: expected {expected}, got {text_of(got) if isinstance(got, bytes) else got}")


def end_of_reply(octets: bytes, start: int = 0) -> int:
    """Where the first complete reply ends (RFC 5321 4.2.1); -1 if it is not complete yet."""
    while (end := octets.find(b"\n", start)) >= 0:
        if octets[start + 3 : start + 4] != b"-":
            return end + 1
        start = end + 1
    return -1


def text_of(reply: bytes) -> str:
    """A reply for people: code and texts of all its lines."""
    lines = reply.decode("utf-8", "replace").splitlines()
    return " ".join([lines[0][:3], *(line[4:] for line in lines)])[:SHOWN] if lines else "nothing"
