"""Transactions with a next hop: order, groups, answers for each recipient, and what it does not offer."""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from fastsmtp.client import Connection, Hop, HopError, Patience, Response, TransferError
from fastsmtp.protocol.envelope import Recipient, Sender
from tests.client.hops import CLOSE, CONTENT, EVERYTHING, PLAIN, FakeHop, outgoing, run, running

PATIENCE = Patience(connect=5, command=5, block=5, end=5)


def converse(fake: FakeHop, *messages: object, hop: Hop | None = None) -> list[list[Response]]:
    """Sends messages over one connection, says goodbye, and returns the answers to each."""

    async def main() -> list[list[Response]]:
        async with running(fake):
            at = replace(hop, host="127.0.0.1", port=fake.port) if hop else fake.hop
            connection = await Connection.open(at, "client.example", PATIENCE)
            answers = [await connection.send(message) for message in messages]  # type: ignore[arg-type]
            await connection.quit()
            return answers

    return run(main())


def codes(answers: list[Response]) -> list[int]:
    return [answer.code for answer in answers]


@pytest.mark.parametrize("keywords", [EVERYTHING, PLAIN, ()])
@pytest.mark.parametrize("lmtp", [False, True])
def test_a_message_is_sent(keywords: tuple[str, ...], lmtp: bool) -> None:
    fake = FakeHop(keywords, lmtp=lmtp)
    (answers,) = converse(fake, outgoing("bob@example.org", "eve@example.org", header=b"X: y\r\n"))
    assert [str(answer) for answer in answers] == ["250 2.0.0 taken"] * 2
    assert fake.contents == [b"X: y\r\n" + CONTENT]
    content = ["BDAT"] if "CHUNKING" in keywords else ["DATA"]
    assert fake.verbs == ["LHLO" if lmtp else "EHLO", "MAIL", "RCPT", "RCPT", *content, "QUIT"]


def test_a_server_of_old_is_greeted_with_helo() -> None:
    fake = FakeHop((), {"EHLO": ["502 what?"]})
    assert codes(converse(fake, outgoing())[0]) == [250]
    assert fake.verbs == ["EHLO", "HELO", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize("keywords", [EVERYTHING, PLAIN, ()])
@pytest.mark.parametrize("lmtp", [False, True])
def test_refused_recipients_do_not_keep_the_others_from_their_mail(keywords: tuple[str, ...], lmtp: bool) -> None:
    fake = FakeHop(keywords, {"RCPT": ["250 ok", "550 5.1.1 no", "450 4.2.0 later"]}, lmtp=lmtp)
    (answers,) = converse(fake, outgoing("a@b.example", "b@b.example", "c@b.example"))
    assert [str(answer) for answer in answers] == ["250 2.0.0 taken", "550 5.1.1 no", "450 4.2.0 later"]
    assert fake.contents == [CONTENT]


def test_lmtp_has_a_verdict_for_each_recipient_that_it_took() -> None:
    fake = FakeHop(
        answers={"RCPT": ["250 a", "550 b", "250 c"], ".": ["452 4.2.2 full", "250 2.0.0 c has it"]}, lmtp=True
    )
    (answers,) = converse(fake, outgoing("a@b.example", "b@b.example", "c@b.example"))
    assert [str(answer) for answer in answers] == ["452 4.2.2 full", "550 b", "250 2.0.0 c has it"]


def test_all_or_none_sends_nothing_if_one_is_refused() -> None:
    fake = FakeHop(answers={"RCPT": ["250 ok", "550 5.1.1 no"]})
    first, second = converse(fake, outgoing("a@b.example", "b@b.example", all_or_none=True), outgoing())
    assert codes(first) == [250, 550]
    assert codes(second) == [250]
    assert fake.verbs == ["EHLO", "MAIL", "RCPT", "RCPT", "RSET", "MAIL", "RCPT", "BDAT", "QUIT"]


@pytest.mark.parametrize("keywords", [EVERYTHING, PLAIN, ()])
@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"MAIL": ["550 5.7.1 not you"], "RCPT": ["503 first MAIL", "503 first MAIL"]}, "550 5.7.1 not you"),
        ({"RCPT": ["550 5.1.1 no", "550 5.1.1 no"]}, "550 5.1.1 no"),
        ({".": ["554 5.7.1 spam"]}, "554 5.7.1 spam"),
    ],
)
def test_after_a_refusal_the_next_message_goes_through(
    keywords: tuple[str, ...], answers: dict[str, list[str]], said: str
) -> None:
    fake = FakeHop(keywords, {key: list(value) for key, value in answers.items()})
    if "PIPELINING" not in keywords and "MAIL" in answers:
        del fake.answers["RCPT"]
    first, second = converse(fake, outgoing("a@b.example", "b@b.example"), outgoing())
    assert {str(answer) for answer in first} == {said}
    assert codes(second) == [250]


