"""How many threads may be awake while hooks compute: as few as keep the interpreter busy.

It serves one thread at a time, so eight that compute do no more than one, but the event loop waits for its turn behind
all of them. Hooks that wait for something else are another matter: while they do, others may compute. So the number is
halved for as long as the threads use a whole CPU all the same. Where they no longer do although jobs wait, it was too
few, and it is not tried again.
"""

from __future__ import annotations

from typing import Final

_FULL: Final = 0.8  # of a CPU: the interpreter is never idle for long
_PARALLEL: Final = 1.4  # CPUs: hooks compute outside the interpreter, and more of them do more


class Crowd:
    """The threads of a pool in a time in which hooks compute."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._allowed = threads
        self._least = 1

    def judge(self, used: float, jobs_wait: bool) -> int:
        """How many threads may be awake until the next look.

        Args:
            used: CPUs that the process has used since the last one.
            jobs_wait: whether there are jobs that no thread has taken.
        """
        if _FULL <= used <= _PARALLEL:
            self._allowed = max(self._allowed // 2, self._least)
        elif jobs_wait:
            self._allowed = self._least = min(self._allowed * 2, self._threads)
        return self._allowed
