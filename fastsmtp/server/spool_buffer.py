"""Where a message goes that is too large for memory: an unnamed file, which no crash leaves behind."""

from __future__ import annotations

import logging
import mmap
import os
import tempfile

_log = logging.getLogger("fastsmtp.worker")


class SpoolFile:
    """An unnamed temporary file, written while the message arrives and mapped when it is complete.

    Args:
        directory: where the file lives; its file system must have room for the largest messages.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        try:
            self._file = tempfile.TemporaryFile(dir=directory, buffering=0, prefix="fastsmtp-")  # noqa: SIM115  # closed by close
        except OSError as error:
            self._complain(error)
            raise

    def write(self, octets: memoryview) -> None:
        """Append; raises OSError when there is no space."""
        try:
            while octets:
                octets = octets[os.write(self._file.fileno(), octets) :]
        except OSError as error:
            self._complain(error)
            raise

    def _complain(self, error: OSError) -> None:
        _log.error("large messages cannot be kept in %s (spool_dir), their clients get 452: %s", self._directory, error)

    def view(self) -> memoryview:
        """Everything written, as a read-only mapping: only what is looked at takes memory, and that is reclaimable."""
        return memoryview(mmap.mmap(self._file.fileno(), 0, prot=mmap.PROT_READ))

    def close(self) -> None:
        """Close the file; a mapping keeps its content until it is dropped."""
        self._file.close()