def test_what_lmtp_said_counts_although_it_hung_up() -> None:
    fake = FakeHop(answers={".": ["250 2.0.0 a has it", CLOSE]}, lmtp=True)
    (answers,) = converse(fake, outgoing("a@b.example", "b@b.example", "c@b.example"))
    assert codes(answers) == [250, 451, 451]


def test_a_hop_that_hangs_up_in_the_content_may_say_why() -> None:
    content = CONTENT + b"0123456789abcdef\r\n" * 1_000_000  # more than the kernel takes
    fake = FakeHop(PLAIN, {"DATA": ["354 go on\r\n552 5.3.4 too much"]}, reads_content=False)
    ((answer,),) = converse(fake, outgoing(content=content))
    assert str(answer) == "552 5.3.4 too much"


def test_data_may_be_refused() -> None:
    fake = FakeHop(PLAIN, {"DATA": ["451 4.3.0 not now"]})
    first, second = converse(fake, outgoing(), outgoing())
    assert [codes(first), codes(second)] == [[451], [250]]
    assert fake.contents == [CONTENT]


def test_large_content_goes_in_chunks_and_a_refused_chunk_ends_it() -> None:
    content = CONTENT + b"0123456789abcdef\r\n" * 150_000
    fake = FakeHop(tuple(keyword for keyword in EVERYTHING if "SIZE" not in keyword))
    assert codes(converse(fake, outgoing(content=content))[0]) == [250]
    assert fake.contents == [content]
    sizes = [int(command.split()[1]) for command in fake.commands if command.startswith("BDAT")]
    assert len(sizes) == 3
    assert sum(sizes) == len(content)
    fake = FakeHop(fake.keywords, {"BDAT": ["552 5.3.4 enough"]})
    first, second = converse(fake, outgoing(content=content), outgoing())
    assert [codes(first), codes(second)] == [[552], [250]]


def test_many_recipients_go_in_groups() -> None:
    fake = FakeHop(answers={"RCPT": ["250 ok"] * 249 + ["550 no"]})
    (answers,) = converse(fake, outgoing(*(f"u{number}@b.example" for number in range(250))))
    assert codes(answers) == [250] * 249 + [550]


# -- what the hop offers ----------------------------------------------------------------------------------------------

GERMAN = Sender("jürgen", "example.com", smtputf8=True)
UTF8 = Sender("alice", "example.com", smtputf8=True)
EIGHT = b"Subject: x\r\n\r\n\xc3\xa4\r\n"


def test_parameters_are_passed_on_where_they_are_offered() -> None:
    sender = Sender("a", "b.example", body="8BITMIME", smtputf8=True, ret="HDRS", envid="x y", priority=3)
    message = replace(
        outgoing(sender=sender),
        recipients=[Recipient("c", "d.example", notify=("SUCCESS", "DELAY"), orcpt=("rfc822", "e+f@g.example"))],
    )
    fake = FakeHop((*EVERYTHING, "MT-PRIORITY MIXER"))
    converse(fake, message)
    size = len(CONTENT)
    assert fake.commands[1:3] == [
        f"MAIL FROM:<a@b.example> SIZE={size} BODY=8BITMIME SMTPUTF8 MT-PRIORITY=3 RET=HDRS ENVID=x+20y",
        "RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;e+2Bf@g.example",
    ]
    fake = FakeHop(())
    converse(fake, message)
    assert fake.commands[1:3] == ["MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>"]


