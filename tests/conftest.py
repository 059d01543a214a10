"""What every test has: a deadline, and the programs it needs or a reason why not."""

import faulthandler
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator

import pytest

from loadtest.durability.postgresql import PostgreSQL, find_programs, running

# Seconds, fixtures included. Far above what a test takes; a test that hangs still ends well within CI's time.
TEST_DEADLINE = 120.0


def pytest_configure() -> None:
    # SIGALRM prints every thread's traceback from C, even when Python is stuck, then (chain) its default action ends
    # the run. Not faulthandler.dump_traceback_later: its thread makes os.fork() warn on Python 3.12 and newer.
    # Output is not captured while this hook runs, so the copy of descriptor 2 is the real one.
    faulthandler.register(signal.SIGALRM, file=os.dup(2), all_threads=True, chain=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    debugging = item.config.getoption("usepdb")
    signal.setitimer(signal.ITIMER_REAL, 0 if debugging else TEST_DEADLINE)  # not inherited by forked children
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """A function from a program's name to its path.

    Where the program is missing it skips the test, and fails it under FASTSMTP_REQUIRE_ALL=1.
    """

    # Debian keeps smtp-source and smtp-sink in /usr/sbin, which is not in every user's PATH.
    search_path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

    def require(name: str) -> str:
        path = shutil.which(name, path=search_path)
        if path is not None:
            return path
        reason = f"{name} is not installed (make system-deps)"
        if os.environ.get("FASTSMTP_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)

    return require


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server that runs; where there is none to run, the test is skipped, or fails under FASTSMTP_REQUIRE_ALL=1."""
    programs = find_programs()
    if programs is None:
        reason = "PostgreSQL is not installed (make system-deps)"
        if os.environ.get("FASTSMTP_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with running(programs) as server:
        yield server
