"""What the admin process asks of the master, over a pair of sockets in one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from fastsmtp.server.control import Control, NoAnswerError, RefusedError
from fastsmtp.server.notice import Notice
from tests.server.waiting import until


def _double(request: Mapping[str, Any]) -> str:
    return str(2 * int(request["number_of_things"]))


def _refuse(request: Mapping[str, Any]) -> str:
    raise RefusedError("not today")


@pytest.fixture
def control() -> Iterator[Control]:
    made = Control({"double": _double, "refuse": _refuse})
    yield made
    made.close()


@contextmanager
def _answering(control: Control) -> Iterator[None]:
    """A master that answers what comes."""
    enough = threading.Event()

    def answer() -> None:
        while not enough.is_set():
            control.answer()
            enough.wait(0.001)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_a_request_and_its_answer(control: Control) -> None:
    with _answering(control):
        assert control.ask("double", number_of_things=21) == "42"
        assert control.ask("double", number_of_things="4") == "8"


def test_refusals(control: Control) -> None:
    with _answering(control):
        with pytest.raises(RefusedError, match=r"^not today$"):
            control.ask("refuse")
        for do, arguments in (("no such thing", {}), ("double", {}), ("double", {"number_of_things": "many"})):
            with pytest.raises(RefusedError, match="not understood"):
                control.ask(do, **arguments)
        assert control.ask("double", number_of_things=1) == "2"


def test_a_master_that_says_nothing(control: Control) -> None:
    with pytest.raises(NoAnswerError, match="does not answer"):
        control.ask("double", number_of_things=1)
    # The late answer is not taken for that of the next request.
    with _answering(control):
        assert control.ask("double", number_of_things=3) == "6"


def test_a_master_that_is_gone(control: Control) -> None:
    control.be_admin()
    with pytest.raises(NoAnswerError, match="cannot be asked"):
        control.ask("double", number_of_things=1)


def test_the_notice_shows_what_was_written_last() -> None:
    notice = Notice()
    assert notice.read() == ""
    for text in ("one", "a longer one with Ünicode", "", "x" * 5000):
        notice.write(text)
        assert notice.read() == text[:1022]


def test_a_reader_of_the_notice_sees_no_half_text() -> None:
    notice, texts = Notice(), ("a" * 900, "b" * 300)
    enough, seen = threading.Event(), set()

    def write() -> None:
        while not enough.is_set():
            for text in texts:
                notice.write(text)
                enough.wait(0.0005)  # the master writes once in a while, not twice within a read

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2000):
            seen.add(notice.read())
        for text in texts:
            until(lambda text=text: notice.read() == text, "both are seen")  # type: ignore[misc]
    finally:
        enough.set()
        writer.join()
    assert seen <= {"", *texts}