@pytest.mark.parametrize(
    ("keywords", "message", "said"),
    [
        (("8BITMIME",), outgoing(sender=GERMAN), "553 5.6.7"),
        (("8BITMIME",), outgoing("jürgen@d.example", sender=UTF8), "553 5.6.7"),
        (("8BITMIME",), outgoing(sender=UTF8, content=b"Subject: \xc3\xa4\r\n\r\n"), "550 5.6.9"),
        (("8BITMIME",), outgoing(sender=UTF8), "250"),  # nothing in it needs SMTPUTF8
        ((), outgoing(content=EIGHT), "554 5.6.3"),
        (("8BITMIME",), outgoing(content=EIGHT), "250"),
        ((), outgoing(sender=Sender("a", "b.example", body="8BITMIME")), "250"),
        (("SIZE 10",), outgoing(), "552 5.3.4"),
        (("SIZE 0",), outgoing(), "250"),
        (("SIZE",), outgoing(), "250"),
        (("CHUNKING",), outgoing(sender=Sender("a", "b.example", body="BINARYMIME")), "554 5.6.3"),
        (("BINARYMIME", "CHUNKING"), outgoing(sender=Sender("a", "b.example", body="BINARYMIME")), "250"),
        (("REQUIRETLS",), outgoing(sender=Sender("a", "b.example", require_tls=True)), "550 5.7.30"),
    ],
)
def test_what_the_hop_cannot_take_is_not_sent(keywords: tuple[str, ...], message: object, said: str) -> None:
    fake = FakeHop(keywords)
    ((answer,),) = converse(fake, message)
    assert str(answer).startswith(said)
    assert (fake.contents != []) == said.startswith("250")


def test_a_utf8_recipient_does_not_keep_the_others_from_their_mail() -> None:
    fake = FakeHop(("8BITMIME",))
    (answers,) = converse(fake, outgoing("jürgen@d.example", "bob@d.example", sender=UTF8))
    assert [answer.enhanced for answer in answers] == ["5.6.7", "2.0.0"]


def test_with_all_or_none_it_does() -> None:
    fake = FakeHop(("8BITMIME",))
    (answers,) = converse(fake, outgoing("bob@d.example", "jürgen@d.example", sender=UTF8, all_or_none=True))
    assert [answer.enhanced for answer in answers] == ["5.6.7", "5.6.7"]
    assert fake.verbs == ["EHLO", "QUIT"]


# -- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "before_content"),
    [
        ({"MAIL": [CLOSE]}, True),
        ({"RCPT": [CLOSE]}, True),
        ({"DATA": [CLOSE]}, True),
        ({".": [CLOSE]}, False),
        ({"MAIL": ["hello"]}, True),
        ({"DATA": ["250 ok"]}, True),
    ],
)
def test_a_broken_conversation_says_whether_it_may_be_tried_again(
    answers: dict[str, list[str]], before_content: bool
) -> None:
    with pytest.raises(TransferError) as caught:
        converse(FakeHop(PLAIN, answers), outgoing())
    assert caught.value.before_content == before_content


