"""Wakes the consumers of a queue on this machine when mail has come: they need not look all the time.

Each process that waits has a datagram socket in the queue's directory; who has put something sends a datagram to all of
them, one for each commit. It is a hint, never the only way: consumers look by themselves too, now and then, so a bell
that is lost costs seconds at most.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress


class Bell:
    """Rings others and is rung. `ring` may be called in any thread; the rest belongs to the event loop.

    Args:
        path: the directory of the sockets.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = -1
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._sender: socket.socket | None = None
        self._receiver: socket.socket | None = None
        self._rung = asyncio.Event()
        self._names: list[str] = []
        self._seen = 0  # the directory's mtime when its names were read

    def open(self) -> None:
        """Makes the directory if need be; its parent must be there.

        Raises:
            OSError: it cannot be had.
        """
        with suppress(FileExistsError):
            os.mkdir(self._path, 0o700)
        self._directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)

    def close(self) -> None:
        if self._receiver:
            asyncio.get_running_loop().remove_reader(self._receiver)
            self._receiver.close()
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._directory)
        if self._sender:
            self._sender.close()
            os.close(self._directory)
            self._sender = None

    def ring(self) -> None:
        """Wakes everybody who waits."""
        if self._sender is None:
            return
        with suppress(OSError):
            changed = os.fstat(self._directory).st_mtime_ns
            if changed != self._seen:
                self._names, self._seen = os.listdir(self._directory), changed
        for name in self._names:
            try:
                self._sender.sendto(b"!", self._address(name))
            except BlockingIOError:
                pass  # it has rung already
            except OSError:  # nobody holds it any more
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)

    async def wait(self, seconds: float) -> None:
        """Returns when it was rung since the last call, or the time is over."""
        if self._receiver is None:
            self._listen()
            return  # whoever came before we listened has rung for others only
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()

    def _listen(self) -> None:
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.setblocking(False)
        receiver.bind(self._address(self._name))
        self._receiver = receiver
        asyncio.get_running_loop().add_reader(receiver, self._is_rung, receiver)

    def _is_rung(self, receiver: socket.socket) -> None:
        with suppress(BlockingIOError):
            while receiver.recv(16):
                pass
        self._rung.set()

    def _address(self, name: str) -> str:
        """A unix socket's path has 108 octets; the way over the descriptor is always short enough."""
        return f"/proc/self/fd/{self._directory}/{name}"
