"""Which sockets of a group the kernel gives new connections (real sockets, real programs in the kernel)."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fastsmtp.config import Listen
from fastsmtp.server.listeners import Listener
from fastsmtp.server.steering import at_random, by_cpu, turn_away
from tests.server.waiting import until

_MANY = 120  # connections: that one of two places gets none of them has a probability of 2 ** -120


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener(Listen("127.0.0.1", 0), 3, 200, spare=2)
    yield made
    made.close()


def _spread(listener: Listener, slots: int) -> Counter[int]:
    """Who gets connections."""
    host, _, port = listener.address.rpartition(":")
    found: Counter[int] = Counter()
    with ExitStack() as stack:
        for _ in range(_MANY):
            stack.enter_context(socket.create_connection((host, int(port)), 5))
        for slot in range(slots):
            found[slot] = _accept_all(listener.socket_of(slot))
    return found


def _accept_all(listening: socket.socket) -> int:
    listening.setblocking(False)
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        except OSError:  # a spare one does not listen
            return count
        count += 1


def test_without_a_word_all_get_some_and_spares_get_nothing(listener: Listener) -> None:
    spread = _spread(listener, 5)
    assert all(spread[slot] for slot in range(3))
    assert spread[3] == spread[4] == 0


@pytest.mark.parametrize("places", [[0], [2], [0, 2], [1, 2], [0, 1, 2]])
def test_only_those_that_are_named_get_connections(listener: Listener, places: list[int]) -> None:
    listener.lead(places)
    spread = _spread(listener, 5)
    assert {slot for slot, count in spread.items() if count} == set(places)
    assert spread.total() == _MANY


def test_spares_listen_first_and_get_connections_later(listener: Listener) -> None:
    listener.widen(5)
    assert {slot for slot, count in _spread(listener, 5).items() if count} == {0, 1, 2}
    listener.lead([0, 4])
    assert {slot for slot, count in _spread(listener, 5).items() if count} == {0, 4}
    listener.lead([0])
    listener.widen(4)  # they have listened once: nothing happens
    assert {slot for slot, count in _spread(listener, 5).items() if count} == {0}


def test_what_is_queued_stays_where_it_is(listener: Listener) -> None:
    host, _, port = listener.address.rpartition(":")
    listener.lead([1])
    with socket.create_connection((host, int(port)), 5):
        listener.lead([0])
        listener.socket_of(1).settimeout(5)
        listener.socket_of(1).accept()[0].close()


@contextmanager
def _on(cpu: int) -> Iterator[None]:
    """We run on this CPU alone; what we send over the loopback interface arrives on it, too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def test_a_connection_goes_to_the_slots_of_the_cpu_that_it_arrives_on() -> None:
    cpus = [*sorted(os.sched_getaffinity(0)), os.cpu_count() or 1]  # and one that this machine does not have
    turns = len(cpus)
    listener = Listener(Listen("127.0.0.1", 0), 2 * turns, 200, spare=1, cpus=cpus)
    try:
        listener.lead(range(2 * turns))
        for turn, cpu in enumerate(cpus[:-1]):
            with _on(cpu):
                spread = _spread(listener, 2 * turns)
                assert {slot for slot, count in spread.items() if count} == {turn, turn + turns}
        listener.lead([0, turns - 1, 2 * turns - 1])  # the first CPU has a slot left, the last one does not arrive here
        with _on(cpus[0]):
            assert _spread(listener, 2 * turns) == Counter({0: _MANY})
        listener.lead([turns - 1, 2 * turns - 1])
        with _on(cpus[0]):
            spread = _spread(listener, 2 * turns)
            assert {slot for slot, count in spread.items() if count} == {turns - 1, 2 * turns - 1}
        listener.widen(2 * turns + 1)
        listener.lead([turns - 1, 2 * turns])
        with _on(cpus[0]):
            assert _spread(listener, 2 * turns + 1) == Counter({2 * turns: _MANY})
    finally:
        listener.close()


def test_the_share_of_each_place_is_the_same() -> None:
    """The program itself, run here as the kernel would: every remainder leads to a place of its own."""
    for places in ([0], [3, 1], [0, 1, 2, 3, 7]):
        assert [_run(at_random(places), random) for random in range(len(places))] == places
        assert _run(at_random(places), 2**32 - 1) in places


def test_a_program_for_more_workers_than_a_jump_goes_over() -> None:
    """The CPU of too many shares its connections among the first of them, another one's go to all."""
    places = range(300)
    program = by_cpu(places, [0])
    assert all(0 <= octet <= 255 for _, *jumps, _ in program for octet in jumps)
    assert {_run(program, random, cpu=0) for random in places} == set(range(127))
    assert {_run(program, random, cpu=1) for random in places} == set(places)


def _run(instructions: list[tuple[int, int, int, int]], random: int, cpu: int = 0) -> int:
    accumulator = at = 0
    while True:
        code, if_true, if_false, operand = instructions[at]
        at += 1
        if code == 0x20:
            accumulator = {0xFFFFF000 + 36: cpu, 0xFFFFF000 + 56: random}[operand]
        elif code == 0x94:
            accumulator %= operand
        elif code == 0x15:
            at += if_true if accumulator == operand else if_false
        else:
            assert code == 0x06
            return operand


def test_who_is_turned_away_is_refused_when_the_socket_is_closed() -> None:
    """And who came a moment before is served."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with socket.create_connection(address, 5) as early:
            turn_away(listening)
            with socket.socket() as late:
                late.setblocking(False)
                assert late.connect_ex(address) != 0
                listening.settimeout(5)
                accepted, _ = listening.accept()
                accepted.sendall(b"hello")
                assert early.recv(5) == b"hello"
                accepted.close()
                listening.close()
                # The kernel sends the first packet of the handshake again after a second.
                until(lambda: late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "refused", 5)


def test_one_socket_for_all_slots() -> None:
    shared = Listener(Listen("127.0.0.1", 0), 2, 200, spare=2, shared=True)
    try:
        shared.widen(4)
        shared.lead([3])
        assert {shared.socket_of(slot) for slot in range(4)} == {shared.socket_of(0)}
        assert _spread(shared, 1)[0] == _MANY
    finally:
        shared.close()
