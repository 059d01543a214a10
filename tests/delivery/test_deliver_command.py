"""``fastsmtp deliver`` as processes: from a server's queue to real next hops, killed and stopped on the way."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from fastsmtp.cli import main
from fastsmtp.protocol.envelope import Sender
from fastsmtp.queue import Mail, Queue, State
from tests.client.hops import PLAIN, FakeHop, run, running_in_thread, to
from tests.delivery.dovecot import dovecot
from tests.delivery.mailroom import ALICE
from tests.delivery.name_server import name_server
from tests.server.processes import children_of, is_alive
from tests.server.running import Server, starting
from tests.server.running import running as serving
from tests.server.secured import issue
from tests.server.waiting import until

CONTENT = b"Subject: hello\r\n\r\nIt works.\r\n.\r\n"
QUICK = ("--first-retry=0.2", "--longest-retry=0.5", "--hostname=mx.example", "--lease=1")


@contextmanager
def delivering(directory: Path, *options: str, name: str = "deliver", quick: Sequence[str] = QUICK) -> Iterator[Server]:
    command = [sys.executable, "-m", "fastsmtp", "deliver", "--from=queue:./queue", *quick, *options]
    with starting(directory, command, {"RELAY_PASSWORD": "correct horse"}, name) as process:
        yield process


def queued(directory: Path, *recipients: str, count: int = 1, sender: Sender = ALICE) -> None:
    """Puts mail into the queue."""

    async def put() -> None:
        async with Queue.open(f"queue:{directory}/queue") as queue:
            trace = [f"Received: by mx.example id M{number};\r\n\tx\r\n".encode() for number in range(count)]
            mails = [Mail(sender, to(*recipients), CONTENT, f"M{number}", trace[number]) for number in range(count)]
            await queue.put(mails)

    run(put())


def accepted(directory: Path, *recipients: str, count: int) -> None:
    """Mail that a real server has taken into the queue."""
    with serving(directory, "--store=queue:./queue", "--dsn", name="acceptor") as server:
        client = server.greeted()
        for _ in range(count):
            client.ask("MAIL FROM:<alice@home.example>", "250")
            for recipient in recipients:
                client.ask(f"RCPT TO:<{recipient}>", "250")
            client.ask("DATA", "354")
            client.send(CONTENT.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            client.expect("250 ")
        assert server.stop() == 0


def stored(directory: Path, name: str = "mail") -> list[bytes]:
    new = directory / name / "new"
    return [file.read_bytes() for file in new.iterdir()] if new.is_dir() else []


def count(directory: Path, *states: State) -> int:
    """How many items there are in these states; without states, in all."""

    async def look() -> int:
        async with Queue.open(f"queue:{directory}/queue") as queue:
            items = (await queue.stats()).items
            return sum(items[state] for state in states or State)

    return run(look())


def is_empty(directory: Path) -> bool:
    return count(directory) == 0


def test_from_a_server_through_the_queue_to_a_server(tmp_path: Path) -> None:
    accepted(tmp_path, "bob@away.example", "eve@elsewhere.example", count=3)
    with (
        serving(tmp_path, "--store=maildir:./mail", name="next") as hop,
        delivering(tmp_path, f"--to=smtp://127.0.0.1:{hop.host_and_port[1]}", "--workers=2") as deliver,
    ):
        until(lambda: len(stored(tmp_path)) == 6, "everything is delivered")
        lines = deliver.wait_for_access(6, "event=delivery")
        assert deliver.stop() == 0
        assert re.search(r"INFO fastsmtp\.delivery: \d sent", deliver.log)
    assert all(" status=sent " in line and ' reply="250 2.0.0 accepted, ' in line for line in lines)
    for octets in stored(tmp_path):
        assert octets.count(b"\r\nReceived: ") == 2
        assert octets.startswith(b"Return-Path: <alice@home.example>\r\n")
        assert octets.endswith(CONTENT)
    assert is_empty(tmp_path)


def test_to_each_domain_own_hosts(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """The best host refuses for the moment, the next one is not there, the third one takes it."""
    with socket.create_server(("127.0.0.4", 0)) as free:
        port = free.getsockname()[1]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    sink = [require_program("smtp-sink"), "-c", *user, "-r", "RCPT", f"127.0.0.2:{port}", "100"]
    zone = {
        "away.example MX": "10 first.away.example., 20 second.away.example., 30 third.away.example.",
        "first.away.example A": "127.0.0.2",
        "second.away.example A": "127.0.0.3",
        "third.away.example A": "127.0.0.4",
        "null.example MX": "0 .",
        "home.example A": "127.0.0.4",
    }
    queued(tmp_path, "bob@away.example", "bob@null.example", "bob@nowhere.example")
    with (
        name_server(zone) as dns,
        starting(tmp_path, sink, name="sink"),
        serving(tmp_path, "--store=maildir:./mail", listen=[f"127.0.0.4:{port}"], name="next"),
        delivering(tmp_path, f"--to=mx:?port={port}", f"--dns=127.0.0.1:{dns.address[1]}") as deliver,
    ):
        until(lambda: len(stored(tmp_path)) == 3, "the message and two reports are delivered")
        (line,) = deliver.wait_for_access(1, "to=<bob@away.example>")
        assert " status=sent " in line
        assert " hop=smtp://third.away.example:" in line
        assert deliver.stop() == 0
    reports = b"".join(octets for octets in stored(tmp_path) if b"multipart/report" in octets)
    assert b"Status: 5.1.10\r\n" in reports
    assert b"Status: 5.1.2\r\n" in reports
    assert is_empty(tmp_path)


def test_to_a_relay_with_tls_and_a_login(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = issue(tmp_path, authority, "127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    add = [sys.executable, "-m", "fastsmtp", "user", "add", "users", "me@home.example"]
    subprocess.run(add, cwd=tmp_path, input="correct horse\n", text=True, timeout=60, check=True)
    demands = (f"--tls-certfile={certificate}", "--require-tls", "--require-auth", "--users=users")
    queued(tmp_path, "bob@away.example")
    with serving(tmp_path, "--store=maildir:./mail", *demands, name="next") as relay:
        url = f"smtp://me%40home.example@127.0.0.1:{relay.host_and_port[1]}?password=env:RELAY_PASSWORD"
        with delivering(tmp_path, f"--to={url}", name="stranger") as deliver:  # the authority is not believed
            deliver.wait_for_access(1, "status=deferred")
        with delivering(tmp_path, f"--to={url}&ca={tmp_path}/ca.pem") as deliver:
            until(lambda: len(stored(tmp_path)) == 1, "it is delivered")
            deliver.wait_for_access(1, "status=sent")
            assert "horse" not in deliver.log
    assert b" with ESMTPSA id " in stored(tmp_path)[0]


def test_to_dovecot(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    program = require_program("dovecot")
    queued(tmp_path, "ann@here.example", "bob@here.example", "eve@here.example", sender=Sender("", ""))
    with dovecot(program, "ann", "bob") as boxes, delivering(tmp_path, f"--to={boxes.url}") as deliver:
        lines = deliver.wait_for_access(3, "event=delivery")
        assert deliver.stop() == 0
        (mail,) = boxes.mail_of("ann")
        assert len(boxes.mail_of("bob")) == 1
    assert [re.findall(r" status=(\w+)", line)[0] for line in lines] == ["sent", "sent", "failed"]
    assert "User doesn't exist" in lines[2]
    assert mail.startswith(b"Return-Path: <>\n")
    assert mail.endswith(CONTENT.replace(b"\r\n", b"\n"))


# -- crashes and stops ------------------------------------------------------------------------------------------------


def test_a_kill_between_the_answer_and_the_note_costs_at_most_a_second_copy(tmp_path: Path) -> None:
    """The next hop has the whole message, and the process dies before it can note that."""
    killed: list[int] = []
    with running_in_thread(FakeHop(PLAIN)) as hop, delivering(tmp_path, f"--to={hop.hop}?tls=off") as deliver:

        def kill() -> None:
            if len(killed) < 3:
                victims = children_of(deliver.pid)
                killed.extend(victims)
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)

        hop.on_content = kill
        queued(tmp_path, "bob@away.example", count=4)
        until(lambda: is_empty(tmp_path), "everything is delivered", 60)
        assert deliver.stop() == 0
    assert len(killed) >= 3
    ids = [re.findall(rb" id (M\d);\r\n", content)[0] for content in hop.contents]
    assert set(ids) == {b"M0", b"M1", b"M2", b"M3"}  # nothing is lost
    assert 4 < len(ids) <= 4 + 4 * len(killed)  # and each kill costs at most what was in hand


def test_a_stop_lets_the_attempt_at_hand_finish(tmp_path: Path) -> None:
    with running_in_thread(FakeHop(PLAIN)) as hop, delivering(tmp_path, f"--to={hop.hop}?tls=off") as deliver:
        hop.on_content = lambda: deliver.send_signal(signal.SIGTERM)
        queued(tmp_path, "bob@away.example")
        assert deliver.wait() == 0
    assert len(hop.contents) == 1
    assert is_empty(tmp_path)


def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    queued(tmp_path, "bob@away.example")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with delivering(tmp_path, f"--to=smtp://127.0.0.1:{port}", "--drain-timeout=0.2") as deliver:
            connection, _ = silent.accept()
            assert deliver.stop() == 1
            connection.close()
    assert not is_alive(deliver.pid)
    assert count(tmp_path, State.READY, State.DEFERRED) == 1  # given back at once


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "Missing option '--to'"),
        (("--to=relay.example",), "expected smtp://HOST"),
        (("--to=mx:relay",), "expected mx:"),
        (("--to=mx:?colour=red",), "option 'colour'"),
        (("--to=mx:", "--dns=host:port"), "expected an address"),
        (("--to=mx:", "--dkim=a:b"), "expected DOMAIN:SELECTOR:FILE"),
        (("--to=mx:", "--from=maildir:./mail"), "--from"),
    ],
)
def test_what_is_wrong_is_said_at_once(options: tuple[str, ...], text: str) -> None:
    done = CliRunner().invoke(main, ["deliver", "--from=queue:./queue", *options])
    assert done.exit_code == 2
    assert text in done.output
