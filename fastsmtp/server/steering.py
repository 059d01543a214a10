"""Which sockets of a SO_REUSEPORT group the kernel gives new connections: classic BPF on the group (Linux 4.6).

The sockets of one address form a group in the order in which they began to listen, so that a socket's place is its
slot. Without a program the kernel hashes over all of them. With one, only those that it names get connections; what is
queued in the others stays there to be accepted. So a slot is steered around first, then drained, and no connection is
refused or reset. An unprivileged process may do that, also to sockets that another user has bound.

A place that the group does not have would make the kernel hash over all again; places never change, for a socket that
has listened once goes on to do so until the server ends.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import Final

_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
# linux/filter.h: opcodes, and where a program finds which CPU it runs on, and a random number.
_LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_LOAD_OCTET: Final = 0x30  # BPF_LD | BPF_B | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_MODULO: Final = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_CPU: Final = 0xFFFFF000 + 36  # SKF_AD_OFF + SKF_AD_CPU
_RANDOM: Final = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_MOST_IN_A_JUMP: Final = 127  # places between which a program can choose that is jumped over: 255 instructions

_FLAGS: Final = 13  # where a TCP header has them (RFC 9293 3.1)
_SYN, _ACK = 0x02, 0x10

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


def at_random(places: Sequence[int]) -> list[Instruction]:
    """A program that chooses one of these places, each as often as the others."""
    if len(places) == 1:
        return [(_RETURN, 0, 0, places[0])]
    choose: list[Instruction] = [(_LOAD_WORD, 0, 0, _RANDOM), (_MODULO, 0, 0, len(places))]
    for number, place in enumerate(places[:-1]):
        choose += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, place)]
    return [*choose, (_RETURN, 0, 0, places[-1])]


def by_cpu(places: Sequence[int], cpus: Sequence[int]) -> list[Instruction]:
    """A program that chooses the place whose CPU a connection arrives on; at random where that CPU has none of them.

    Args:
        places: at least one.
        cpus: a place's CPU is the one whose turn it is.
    """
    choose: list[Instruction] = [(_LOAD_WORD, 0, 0, _CPU)]
    for turn, cpu in enumerate(cpus):
        there = [place for place in places if place % len(cpus) == turn]
        if there:
            among_them = at_random(there[:_MOST_IN_A_JUMP])
            choose += [(_IF_EQUAL, 0, len(among_them), cpu), *among_them]
    return choose + at_random(places)


def steer(member: socket.socket, program: Sequence[Instruction]) -> None:
    """Have a program choose who gets new connections.

    Args:
        member: any listening socket of the group.
        program: of a place in the group.

    Raises:
        OSError: the kernel does not know how.
    """
    _attach(member, _SO_ATTACH_REUSEPORT_CBPF, program)


def turn_away(listening: socket.socket) -> None:
    """Have a socket get no new connections, while those whose handshake is under way still come into its queue.

    Their first packet is dropped. A client sends it again after a second, and is refused when the socket is closed by
    then. Closed at once, the socket would reset what has come into its queue a moment before.
    """
    _attach(
        listening,
        _SO_ATTACH_FILTER,
        [
            (_LOAD_OCTET, 0, 0, _FLAGS),
            (_AND, 0, 0, _SYN | _ACK),
            (_IF_EQUAL, 0, 1, _SYN),
            (_RETURN, 0, 0, 0),
            (_RETURN, 0, 0, 0xFFFFFFFF),
        ],
    )


def _attach(to: socket.socket, option: int, instructions: Sequence[Instruction]) -> None:
    octets = b"".join(struct.pack("HBBI", *each) for each in instructions)
    memory = ctypes.create_string_buffer(octets, len(octets))
    # struct sock_fprog: a length, and a pointer to the instructions.
    found = struct.pack("@HP", len(instructions), ctypes.addressof(memory))
    to.setsockopt(socket.SOL_SOCKET, option, found)
