"""What the admin process is connected with, besides the scoreboard: all of it is made before it is forked."""

from __future__ import annotations

from typing import NamedTuple

from .control import Control
from .log_files import LogFiles
from .notice import Notice
from .trace_link import TraceLink


class Wires(NamedTuple):
    """Handed from the master to the admin process."""

    control: Control  # to the master
    notice: Notice  # from the master: why the last reload was given up
    log_files: LogFiles  # opened anew on USR1
    traces: TraceLink  # with the workers