def test_a_silent_hop_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel connects, nobody talks
        hop = Hop("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(HopError, match="gives no answer, not within"):
            run(Connection.open(hop, "c.example", PATIENCE._replace(command=0.1)))


@pytest.mark.parametrize("answers", [{"banner": ["554 no service"]}, {"EHLO": ["421 busy"]}, {"banner": [CLOSE]}])
def test_a_hop_that_does_not_want_us_says_nothing_of_the_message(answers: dict[str, list[str]]) -> None:
    with pytest.raises(HopError) as caught:
        converse(FakeHop(answers=answers), outgoing())
    assert caught.value.response.code == 451


def test_nobody_there() -> None:
    with pytest.raises(HopError, match="Connect"):
        run(Connection.open(Hop("127.0.0.1", 1), "c.example", PATIENCE))


# -- TLS and AUTH -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA, tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context for 127.0.0.1, and the file of its authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, str(path)


def test_starttls_is_used_where_it_is_offered(secure: tuple[ssl.SSLContext, str]) -> None:
    fake = FakeHop((*EVERYTHING, "STARTTLS"), context=secure[0])
    assert codes(converse(fake, outgoing())[0]) == [250]
    assert fake.verbs[:3] == ["EHLO", "STARTTLS", "EHLO"]


def test_a_required_certificate_is_checked(secure: tuple[ssl.SSLContext, str]) -> None:
    fake = FakeHop((*EVERYTHING, "STARTTLS", "REQUIRETLS"), context=secure[0])
    message = outgoing(sender=Sender("a", "b.example", require_tls=True))
    assert codes(converse(fake, message, hop=Hop("x", security="required", ca=secure[1]))[0]) == [250]
    assert " REQUIRETLS" in fake.commands[3]
    with pytest.raises(HopError, match="certificate verify failed"):
        converse(fake, message, hop=Hop("x", security="required"))
    assert codes(converse(fake, message, hop=Hop("x", security="encrypt"))[0]) == [550]


def test_the_certificate_is_for_the_name_not_for_the_address(authority: trustme.CA, tmp_path: Path) -> None:
    """An exchanger is connected to by the address that DNS gave, and is who its certificate says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mx.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    fake = FakeHop(("STARTTLS",), context=context)

    async def send(name: str) -> int:
        hop = Hop(name, fake.port, address="127.0.0.1", security="required", ca=f"{tmp_path}/ca.pem")
        connection = await Connection.open(hop, "client.example", PATIENCE)
        (answer,) = await connection.send(outgoing())
        await connection.quit()
        return answer.code

    async def main() -> None:
        async with running(fake):
            assert await send("mx.example") == 250
            with pytest.raises(HopError, match=r"not valid for 'other\.example'"):
                await send("other.example")

    run(main())


@pytest.mark.parametrize("security", ["encrypt", "required"])
@pytest.mark.parametrize(("keywords", "answers"), [((), {}), (("STARTTLS",), {"STARTTLS": ["454 4.7.0 no"]})])
def test_no_tls_no_mail(security: str, keywords: tuple[str, ...], answers: dict[str, list[str]]) -> None:
    with pytest.raises(HopError, match="STARTTLS is not offered, or refused"):
        converse(FakeHop(keywords, answers), outgoing(), hop=Hop("x", security=security))  # type: ignore[arg-type]


def test_a_failing_handshake_is_followed_by_clear_text_where_that_will_do() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # without a certificate: every handshake fails
    fake = FakeHop(("STARTTLS",), context=context)
    assert codes(converse(fake, outgoing())[0]) == [250]
    assert fake.verbs == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA", "QUIT"]
    with pytest.raises(HopError, match="TLS: "):
        converse(fake, outgoing(), hop=Hop("x", security="encrypt"))


def test_answers_injected_before_the_handshake_are_not_believed(secure: tuple[ssl.SSLContext, str]) -> None:
    """Like CVE-2011-0411, from the other side."""
    fake = FakeHop(("STARTTLS",), {"STARTTLS": ["220 go on\r\n250 hop.example"]}, context=secure[0])
    with pytest.raises(HopError, match="talked on behind its answer to STARTTLS"):
        converse(fake, outgoing())


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_login(mechanism: str, monkeypatch: pytest.MonkeyPatch, secure: tuple[ssl.SSLContext, str]) -> None:
    monkeypatch.setenv("RELAY_PASSWORD", "correct horse")
    answers = {"AUTH": ["235 2.7.0 in" if mechanism == "PLAIN" else "334 VXNlcm5hbWU6"]}
    lines = {"YW5u": ["334 UGFzc3dvcmQ6"], "Y29ycmVjdCBob3JzZQ==".upper(): ["235 2.7.0 in"]}
    fake = FakeHop(("STARTTLS", f"AUTH X {mechanism}"), {**answers, **lines}, context=secure[0])
    fake.answers.update({key.upper(): value for key, value in lines.items()})
    hop = Hop("x", security="required", ca=secure[1], user="ann", password="env:RELAY_PASSWORD")
    assert codes(converse(fake, outgoing(), hop=hop)[0]) == [250]
    said = fake.commands[3 : 4 if mechanism == "PLAIN" else 6]
    assert said == (
        ["AUTH PLAIN AGFubgBjb3JyZWN0IGhvcnNl"]
        if mechanism == "PLAIN"
        else ["AUTH LOGIN", "YW5u", "Y29ycmVjdCBob3JzZQ=="]
    )


@pytest.mark.parametrize(
    ("keywords", "answers", "text"),
    [
        (("AUTH GSSAPI",), {}, "offers none of AUTH PLAIN, LOGIN"),
        (("AUTH PLAIN",), {"AUTH": ["535 5.7.8 wrong"]}, "login as ann: 535 5.7.8 wrong"),
    ],
)
def test_no_login_no_mail(
    keywords: tuple[str, ...], answers: dict[str, list[str]], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_PASSWORD", "correct horse")
    hop = Hop("x", security="off", user="ann", password="env:RELAY_PASSWORD")
    with pytest.raises(HopError, match=text) as caught:
        converse(FakeHop(keywords, answers), outgoing(), hop=hop)
    assert "horse" not in str(caught.value)
    assert caught.value.response.code == 451
