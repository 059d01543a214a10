"""Mail that is passed straight on: the client hears what the next hop says."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trustme

from fastsmtp.protocol.envelope import Message, Recipient, Sender
from fastsmtp.store import StoreError, check_url, describe, open_store
from tests.client.hops import CLOSE, PLAIN, FakeHop, run, running, running_in_thread
from tests.server.running import running as serving
from tests.server.running import starting
from tests.server.secured import issue
from tests.server.waiting import until
from tests.store.fakes import CONTENT, FakeSession, make_message

CAT = Recipient("cat", "example.org")


def forward(fake: FakeHop, *messages: Message) -> list[StoreError | None]:
    async def main() -> list[StoreError | None]:
        async with running(fake):
            scheme = "lmtp" if fake.lmtp else "smtp"
            async with open_store(f"forward:{scheme}://127.0.0.1:{fake.port}?tls=off", slot=0) as store:
                return list(await store.store(messages))

    return run(main())


def replies(errors: Sequence[StoreError | None]) -> list[str]:
    return [str(error.reply) if error else "ok" for error in errors]


def test_it_is_stored_when_the_next_hop_has_it() -> None:
    fake = FakeHop()
    assert forward(fake, make_message(), make_message(id="M2")) == [None, None]
    for content in fake.contents:
        assert content.startswith(b"Received: from client.example ([192.0.2.7])\r\n\tby mx.example with ESMTP id M")
        assert content.endswith(CONTENT)
        assert b"Return-Path" not in content  # that is for final delivery
    assert fake.commands[0] == "EHLO mx.example"


@pytest.mark.parametrize(
    ("answers", "reply"),
    [
        ({"MAIL": ["550 5.7.1 not from you"], "RCPT": ["503 5.5.1 MAIL first"]}, "550 5.7.1 not from you"),
        ({"RCPT": ["550 5.1.1 no such user"]}, "550 5.1.1 no such user"),
        ({"DATA": ["452 4.3.1 full"]}, "452 4.3.1 full"),
        ({".": ["554 spam \x1b[1m\xe4"]}, "554 5.0.0 spam ?[1m??"),
        ({".": ["550-5.7.1 one\r\n550 5.7.1 two"]}, "550 5.7.1 one\ntwo"),
        ({".": ["451 " + "x" * 600]}, "451 4.0.0 " + "x" * 500),
        ({".": ["421 4.3.2 goodbye"]}, "451 4.3.2 goodbye"),
        ({".": [CLOSE]}, "451 4.4.2 the next hop did not answer, try again later"),
        ({"banner": ["554 no"]}, "451 4.3.2 the next hop does not talk to us: 554 no"),
        ({"banner": [CLOSE]}, "451 4.4.1 no answer from the next hop"),
    ],
)
def test_the_client_hears_what_the_next_hop_says(answers: dict[str, list[str]], reply: str) -> None:
    (error,) = forward(FakeHop(PLAIN, answers), make_message())
    assert error is not None
    assert str(error.reply) == reply
    assert all(len(line) <= 510 for line in error.reply.encoded.split(b"\r\n"))


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize(
    ("answers", "reply"),
    [
        (["250 ok", "550 5.1.1 no"], "550 5.1.1 no"),
        (["550 5.1.1 no", "451 4.2.0 later"], "451 4.2.0 later"),
    ],
)
def test_if_one_recipient_is_refused_nobody_gets_it(lmtp: bool, answers: list[str], reply: str) -> None:
    fake = FakeHop(answers={"RCPT": answers}, lmtp=lmtp)
    message = make_message(recipients=(Recipient("bob", "example.org"), CAT))
    assert replies(forward(fake, message)) == [reply]
    assert fake.contents == []


def test_a_verdict_behind_the_content_counts_for_all() -> None:
    fake = FakeHop(answers={".": ["250 ok", "452 4.2.2 full"]}, lmtp=True)
    message = make_message(recipients=(Recipient("bob", "example.org"), CAT))
    assert replies(forward(fake, message)) == ["452 4.2.2 full"]


@pytest.mark.parametrize(
    "answers", [{"RCPT": ["250 ok", "550 5.1.1 no"]}, {".": ["250 ok", "452 4.2.2 full"]}], ids=["before", "behind"]
)
def test_an_lmtp_client_hears_of_each_recipient(answers: dict[str, list[str]]) -> None:
    fake = FakeHop(answers=answers, lmtp=True)
    message = make_message(recipients=(Recipient("bob", "example.org"), CAT), session=FakeSession(is_lmtp=True))
    (error,) = forward(fake, message)
    assert error
    refusal = next(iter(answers.values()))[1]
    assert [reply and str(reply) for reply in error.replies] == [None, refusal]
    assert len(fake.contents) == 1


def test_one_refused_message_does_not_touch_the_others() -> None:
    fake = FakeHop(answers={".": ["554 5.7.1 spam"]})
    messages = [make_message(id=f"M{number}") for number in range(5)]
    assert sorted(replies(forward(fake, *messages))) == ["554 5.7.1 spam", *["ok"] * 4]


def test_what_the_next_hop_does_not_take_is_refused() -> None:
    sender = Sender("jürgen", "example.com", smtputf8=True)
    assert replies(forward(FakeHop(()), make_message(sender=sender)))[0].startswith("553 5.6.7 ")


def test_nobody_there() -> None:
    async def main() -> list[StoreError | None]:
        async with open_store("forward:smtp://127.0.0.1:1", slot=0) as store:
            return list(await store.store([make_message()]))

    assert replies(run(main())) == ["451 4.4.1 no answer from the next hop"]


def test_a_password_that_is_not_there_is_found_at_the_start() -> None:
    async def main() -> None:
        async with open_store("forward:smtp://me@127.0.0.1?password=env:NO_SUCH_SECRET", slot=0):
            pass

    with pytest.raises(StoreError, match="env:NO_SUCH_SECRET: there is no secret"):
        run(main())


def test_urls() -> None:
    check_url("forward:lmtp://unix:/run/dovecot/lmtp")
    assert describe("forward:smtp://relay.example:2525?tls=off") == "the next hop, smtp://relay.example:2525"
    with pytest.raises(ValueError, match="expected smtp://"):
        check_url("forward:relay.example")


# -- with real servers ------------------------------------------------------------------------------------------------


def test_through_a_server_to_a_server(tmp_path: Path) -> None:
    """Dots, long messages, chunks: what comes out is what went in, and each 250 is the next hop's."""
    hostile = b"Subject: x\r\n\r\n.\r\n..\r\n.x\r\n" + b"." * 998 + b"\r\n" + bytes(range(128, 256)) + b"\r\n"
    large = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 200_000
    with (
        serving(tmp_path, "--store=maildir:./mail", name="next") as hop,
        serving(tmp_path, f"--store=forward:smtp://127.0.0.1:{hop.host_and_port[1]}", workers=2) as server,
    ):
        client = server.greeted()
        for content in (hostile, large, b""):
            client.begin_data()
            client.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            client.expect("250 2.0.0 accepted")
        client.quit()
    stored = sorted((file.read_bytes() for file in (tmp_path / "mail" / "new").iterdir()), key=len)
    for octets, content in zip(stored, (b"", hostile, large), strict=True):
        _, received, last = octets.partition(b"\r\nReceived: ")[2].partition(b"\r\nReceived: ")
        assert received  # one of each server
        assert last.partition(b"+0000\r\n")[2] == content


