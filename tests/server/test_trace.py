"""Traced sessions: all of the dialogue, in order, never a secret or content; filters; and nobody waits for a reader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from fastsmtp.protocol.sasl import MECHANISMS
from fastsmtp.server.trace_link import MOST_TRACES, Filter, TraceLink
from tests.server.admin_client import ADMIN, TOKEN, AdminClient, admin_pid
from tests.server.gates import open_gate
from tests.server.logins import PASSWORD
from tests.server.logins import TOKEN as BEARER
from tests.server.running import Server, environment, running
from tests.server.saslclient import encoded, log_in, plain
from tests.server.secured import issue, start_tls
from tests.server.test_auth_secrets import LINES, SECRET, forms
from tests.server.trace_reader import TraceReader, told, tracing
from tests.server.waiting import until

PLAIN = ("--store=discard:", "--hostname=mx.example", *ADMIN)


def sent(admin: AdminClient) -> int:
    """How many records the workers have sent."""
    count: int = admin.status()["totals"]["trace_records"]["sent"]
    return count


def deliver(server: Server, recipient: str = "b@b.example", source: str = "") -> None:
    """A session with one message."""
    with server.connect(source=source) as client:
        client.greet()
        client.begin_data(recipient=recipient)
        client.send(b"x\r\n.\r\n")
        client.expect("250")
        client.quit()


# -- the dialogue ----------------------------------------------------------------------------------------------------


def test_a_session(tmp_path: Path) -> None:
    with (
        running(tmp_path, *PLAIN, "--no-chunking", "--no-limits") as server,
        tracing(AdminClient.of(server)) as reader,
    ):
        with server.connect() as client:
            client.expect("220")
            client.send(b"EHLO c\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<bad>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
            for code in ("250", "250", "501", "250", "354"):
                client.expect(code)
            client.send(b"Subject: private\r\n\r\nprivate\r\n.\r\nRSET\r\nRSET\r\n\r\nNO\xffSUCH\x1b\r\nQUIT\r\n")
            accepted = client.expect("250")
            for code in ("250", "250", "500", "500", "221"):
                client.expect(code)
            client.expect_end()
        assert reader.session() == [
            "begin",
            "S: 220 mx.example ESMTP",
            "C: EHLO c",
            "S: 250-mx.example | 250-PIPELINING | 250-SIZE 33554432 | 250-8BITMIME | 250-SMTPUTF8"
            " | 250 ENHANCEDSTATUSCODES",
            "C: MAIL FROM:<a@a.example>",
            "S: 250 2.1.0 sender ok",
            "C: RCPT TO:<bad>",
            "S: 501 5.1.3 bad address",
            "C: RCPT TO:<b@b.example>",
            "S: 250 2.1.5 recipient ok",
            "C: DATA",
            "S: 354 end data with <CR><LF>.<CR><LF>",
            "content 29",
            f"S: {accepted}",
            "C: RSET",
            "S: 250 2.0.0 ok",
            "C: RSET",
            "S: 250 2.0.0 ok",
            "C: ",
            "S: 500 5.5.2 command not recognized",
            "C: NO\\xffSUCH\x1b",
            "S: 500 5.5.2 command not recognized",
            "C: QUIT",
            "S: 221 2.0.0 mx.example closing connection",
            "end quit",
        ]
        begin = reader.seen[1]
        host, port = server.host_and_port
        assert (begin["listener"], begin["local"], begin["tls"]) == (f"{host}:{port}", f"{host}:{port}", None)
        assert begin["peer"] == f"127.0.0.1:{client_port(begin)}"
        assert "private" not in reader.raw


def client_port(begin: dict[str, str]) -> int:
    return int(begin["peer"].rpartition(":")[2])


def test_chunks_and_content_that_nobody_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server, tracing(AdminClient.of(server)) as reader:
        with server.greeted() as client:
            client.send(
                b"MAIL FROM:<a@a.example>\r\nDATA\r\nSubject: private\r\nprivate\r\n.\r\nRCPT TO:<b@b.example>\r\n"
            )
            for code in ("250", "503", "500", "500", "500", "250"):
                client.expect(code)
            client.send(b"BDAT 7\r\nprivateBDAT 2 LAST\r\n\r\nQUIT\r\n")
            for code in ("250", "250", "221"):
                client.expect(code)
        lines = [line for line in reader.session() if line[0] != "S"]
        assert lines[2:] == [
            "C: MAIL FROM:<a@a.example>",
            "C: DATA",
            "C: (16 octets that are no command)",
            "C: (7 octets that are no command)",
            "C: (1 octets that are no command)",
            "C: RCPT TO:<b@b.example>",
            "C: BDAT 7",
            "C: BDAT 2 LAST",
            "C: QUIT",
            "end quit",
        ]
        assert "private" not in reader.raw


def test_each_reply_of_lmtp_and_a_time_out(tmp_path: Path) -> None:
    with (
        running(tmp_path, *PLAIN, "--lmtp", "--command-timeout=0.1") as server,
        tracing(AdminClient.of(server)) as reader,
    ):
        with server.connect() as client:
            client.expect("220")
            client.send(b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
            for code in ("250", "250", "250", "250", "354"):
                client.expect(code)
            client.send(b".\r\n")
            accepted = [client.expect("250") for _ in range(2)]
            late = client.expect("421")
        assert reader.session()[-5:] == [
            "content 0",
            *(f"S: {each}" for each in (*accepted, late)),
            "end closed by server",
        ]


def test_a_command_is_told_before_its_hook_works(tmp_path: Path) -> None:
    with (
        running(tmp_path, "tests.server.apps:ThreadGate", *PLAIN) as server,
        tracing(AdminClient.of(server)) as reader,
        server.greeted() as client,
    ):
        client.ask("MAIL FROM:<a@a.example>", "250")
        client.send(b"RCPT TO:<gate-rcpt@b.example>\r\nQUIT\r\n")
        seen = reader.read_until(lambda record: record.get("line", "").startswith("RCPT"))
        assert told(seen[-2]) == "S: 250 2.1.0 sender ok"
        open_gate(tmp_path, "rcpt")
        assert reader.session() == [
            "S: 250 2.1.5 recipient ok",
            "C: QUIT",
            "S: 221 2.0.0 mx.example closing connection",
            "end quit",
        ]


# -- secrets ---------------------------------------------------------------------------------------------------------


def secret_forms(secret: str) -> set[str]:
    return forms(secret) | {encoded(secret), encoded(secret).rstrip("=")}


LOGINS = (
    "tests.server.logins:ThreadedLogins",
    *PLAIN,
    "--no-auth-requires-tls",
    "--auth-failure-delay=0",
    "--max-auth-failures=1000",
    "--auth-failures-per-client=1000",
    "--error-delay=0",
    "--max-errors=1000",
)


def test_no_secret_of_a_line_is_told(tmp_path: Path) -> None:
    """Whatever becomes of the line, and of the one behind it that a client says without looking at replies."""
    with running(tmp_path, *LOGINS) as server, tracing(AdminClient.of(server)) as reader:
        name, word = encoded("alice"), encoded(SECRET)
        for line in (*LINES, f"AUTH LOGIN {name}\r\n{word}", f"AUTH LOGIN\r\n{name}\r\n{word}", f"AUTH\r\n{word}"):
            with server.greeted() as client:
                client.send(line.encode("latin-1") + b"\r\n*\r\nNOOP\r\nQUIT\r\n")
                client.rest()
            lines = reader.session()
            assert lines[-1].startswith("end ")
            assert any(each.startswith("C: ") for each in lines[4:])
        assert [form for form in secret_forms(SECRET) if form in reader.raw] == []


def test_no_response_is_told(tmp_path: Path) -> None:
    with running(tmp_path, *LOGINS) as server:
        for mechanism in MECHANISMS:
            if not mechanism.endswith("-PLUS"):
                with tracing(AdminClient.of(server)) as reader:
                    check_logins(server, reader, mechanism)


def check_logins(server: Server, reader: TraceReader, mechanism: str) -> None:
    """One login that is right, and one that is wrong: neither response nor challenge nor name is told."""
    secret = BEARER if mechanism in ("XOAUTH2", "OAUTHBEARER") else PASSWORD
    wrong = SECRET.replace(" ", ".")  # a token has no space
    for given, code in ((secret, "235"), (wrong, "535")):
        with server.greeted() as client:
            assert log_in(client, mechanism, "alice", given).startswith(code)
            client.quit()
        lines = reader.session()
        assert f"C: AUTH {mechanism}" in lines
        assert [line for line in lines if line.startswith(f"S: {code}")] != []
        assert [line for line in lines if line.startswith("S: 334") and line != "S: 334 (not shown)"] == []
        shown = {line for line in lines if line[0] == "C"} - {"C: EHLO client.example", "C: QUIT"}
        assert shown <= {"C: (not shown)", f"C: AUTH {mechanism}"}
    assert [form for form in secret_forms(secret) | secret_forms(wrong) | {"alice"} if form in reader.raw] == []


def test_starttls(tmp_path: Path) -> None:
    certificate = issue(tmp_path, trustme.CA(), "localhost")
    tls = f"--tls-certfile={certificate}"
    with (
        running(tmp_path, "tests.server.logins:AsyncLogins", *PLAIN, tls) as server,
        tracing(AdminClient.of(server)) as reader,
    ):
        with server.greeted() as client:
            client.socket = start_tls(client)
            client.ask("EHLO inside", "250")
            client.ask(plain("alice", PASSWORD), "235")
            client.quit()
        lines = [line for line in reader.session() if "250-" not in line]
        assert lines[2:] == [
            "C: EHLO client.example",
            "C: STARTTLS",
            *[line for line in lines if line.startswith("S: 220 2.0.0")],
            "tls",
            "C: EHLO inside",
            "C: AUTH PLAIN",
            *[line for line in lines if line.startswith("S: 235")],
            "C: QUIT",
            *[line for line in lines if line.startswith("S: 221")],
            "end quit",
        ]
        (told_of_tls,) = (each for each in reader.seen if each["event"] == "tls")
        assert told_of_tls["version"] == "TLSv1.3"
        assert [form for form in secret_forms(PASSWORD) if form in reader.raw] == []


# -- filters ---------------------------------------------------------------------------------------------------------


def test_filters_of_several_traces_at_once(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN, listen=["127.0.0.1:0", "127.0.0.1:0"]) as server:
        admin = AdminClient.of(server)
        second = server.addresses[1]
        assert isinstance(second, tuple)
        host, port = second
        with (
            tracing(admin, peer="127.0.0.2/31") as of_peers,
            tracing(admin, rcpt="Wanted.example") as of_domain,
            tracing(admin, listener=f"{host}:{port}") as of_listener,
            tracing(admin, peer="127.0.0.3", rcpt="wanted.example") as of_both,
        ):
            deliver(server, "x@other.example", "127.0.0.4")
            deliver(server, "one@other.example", "127.0.0.2")
            deliver(server, "two@WANTED.example", "127.0.0.4")
            deliver(server, "three@wanted.example", "127.0.0.3")
            with server.connect(at=1) as client:
                client.greet()
                client.quit()
            recipients = {
                "peers": ["one@other.example", "three@wanted.example"],
                "domain": ["two@WANTED.example", "three@wanted.example"],
                "both": ["three@wanted.example"],
            }
            for name, reader in (("peers", of_peers), ("domain", of_domain), ("both", of_both)):
                for recipient in recipients[name]:
                    lines = reader.session()
                    assert lines[0] == "begin" or lines[1] == "begin"  # another trace may have begun meanwhile
                    assert f"C: RCPT TO:<{recipient}>" in lines
            assert "C: EHLO client.example" in of_listener.session()
            assert [each["listener"] for each in of_listener.seen if each["event"] == "begin"] == [f"{host}:{port}"]


def test_what_was_said_before_the_recipient_is_told_in_order(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server, tracing(AdminClient.of(server), rcpt="b.example") as reader:
        deliver(server, "a@a.example")
        with server.greeted() as client:
            client.ask("NOOP", "250")
            client.ask("MAIL FROM:<a@a.example>", "250")
            client.ask("RCPT TO:<a@a.example>", "250")
            client.ask("RCPT TO:<b@b.example>", "250")
            client.quit()
        lines = reader.session()
        assert [line for line in lines if line[0] == "C"] == [
            "C: EHLO client.example",
            "C: NOOP",
            "C: MAIL FROM:<a@a.example>",
            "C: RCPT TO:<a@a.example>",
            "C: RCPT TO:<b@b.example>",
            "C: QUIT",
        ]
        times = [each["time"] for each in reader.seen]
        assert times == sorted(times)
        assert len({each["session"] for each in reader.seen if "session" in each}) == 1


def test_a_trace_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    queries = [
        "peer=10.0.0.1/8",
        "peer=x",
        "rcpt=",
        "listener=127.0.0.1:1",
        "duration=0",
        "duration=x",
        "what=1",
        "peer",
    ]
    with running(tmp_path, *PLAIN) as server:
        for query in queries:
            answer = AdminClient.of(server).get(f"/trace?{query}", Authorization=f"Bearer {TOKEN}")
            assert (answer.status, bool(answer.body.strip())) == (400, True), query


# -- who may, and what it costs --------------------------------------------------------------------------------------


def test_a_trace_needs_the_token(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        assert admin.get("/trace").status == 403
        assert admin.get("/trace", Authorization="Bearer wrong").status == 403
        assert admin.ask("HEAD", "/trace", Authorization=f"Bearer {TOKEN}").status == 200
        assert admin.post("/trace").status == 405


def test_there_is_an_end_to_traces_at_a_time(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        readers = [tracing(admin, workers=0) for _ in range(MOST_TRACES)]
        for each in readers:
            each.__enter__()
        assert admin.get("/trace", Authorization=f"Bearer {TOKEN}").status == 503
        for each in readers:
            each.__exit__(None, None, None)
        with_token = {"Authorization": f"Bearer {TOKEN}"}
        until(lambda: admin.get("/trace?duration=0.01", **with_token).status == 200, "there is room again")


def test_without_a_reader_nothing_is_recorded(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        deliver(server)
        assert sent(admin) == 0
        with tracing(admin) as reader:
            deliver(server)
            reader.session()
        assert sent(admin) > 0

        def is_quiet() -> bool:
            before = sent(admin)
            deliver(server)
            return sent(admin) == before

        until(is_quiet, "nobody traces any more")


def test_a_session_that_was_there_before_is_not_traced(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server, server.greeted() as early, tracing(AdminClient.of(server)) as reader:
        early.ask("NOOP", "250")
        early.quit()
        deliver(server)
        assert reader.session()[0] == "begin"


def test_a_reader_that_does_not_read_slows_nobody(tmp_path: Path) -> None:
    """It loses records, and is told."""
    path = tmp_path / "admin.sock"
    with running(tmp_path, "--store=discard:", f"--admin=unix:{path}", "--max-junk-commands=1000000") as server:
        admin = AdminClient(path)
        with tracing(admin) as reader, server.greeted() as client:
            flight, flights = b"NOOP\r\n" * 500, 40
            began = time.monotonic()
            for _ in range(flights):
                client.send(flight)
                for _ in range(500):
                    client.expect("250")
            assert admin.get("/readyz").status == 200
            client.quit()
            assert time.monotonic() - began < 60
            lost = reader.read_until(lambda record: record["event"] == "dropped")[-1]["records"]
            until(lambda: admin.status()["totals"]["trace_records"]["sent"] > 0, "it is counted")
            dropped = admin.status()["totals"]["trace_records"]["dropped"]
            assert lost + dropped > 0
            assert len(reader.seen) + lost + dropped <= 2 * 500 * flights + 100
            deliver(server)
            reader.read_until(lambda record: record["event"] == "content")


def test_a_trace_ends_with_the_admin_process_and_the_next_one_knows_nothing_of_it(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        with tracing(admin) as reader:
            os.kill(admin_pid(server, admin), signal.SIGKILL)
            with pytest.raises((EOFError, OSError)):
                reader.read()
            deliver(server)
        with tracing(admin) as reader:
            deliver(server)
            lines = reader.session()
            assert (lines[0], lines.count("begin")) == ("begin", 1)


def test_workers_that_come_later_trace_too(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        with tracing(admin) as reader:
            os.kill(admin.pids()[0], signal.SIGKILL)
            reader.read_until(lambda record: record["event"] == "tracing")
            deliver(server)
            assert "C: EHLO client.example" in reader.session()


def test_a_stream_ends_with_its_duration_and_with_the_server(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        admin = AdminClient.of(server)
        answer = admin.get("/trace?duration=0.1", Authorization=f"Bearer {TOKEN}")
        assert (answer.status, answer.fields["content-type"]) == (200, "application/jsonl")
        assert json.loads(answer.body.splitlines()[-1])["event"] == "over"
        old = admin.raw(
            f"GET /trace?duration=0.1 HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(), shut=False
        )
        head, _, body = old.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert json.loads(body.splitlines()[-1])["event"] == "over"
        with tracing(admin) as reader:
            assert server.stop() == 0
            with pytest.raises((EOFError, OSError)):
                reader.read()


# -- board and socket ------------------------------------------------------------------------------------------------


def test_the_board() -> None:
    link = TraceLink()
    try:
        assert link.read() == {}
        first = link.number
        traces = {number: Filter(rcpt=f"{number}.example") for number in range(1, MOST_TRACES + 1)}
        link.write(traces)
        assert link.read() == traces
        assert link.number != first
        link.write({7: Filter("192.0.2.0/24", None, "unix:/run/x")})
        assert link.read() == {7: Filter("192.0.2.0/24", None, "unix:/run/x")}
        for bad in ({**traces, 99: Filter()}, {1: Filter(rcpt="x" * 1100)}):
            with pytest.raises(ValueError, match="too"):
                link.write(bad)
        assert link.read() == {7: Filter("192.0.2.0/24", None, "unix:/run/x")}
    finally:
        link.close()


def test_a_full_socket_loses_and_never_waits() -> None:
    link = TraceLink()
    try:
        count = 0
        while link.send([1], {"event": "reply", "lines": ["x" * 100]}):
            count += 1
        assert count > 100
        assert len(list(link.received())) == count
        assert link.send([1], {"event": "reply"})
    finally:
        link.close()


# -- the command -----------------------------------------------------------------------------------------------------


def trace_command(server: Server, *arguments: str) -> subprocess.Popen[str]:
    address = AdminClient.of(server).host_and_port
    command = [sys.executable, "-m", "fastsmtp", "trace", f"--admin={address}", *arguments]
    environ = environment({"FASTSMTP_ADMIN_TOKEN": TOKEN})
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def test_the_command(tmp_path: Path) -> None:
    with (
        running(tmp_path, *PLAIN) as server,
        trace_command(server, "--peer=127.0.0.1") as text,
        trace_command(server, "--peer=127.0.0.1", "--json") as objects,
    ):
        try:
            shown, told_as_json = lines_of(text, 1), lines_of(objects, 1)
            with server.connect() as client:
                client.expect("220")
                client.ask("\x1b[31mEHLO", "500")
                client.quit()
            shown += lines_of(text, 7)
            told_as_json += lines_of(objects, 7)
            assert shown[0].endswith("-- worker 0 traces")
            assert shown[3].endswith(r" C: \x1b[31mEHLO")
            assert shown[-1].endswith(" -- ends: quit, 0 messages")
            events = [json.loads(line)["event"] for line in told_as_json]
            assert events == ["tracing", "begin", "reply", "command", "reply", "command", "reply", "end"]
            os.kill(admin_pid(server, AdminClient.of(server)), signal.SIGKILL)  # the next one is asked again
            assert lines_of(text, 1)[0].endswith("-- worker 0 traces")
            server.stop()
            _, complaint = text.communicate(timeout=20)
            assert text.returncode == 1
            assert AdminClient.of(server).host_and_port in complaint
        finally:
            text.kill()
            objects.kill()


def test_the_command_ends_with_its_duration(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server, trace_command(server, "--duration=0.2") as process:
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert output.endswith("-- the time is over\n")


def test_the_command_says_why_it_cannot(tmp_path: Path) -> None:
    with running(tmp_path, *PLAIN) as server:
        for arguments, why in ((["--token", "x" * 16], "control needs"), (["--peer", "x"], "x")):
            with trace_command(server, *arguments) as process:
                _, complaint = process.communicate(timeout=20)
                assert process.returncode == 1
                assert why in complaint
