"""The pool of buffers: used again, unless somebody looks at them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsmtp.protocol.memory import SIZES, BufferPool


@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_is_used_again(size: int) -> None:
    pool = BufferPool()
    buffer = pool.acquire(size)
    pool.release(buffer)
    assert pool.acquire(size) is buffer
    assert len(buffer) == size


def test_a_buffer_with_a_view_is_never_handed_out_again() -> None:
    pool = BufferPool()
    buffer = pool.acquire(SIZES[0])
    view = memoryview(buffer)[5:10].toreadonly()
    pool.release(buffer)
    assert pool.acquire(SIZES[0]) is not buffer
    view.release()
    assert pool.acquire(SIZES[0]) is not buffer  # it went to whoever had the view


def test_a_buffer_without_a_view_is_found_behind_one_with() -> None:
    pool = BufferPool()
    free, held = pool.acquire(SIZES[0]), pool.acquire(SIZES[0])
    view = memoryview(held)
    pool.release(free)
    pool.release(held)
    assert pool.acquire(SIZES[0]) is free
    assert len(view) == SIZES[0]


def test_the_sizes_have_nothing_in_common() -> None:
    pool = BufferPool()
    pool.release(pool.acquire(SIZES[0]))
    assert len(pool.acquire(SIZES[1])) == SIZES[1]


def test_free_memory_is_bounded() -> None:
    pool = BufferPool()
    buffers = [pool.acquire(SIZES[-1]) for _ in range(20)]
    for buffer in buffers:
        pool.release(buffer)
    again = [pool.acquire(SIZES[-1]) for _ in range(20)]
    assert sum(any(new is old for old in buffers) for new in again) == 8  # 8 MB of one size


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(("acquire", "release", "view", "look away")), max_size=60),
    st.randoms(use_true_random=False),
)
def test_no_buffer_has_two_owners(steps: list[str], chance: object) -> None:
    """Whatever is acquired is neither held by somebody else nor looked at."""
    choose = getattr(chance, "choice")  # noqa: B009  # hypothesis' own Random
    pool = BufferPool()
    held: list[bytearray] = []
    views: list[memoryview] = []
    for step in steps:
        if step == "acquire":
            buffer = pool.acquire(SIZES[0])
            assert len(buffer) == SIZES[0]
            assert all(buffer is not other for other in held)
            assert all(buffer is not view.obj for view in views)
            held.append(buffer)
        elif step == "release" and held:
            buffer = choose(held)
            held = [other for other in held if other is not buffer]
            pool.release(buffer)
        elif step == "view" and held:
            views.append(memoryview(choose(held)))
        elif step == "look away" and views:
            views.pop(0).release()
