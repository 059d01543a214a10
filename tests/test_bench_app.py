"""The handlers that speed figures refer to override the hooks that the figures' text says, in the way it says."""

from __future__ import annotations

import pytest

from fastsmtp.handler import Kind, hooks_of
from loadtest.bench_app import AsyncHooks, InlineHooks, ThreadHooks

_ALL = {"welcome", "ehlo", "mail", "rcpt", "data", "rset"}


@pytest.mark.parametrize(
    ("handler", "kind", "names"),
    [
        (AsyncHooks, Kind.ASYNC, _ALL),
        (InlineHooks, Kind.INLINE, _ALL),
        (ThreadHooks, Kind.THREAD, {"mail", "rcpt", "data"}),
    ],
)
def test_each_hook_runs_where_the_class_says(handler: type, kind: Kind, names: set[str]) -> None:
    assert {name: hook.kind for name, hook in hooks_of(handler).items()} == dict.fromkeys(names, kind)