def test_a_slow_message_does_not_hold_up_the_others(tmp_path: Path) -> None:
    waits, release = threading.Event(), threading.Event()

    def hold_the_first() -> None:
        if not waits.is_set():
            waits.set()
            release.wait(20)

    with (
        running_in_thread(FakeHop(PLAIN, on_content=hold_the_first)) as hop,
        serving(tmp_path, f"--store=forward:{hop.hop}?tls=off") as server,
    ):
        slow, quick = server.greeted(), server.greeted()
        slow.begin_data()
        slow.send(b"Subject: slow\r\n\r\n.\r\n")
        assert waits.wait(10)
        quick.deliver()
        release.set()
        slow.expect("250 2.0.0 accepted")


def test_each_recipient_of_an_lmtp_front_hears_of_itself(tmp_path: Path) -> None:
    hop_has_one = FakeHop(answers={".": ["250 2.0.0 kept", "452 4.2.2 full"]}, lmtp=True)
    with (
        running_in_thread(hop_has_one) as hop,
        serving(tmp_path, f"--store=forward:{hop.hop}?tls=off", listen=["127.0.0.1:0 lmtp"]) as server,
    ):
        client = server.connect()
        client.expect("220")
        client.ask("LHLO client.example", "250")
        client.ask("MAIL FROM:<alice@example.com>", "250")
        client.ask("RCPT TO:<bob@example.org>", "250")
        client.ask("RCPT TO:<cat@example.org>", "250")
        client.ask("DATA", "354")
        client.send(b"Subject: x\r\n\r\n.\r\n")
        client.expect("250 2.0.0 accepted")
        client.expect("452 4.2.2 full")


