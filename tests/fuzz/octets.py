"""Reads choices off the octets that a fuzzer makes up, so that each one that it changes changes something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

_Option = TypeVar("_Option")


class Octets:
    """Octets, read from the front. Behind their end there are zeros.

    Attributes:
        rest: what was not read.
    """

    def __init__(self, octets: bytes) -> None:
        self.rest = octets

    def number(self) -> int:
        """The next octet."""
        number = self.rest[0] if self.rest else 0
        self.rest = self.rest[1:]
        return number

    def one_of(self, options: Sequence[_Option]) -> _Option:
        """One of the options; the first one at the end."""
        return options[self.number() % len(options)]

    def each(self, options: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """For each name one of its options."""
        return {name: self.one_of(values) for name, values in options.items()}

    def flag(self) -> bool:
        """Yes or no."""
        return bool(self.number() & 1)

    def lengths(self) -> list[int]:
        """Four lengths of segments, mostly short."""
        return [_LENGTHS[self.number() % len(_LENGTHS)] for _ in range(4)]


_LENGTHS: Final = (1, 1, 2, 3, 4, 5, 7, 11, 16, 30, 60, 100, 300, 1000, 10000, 100000)
