"""The listening sockets: bound by the master, one for each slot, and kept open as long as it lives.

A worker inherits the socket of its slot. When it dies, its accept queue is still there, and its successor serves it:
no connection is reset. The kernel spreads new connections over the sockets of an address (SO_REUSEPORT).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from ..config import Listen


class BindError(Exception):
    """An address cannot be listened on; the text says which, why, and what to do."""


class Listener:
    """One address with a listening socket for each slot.

    Args:
        listen: the address; port 0 takes a free one.
        slots: how many sockets.
        backlog: connections that may wait in each socket's queue.

    Attributes:
        address: where this listens, with the port that port 0 became.

    Raises:
        BindError: the address cannot be had.
    """

    def __init__(self, listen: Listen, slots: int, backlog: int) -> None:
        self.listen = listen
        self._sockets: list[socket.socket] = []
        try:
            if listen.path is not None:
                # All workers accept from the one socket that a path can have.
                self._sockets = [_bind_unix(listen.path)] * slots
            else:
                self._bind_tcp(listen, slots)
            for each in self._sockets:
                each.listen(backlog)
            self.address = self._bound_address()
        except OSError as error:
            self.close()
            raise BindError(f"cannot listen on {listen.address}: {_explain(error)}") from error

    def _bind_tcp(self, listen: Listen, slots: int) -> None:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With SO_REUSEPORT we could silently share a port with another server of this user: first see if it is free.
        with _tcp_socket(family) as probe:
            probe.bind(address)
            address = probe.getsockname()
        for _ in range(slots):
            each = _tcp_socket(family)
            self._sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(address)

    def _bound_address(self) -> str:
        if self.listen.path is not None:
            return self.listen.address
        host, port = self._sockets[0].getsockname()[:2]
        return Listen(host, port).address

    def __str__(self) -> str:
        options = str(self.listen).removeprefix(self.listen.address)
        return self.address + options

    def socket_of(self, slot: int) -> socket.socket:
        """The socket that a slot's worker accepts from."""
        return self._sockets[slot]

    def keep(self, slot: int | None) -> None:
        """In a child: close our copies of all sockets but this slot's; while one is open, the kernel queues there."""
        kept = None if slot is None else self._sockets[slot]
        for each in self._sockets:
            if each is not kept:
                each.close()

    def close(self) -> None:
        """Close all sockets here; workers have their own copies."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            each.close()
        if sockets and self.listen.path is not None:
            Path(self.listen.path).unlink(missing_ok=True)


def _tcp_socket(family: socket.AddressFamily | int) -> socket.socket:
    each = socket.socket(family, socket.SOCK_STREAM)
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return each


def _bind_unix(path: str) -> socket.socket:
    _remove_stale(path)
    each = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        each.bind(path)
    except OSError:
        each.close()
        raise
    return each


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more; a crash leaves one behind."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "something that is no socket has that name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        Path(path).unlink(missing_ok=True)
        return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _explain(error: OSError) -> str:
    hints = {
        errno.EADDRINUSE: "another server has this address; stop it or choose another port",
        errno.EACCES: "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }
    return hints.get(error.errno or 0) or error.strerror or str(error)