def test_inside_tls_from_the_first_octet_on(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = issue(tmp_path, authority, "127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    options = ("--store=maildir:./mail", f"--tls-certfile={certificate}")

    async def main(port: int) -> list[StoreError | None]:
        url = f"forward:smtps://127.0.0.1:{port}"
        async with open_store(f"{url}?ca={tmp_path}/ca.pem", slot=0) as good, open_store(url, slot=0) as bad:
            return [*await good.store([make_message()]), *await bad.store([make_message()])]

    with serving(tmp_path, *options, listen=["127.0.0.1:0 implicit_tls"], name="next") as hop:
        stored, refused = run(main(hop.host_and_port[1]))
    assert stored is None
    assert refused is not None
    assert str(refused.reply) == "451 4.7.5 the next hop offers no TLS that will do"
    assert "certificate verify failed" in refused.reason
    (file,) = (tmp_path / "mail" / "new").iterdir()
    assert b" with ESMTPS id " in file.read_bytes()


def test_smuggling_ends_here(tmp_path: Path) -> None:
    """Content that is kept as it came is not passed on as it came (CVE-2023-51764)."""
    smuggled = b"Subject: x\r\n\r\na\n.\nMAIL FROM:<evil@example.com>\r\nb\r.\rc\r\n"
    with serving(tmp_path, "--store=maildir:./mail", name="next") as hop:
        forward = f"--store=forward:smtp://127.0.0.1:{hop.host_and_port[1]}"
        with serving(tmp_path, forward, "--bare-newline=keep") as server:
            server.greeted().deliver(smuggled)
    (file,) = (tmp_path / "mail" / "new").iterdir()
    assert file.read_bytes().endswith(b"\r\n\r\na\r\n.\r\nMAIL FROM:<evil@example.com>\r\nb . c\r\n")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


SINK_SAYS = {
    "-f MAIL": "500 5.3.0 Error: command failed",
    "-f RCPT": "500 5.3.0 Error: command failed",
    "-f DATA": "500 5.3.0 Error: command failed",
    "-f .": "500 5.3.0 Error: command failed",
    "-r RCPT": "450 4.3.0 Error: command failed",
    "-r .": "450 4.3.0 Error: command failed",
    "-q MAIL": "451 4.4.2 the next hop did not answer, try again later",
    "-q .": "451 4.4.2 the next hop did not answer, try again later",
    "-Q RCPT": "451 ",
    "-f connect": "451 4.3.2 ",
    "-r ehlo": "451 4.3.2 ",
    "-e": "ok",
    "-p": "ok",
}


@pytest.mark.parametrize("option", SINK_SAYS)
def test_the_ways_in_which_smtp_sink_fails(tmp_path: Path, require_program: Callable[[str], str], option: str) -> None:
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [require_program("smtp-sink"), "-c", *user, *option.split(), f"127.0.0.1:{port}", "100"]
    message = make_message(b"Subject: x\r\n\r\n.\r\n")

    async def main() -> list[StoreError | None]:
        async with open_store(f"forward:smtp://127.0.0.1:{port}", slot=0) as store:
            return [*await store.store([message]), *await store.store([message])]

    with starting(tmp_path, command, name="sink"):
        until(lambda: is_open(port), "smtp-sink listens")
        first, second = replies(run(main()))
    assert first.startswith(SINK_SAYS[option])
    assert second.startswith(SINK_SAYS[option])
