"""Memory that all processes share: what each of them does and has counted. There is no lock and no message.

Made by the master before it forks. Each process writes to a row of its own and nobody else does while it lives, so
counting is adding to a number in memory; a cell is an aligned number of 8 octets, which no reader sees half written.
Readers see each number as it was a moment ago, and not all of the same moment.

A slot has three rows: a worker and its successor live at the same time, and a predecessor of both may take long to
leave. What a slot has counted is the sum over its rows, so the counts go on when a worker is replaced or dies.

The threads of a worker share its row. ``cells[X] += 1`` loses nothing all the same: CPython changes threads at calls
and jumps, and there is none between reading the cell and writing it.
"""

from __future__ import annotations

import mmap
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .columns import COLUMNS, FAMILIES, PID, SLOT, STAMP, STARTED, STATE, WIDTH, WORKERS, Family, Histogram, Kind, State

_ROWS_PER_SLOT: Final = 3
_CELL: Final = 8  # octets
_PASSING: Final = [column.index for column in COLUMNS if column.family.kind in (Kind.FACT, Kind.GAUGE)]


class Row:
    """The row of one process, which alone writes to it.

    Attributes:
        number: which row of the scoreboard it is.
        cells: its numbers, by the constants of `columns`. Hot path: one `cells[X] += 1` takes 55 ns.
    """

    __slots__ = ("cells", "number")

    def __init__(self, number: int, cells: memoryview[int]) -> None:
        self.number: Final = number
        self.cells: Final = cells

    def observe(self, histogram: Histogram, value: float) -> None:
        """Count a value in a histogram, in base units: seconds, octets. Hot path: takes 0.3 us."""
        histogram.observe(self.cells, value)

    def begin(self) -> None:
        """Called in the process when it has begun to run."""
        self.cells[PID] = os.getpid()

    def become(self, state: State) -> None:
        """The process is in another part of its life."""
        self.cells[STATE] = state


@dataclass(frozen=True, slots=True)
class Process:
    """A process at the moment of looking."""

    row: int
    pid: int
    state: State
    started: int  # Unix seconds
    stamp: float | None  # seconds of the monotonic clock when its loop turned last; None before the first time
    cells: Sequence[int]

    @property
    def stamp_age(self) -> float | None:
        """Seconds since its event loop turned last."""
        return None if self.stamp is None else max(0.0, time.monotonic() - self.stamp)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a worker at the moment of looking: who is in it, and what all that ever were have counted."""

    number: int
    processes: Sequence[Process]
    cells: Sequence[int]  # gauges combined, the rest added

    @property
    def is_ready(self) -> bool:
        """Whether somebody serves here."""
        return any(process.state is State.READY for process in self.processes)


class Scoreboard:
    """The rows of all workers, and one for the master.

    Args:
        slots: how many workers there may be; at first so many are wanted.

    Attributes:
        rows: how many rows workers can have; theirs are 0 to `rows` - 1, those of a slot neighbours.
        master: the master's own row.
    """

    def __init__(self, slots: int) -> None:
        self.rows: Final = _ROWS_PER_SLOT * slots
        self._slots = slots
        self._memory = memoryview(mmap.mmap(-1, _CELL * WIDTH * (self.rows + 1))).cast("Q")
        self.master: Final = Row(self.rows, self._cells(self.rows))
        self.master.cells[STARTED] = int(time.time())
        self.master.become(State.STARTING)
        self.want(slots)
        # First in, first out: what the dead have left is overwritten last.
        self._free = [deque(range(_ROWS_PER_SLOT * slot, _ROWS_PER_SLOT * (slot + 1))) for slot in range(slots)]

    def _cells(self, row: int) -> memoryview[int]:
        return self._memory[row * WIDTH : (row + 1) * WIDTH]

    # -- for the master -----------------------------------------------------------------------------------------------

    def want(self, workers: int) -> None:
        """There are to be so many workers, in the first slots."""
        self.master.cells[WORKERS] = workers

    def cells_of(self, row: int) -> memoryview[int]:
        """What a worker writes, to be looked at only."""
        return self._cells(row)

    def has_room(self, slot: int) -> bool:
        """Whether one more process can be in this slot."""
        return bool(self._free[slot])

    def take(self, slot: int) -> Row:
        """A row for a new process; there must be room."""
        number = self._free[slot].popleft()
        row = Row(number, self._cells(number))
        row.cells[SLOT] = slot
        row.cells[STARTED] = int(time.time())
        row.become(State.STARTING)
        return row

    def release(self, row: int) -> None:
        """The process with this row is dead."""
        cells = self._cells(row)
        for index in _PASSING:
            cells[index] = 0
        self._free[row // _ROWS_PER_SLOT].append(row)

    # -- for readers --------------------------------------------------------------------------------------------------

    def server(self) -> Process:
        """The master; its state is the server's."""
        return self._process(self.rows)

    def slots(self) -> list[Slot]:
        """The slots that are wanted, and those that somebody is still in, as they are now."""
        wanted, found = self.master.cells[WORKERS], [self._slot(number) for number in range(self._slots)]
        return [slot for slot in found if slot.number < wanted or slot.processes]

    def totals(self) -> list[int]:
        """What all processes have counted, the master included."""
        return combine([self._cells(row).tolist() for row in range(self.rows + 1)])

    def _slot(self, number: int) -> Slot:
        rows = [self._process(row) for row in range(_ROWS_PER_SLOT * number, _ROWS_PER_SLOT * (number + 1))]
        cells = combine([process.cells for process in rows])
        return Slot(number, [process for process in rows if process.state is not State.FREE], cells)

    def _process(self, row: int) -> Process:
        cells = self._cells(row).tolist()
        stamp = cells[STAMP] / 1000 if cells[STAMP] else None
        return Process(row, cells[PID], State(cells[STATE]), cells[STARTED], stamp, cells)


def combine(rows: Sequence[Sequence[int]]) -> list[int]:
    """One row of several; what is in its facts means nothing."""
    return [column.family.combine([row[column.index] for row in rows]) for column in COLUMNS]


def families(kind: Kind) -> list[Family]:
    """The families of a kind, in their order."""
    return [family for family in FAMILIES if family.kind is kind]
