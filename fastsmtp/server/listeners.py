"""The listening sockets: bound by the master, one for each slot, and kept open as long as it lives.

A worker inherits the socket of its slot. When it dies, its accept queue is still there, and its successor serves it:
no connection is reset. The kernel spreads new connections over the sockets of an address (SO_REUSEPORT).

Sockets are bound for as many slots as there may ever be, for later nobody may: Linux refuses a bind beside a socket of
another user. One that nobody needs yet does not listen, so it gets nothing. One that has listened goes on to do so,
and is steered around when its slot is empty (`steering`). A unix socket, a socket that was inherited, and every socket
with ``balance = shared`` is one for all slots.

With ``balance = cpu`` the kernel does not spread: who is served on a CPU is served there from the first packet on.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..config import Listen
from .privileges import Account
from .steering import at_random, by_cpu, steer, turn_away


class BindError(Exception):
    """An address cannot be listened on; the text says which, why, and what to do."""


class Inherited:
    """The sockets that whoever started us has opened, each to be taken by one listener.

    Args:
        descriptors: by number and by name.
    """

    def __init__(self, descriptors: Mapping[str, int]) -> None:
        self._descriptors = descriptors
        self._left = {number: socket.socket(fileno=os.dup(number)) for number in sorted(set(descriptors.values()))}
        for number in self._left:
            os.close(number)  # only the copies count from now on

    def take(self, listen: Listen) -> socket.socket | None:
        """The socket for a listener: the one it names, or one that has its address.

        Raises:
            BindError: the one it names is not there.
        """
        if listen.descriptor is not None:
            number = self._descriptors.get(listen.descriptor)
            if number in self._left:
                return self._left.pop(number)
            return _descriptor(listen)
        for number, each in self._left.items():
            if _text_of(each) == listen.address:
                return self._left.pop(number)
        return None

    def close_rest(self) -> list[str]:
        """Close those that no listener has taken; returns their addresses."""
        addresses = []
        for each in self._left.values():
            addresses.append(_text_of(each))
            each.close()
        self._left.clear()
        return addresses


class Listener:
    """One address with a listening socket for each slot.

    Args:
        listen: the address; port 0 takes a free one.
        slots: how many sockets begin to listen.
        backlog: connections that may wait in each socket's queue.
        spare: how many more are bound, for slots that may come.
        shared: whether all slots accept from one socket.
        given: the socket, if it was inherited.
        mode: of a unix socket; None leaves it to the umask.
        owner: likewise; None is whoever we are.
        cpus: a connection goes to a slot whose turn the CPU is that it arrives on; none: to any.

    Attributes:
        address: where this listens, with the port that port 0 became.

    Raises:
        BindError: the address cannot be had.
    """

    def __init__(
        self,
        listen: Listen,
        slots: int,
        backlog: int,
        spare: int = 0,
        shared: bool = False,
        given: socket.socket | None = None,
        mode: int | None = None,
        owner: Account | None = None,
        cpus: Sequence[int] = (),
    ) -> None:
        self.listen = listen
        self._backlog = backlog
        self._sockets: list[socket.socket] = []
        self._listening = slots  # the first so many
        self._cpus = cpus
        self._steered = () if cpus else tuple(range(slots))  # the kernel's own choice, as long as nobody has led
        self._is_ours = given is None
        try:
            if given is not None:
                self._sockets = [given] * (slots + spare)
            elif listen.path is not None:
                # All workers accept from the one socket that a path can have.
                self._sockets = [_bind_unix(listen.path, mode, owner)] * (slots + spare)
            else:
                self._bind_tcp(listen, slots + spare, shared)
            for each in self._sockets[:slots]:
                each.listen(backlog)
            self.address = self._bound_address()
        except OSError as error:
            self.close()
            raise BindError(f"cannot listen on {listen.address}: {_explain(error)}") from error

    def _bind_tcp(self, listen: Listen, sockets: int, shared: bool) -> None:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With SO_REUSEPORT we could silently share a port with another server of this user: first see if it is free.
        with _tcp_socket(family) as probe:
            probe.bind(address)
            address = probe.getsockname()
        if shared:
            self._sockets = [_tcp_socket(family)] * sockets
            self._sockets[0].bind(address)
            return
        for _ in range(sockets):
            each = _tcp_socket(family)
            self._sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(address)

    def _bound_address(self) -> str:
        return self.listen.address if self.listen.path is not None else _text_of(self._sockets[0])

    def __str__(self) -> str:
        options = str(self.listen).removeprefix(self.listen.address)
        return self.address + options

    @property
    def is_shared(self) -> bool:
        """Whether all slots accept from one socket."""
        return len(self._sockets) > 1 and self._sockets[0] is self._sockets[1]

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
        if sockets and self.listen.path is not None and self._is_ours:
            with suppress(OSError):  # the directory may belong to whom we were
                Path(self.listen.path).unlink(missing_ok=True)

    def turn_away(self) -> None:
        """The server ends: nobody new comes into the queues. An inherited socket goes on, for the next server."""
        for each in set(self._sockets):
            if self._is_ours and each.family != socket.AF_UNIX:  # a path is removed instead
                with suppress(OSError):
                    turn_away(each)

    # -- slots come and go ----------------------------------------------------------------------------------------

    def widen(self, slots: int) -> None:
        """Begin to listen for so many slots in all. Where it can be done, the new ones get nothing until `lead`.

        In the order of the slots, so that a socket's place in the group is its slot.
        """
        if self.is_shared or slots <= self._listening or not self._sockets:
            return
        with suppress(OSError):  # where the kernel does not steer, connections wait for the worker
            self._steer(self._steered or range(self._listening))
        for each in self._sockets[self._listening : slots]:
            each.listen(self._backlog)
        self._listening = slots

    def lead(self, slots: Sequence[int]) -> None:
        """Have new connections go to these slots only; those that wait elsewhere stay there.

        Raises:
            OSError: the kernel does not know how.
        """
        if self.is_shared or not self._sockets or tuple(slots) == tuple(self._steered):
            return
        if self._listening > 1:
            self._steer(slots)
        self._steered = tuple(slots)

    def _steer(self, slots: Sequence[int]) -> None:
        steer(self._sockets[0], by_cpu(slots, self._cpus) if self._cpus else at_random(slots))


def _text_of(listening: socket.socket) -> str:
    """The address of a socket as a setting has it."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    return Listen(name[0], name[1]).address


def _descriptor(listen: Listen) -> socket.socket:
    """A socket that we have inherited without a word of systemd's."""
    try:
        each = socket.socket(fileno=os.dup(int(listen.descriptor or "")))
        if each.type == socket.SOCK_STREAM and each.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            return each
        each.close()
    except (OSError, ValueError):
        pass
    raise BindError(f"cannot listen on {listen.address}: nobody has passed us such a socket")


def _tcp_socket(family: socket.AddressFamily | int) -> socket.socket:
    each = socket.socket(family, socket.SOCK_STREAM)
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return each


def _bind_unix(path: str, mode: int | None, owner: Account | None) -> socket.socket:
    _remove_stale(path)
    each = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A chmod would come when others could have connected.
    before = None if mode is None else os.umask(0o777 & ~mode)
    try:
        each.bind(path)
        if owner is not None:
            # The directory may be the owner's, who could put a link in the socket's place.
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    except OSError:
        each.close()
        raise
    finally:
        if before is not None:
            os.umask(before)
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
