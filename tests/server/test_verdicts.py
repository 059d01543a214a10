"""What each answer of each hook does on the wire, for hooks of each kind (handler.py, standards.md F)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.server import journal
from tests.server.client import Client
from tests.server.planned import SECRET, plan
from tests.server.running import Server, running
from tests.server.waiting import until

KINDS = ("Async", "Inline", "Thread")

# What leads up to a hook: commands, each with its reply; the reply to the last one is the hook's affair.
EHLO = ("EHLO client.example", "250")
MAIL = ("MAIL FROM:<a@a.example>", "250 2.1.0")
RCPT = ("RCPT TO:<b@b.example>", "250 2.1.5")
DATA = ("DATA", "354")
WAYS: dict[str, list[tuple[str, str]]] = {
    "welcome": [],
    "helo": [("HELO client.example", "")],
    "ehlo": [EHLO],
    "mail": [EHLO, MAIL],
    "rcpt": [EHLO, MAIL, RCPT],
    "data": [EHLO, MAIL, RCPT, DATA, ("Subject: x\r\n\r\nx\r\n.", "")],
    "rset": [EHLO, ("RSET", "")],
    "noop": [EHLO, ("NOOP", "")],
    "vrfy": [EHLO, ("VRFY somebody", "")],
    "help": [EHLO, ("HELP me", "")],
    "error": [EHLO, ("FROB", "")],
}
# The replies of acceptance, of REJECT, and of a 2xx of the hook's own.
ACCEPTED = {
    "welcome": "220 mx.example ESMTP",
    "helo": "250 mx.example",
    "ehlo": "250-mx.example\n",
    "mail": "250 2.1.0 ",
    "rcpt": "250 2.1.5 ",
    "data": "250 2.0.0 accepted, ",
    "rset": "250 2.0.0 ",
    "noop": "250 2.0.0 ",
    "vrfy": "252 2.0.0 ",
    "help": "214 2.0.0 ",
    "error": "500 5.5.2 ",
}
REJECTED = {hook: "550 5.7.1 " if hook in ("helo", "ehlo", "mail", "rcpt", "vrfy") else "554 5.7.1 " for hook in WAYS}
OWN = {hook: "250-mx.example own words\n" if hook == "ehlo" else "250 2.0.0 own words" for hook in WAYS}
OWN["welcome"] = "220 own words"
ANSWERS: dict[str, tuple[str, bool]] = {  # what the client reads, and whether the connection is closed behind it
    "own-4xx": ("450 4.7.1 own words", False),
    "own-5xx": ("550 5.7.1 own words", False),
    "own-421": ("421 4.7.1 own words", True),
    "own-close": ("554 5.7.1 own words", True),
    "close": ("421 4.7.0 mx.example ", True),
    "smtp-error": ("452 4.7.1 own words", False),
    "smtp-error-close": ("521 5.7.1 own words", True),
}
ACCEPTING = ("none", "accept", "own-2xx")
BROKEN = ("value-error", "a-string", "a-bool", "a-354")


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("verdicts")
    plan(directory)
    with running(directory, f"tests.server.planned:{request.param}", "--hostname=mx.example") as server:
        yield server


def _provoke(client: Client, hook: str) -> str:
    """Goes on to where the hook answers; returns what the client reads there."""
    if hook == "welcome":
        return client.reply()
    client.expect("220 ")
    *before, (last, _) = WAYS[hook]
    for line, reply in before:
        client.ask(line, reply)
    return client.ask(last, "")


def _expected(hook: str, answer: str) -> tuple[str, bool]:
    if answer in ("none", "accept"):
        return ACCEPTED[hook], False
    if answer == "own-2xx":
        return OWN[hook], False
    if answer == "reject":
        return REJECTED[hook], False
    if answer in BROKEN:
        # The error hook only has a say in a refusal that stands; a banner that cannot be decided ends the session.
        return (ACCEPTED["error"], False) if hook == "error" else ("451 4.3.0 ", hook == "welcome")
    return ANSWERS[answer]


def _goes_on(client: Client, hook: str, answer: str) -> None:
    """The session is in step, and in the state that the rules ask for."""
    accepted = answer in ACCEPTING
    if hook == "welcome" and not accepted:
        client.ask("NOOP", "503 5.5.1 ")  # RFC 5321 3.1
        client.ask("EHLO client.example", "503 5.5.1 ")
    elif hook in ("welcome", "helo", "ehlo"):
        client.ask("NOOP", "250 2.0.0 ")
        client.ask("MAIL FROM:<a@a.example>", "250 " if accepted and hook != "welcome" else "503 5.5.1 ")
    elif hook in ("mail", "rcpt"):
        client.ask("NOOP", "250 2.0.0 ")
        client.ask("RCPT TO:<c@b.example>", "250 " if accepted or (hook == "rcpt" and answer not in BROKEN) else "503 ")
    else:
        client.ask("RCPT TO:<c@b.example>", "503 5.5.1 ")
        client.deliver()
    client.quit()


@pytest.mark.parametrize("answer", [*ACCEPTING, "reject", *ANSWERS, *BROKEN])
@pytest.mark.parametrize("hook", WAYS)
def test_what_an_answer_does(server: Server, hook: str, answer: str) -> None:
    plan(server.directory, **{hook: "own-220" if (hook, answer) == ("welcome", "own-2xx") else answer})
    text, closes = _expected(hook, answer)
    with server.connect() as client:
        assert _provoke(client, hook).startswith(text)
        plan(server.directory)
        if closes:
            client.expect_end()
        else:
            _goes_on(client, hook, answer)


@pytest.mark.parametrize("hook", [*WAYS, "closed"])
def test_what_a_hook_raises_is_logged_whole_and_never_sent(server: Server, hook: str) -> None:
    before = len(server.log)
    plan(server.directory, **{hook: "value-error"})
    with server.connect() as client:
        if hook == "closed":
            client.greet().ask("QUIT", "221")
            said = client.rest()
        else:
            said = _provoke(client, hook).encode()
            client.send(b"QUIT\r\n")
            said += client.rest()
    assert SECRET.encode() not in said
    assert b"ValueError" not in said
    pattern = rf"ERROR fastsmtp\.handler: session \S+: hook {hook} raised\nTraceback (?:.*\n)+?ValueError: {SECRET}$"
    until(lambda: re.search(pattern, server.log[before:], re.MULTILINE), "the traceback")


@pytest.mark.parametrize("hook", WAYS)
def test_a_wrong_return_value_is_explained_in_the_log(server: Server, hook: str) -> None:
    before = len(server.log)
    plan(server.directory, **{hook: "a-string"})
    with server.connect() as client:
        _provoke(client, hook)
    until(lambda: f"hook {hook} returned {SECRET!r}: must be None, ACCEPT" in server.log[before:], "the explanation")


@pytest.mark.parametrize("leave", [Client.quit, Client.shut, Client.reset])
def test_closed_is_the_last_call_and_its_answer_does_not_matter(
    server: Server, leave: Callable[[Client], None]
) -> None:
    for answer in (*ACCEPTING, "reject", *ANSWERS, *BROKEN):
        (server.directory / journal.NAME).unlink(missing_ok=True)
        plan(server.directory, closed=answer)
        with server.greeted() as client:
            port = client.port
            leave(client)
            until(partial(journal.events, server.directory, port=port, hook="closed"), "the closed hook", 5)
        calls = [event["hook"] for event in journal.events(server.directory, port=port)]
        assert calls == ["welcome", "ehlo", "closed"], answer
    with server.greeted() as client:
        client.deliver()


def test_hooks_get_the_documented_arguments(server: Server) -> None:
    (server.directory / journal.NAME).unlink(missing_ok=True)
    plan(server.directory)
    with server.connect() as client:
        client.expect("220 ")
        for line, start in (
            ("HELO old.example", "250"),
            ("EHLO [192.0.2.1]", "250"),
            ("NOOP for nothing", "250"),
            ("NOOP", "250"),
            ("VRFY <somebody@b.example>", "252"),
            ("HELP MAIL", "214"),
            ("FROB", "500"),
            ("RSET", "250"),
            ("MAIL FROM:<>", "250"),
            ('RCPT TO:<"b b"@B.Example>', "250"),
            ("DATA", "354"),
            ("Subject: x\r\n\r\nx\r\n.", "250"),
            ("QUIT", "221"),
        ):
            client.ask(line, start)
        client.expect_end()
        port = client.port
    until(lambda: journal.events(server.directory, port=port, hook="data"), "the data hook")
    calls = [call for call in journal.events(server.directory, port=port) if call["hook"] != "closed"]
    assert [(call["hook"], *call["arguments"]) for call in calls] == [
        ("welcome",),
        ("helo", "str old.example"),
        ("ehlo", "str [192.0.2.1]"),
        ("noop", "str for nothing"),
        ("noop", "str "),
        ("vrfy", "str <somebody@b.example>"),
        ("help", "str MAIL"),
        ("error", "Reply 500 5.5.2 command not recognized"),
        ("rset",),
        ("mail", "Sender "),
        ("rcpt", 'Recipient "b b"@b.example'),
        ("data", "Message Subject: x\r\n\r\nx\r\n"),
    ]
    assert {call["session"] for call in calls} == {"Session"}


def test_hooks_run_where_their_kind_says(server: Server) -> None:
    (server.directory / journal.NAME).unlink(missing_ok=True)
    plan(server.directory)
    with server.greeted() as client:
        client.deliver()
        client.quit()
    on_loop = "Thread" not in server.wait_for_log("handler: tests.server.planned:(.*)$")[0][1]
    assert {event["main_thread"] for event in journal.events(server.directory)} == {on_loop}


@pytest.mark.parametrize("kind", KINDS)
def test_the_timeout_hook_has_its_say_but_421_and_a_close_follow(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """handler.py, `timeout`: 421 and a close follow, whatever this returns."""
    directory = tmp_path_factory.mktemp("timeout")
    plan(directory, timeout="by name")
    arguments = (f"tests.server.planned:{kind}", "--hostname=mx.example", "--command-timeout=1")
    answers = [*ACCEPTING, "reject", *ANSWERS, *BROKEN]
    with running(directory, *arguments) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connect()).greet(f"{answer}.example") for answer in answers]
        said = {answer: client.rest().decode() for answer, client in zip(answers, clients, strict=True)}
        assert len(journal.events(directory, hook="timeout")) == len(answers)
    for answer, text in said.items():
        own = "421 4.7.1 own words\r\n" if answer == "own-421" else ""
        own = own or ("421 4.7.0 mx.example closing connection\r\n" if answer == "close" else "")
        assert text == (own or "421 4.4.2 mx.example timeout, closing connection\r\n"), answer
