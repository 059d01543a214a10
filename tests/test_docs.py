"""The documents say what the code has: settings, files, hooks, names; their links and their Python work."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import fastsmtp
from docs import make_metrics
from docs.make_settings import PAGE, page
from fastsmtp import ACCEPT, Endpoint, Reply
from fastsmtp.config import SETTINGS, Config
from fastsmtp.protocol import extensions, replies, sasl
from fastsmtp.protocol.commands import SMTP
from fastsmtp.protocol.events import HOOKS, Decider
from fastsmtp.protocol.extensions import Switches, offer
from fastsmtp.protocol.limits import Limits
from fastsmtp.protocol.policy import Policy
from fastsmtp.protocol.replies import HostReplies
from fastsmtp.protocol.service import Service
from fastsmtp.protocol.xclient import XClient
from fastsmtp.server import master

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docker/README.md",
]
PYTHON = [
    pytest.param(code, id=f"{document.relative_to(ROOT)}-{number}")
    for document in DOCUMENTS
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL))
]
HANDLERS = (ROOT / "docs" / "handlers.md").read_text()
PROTOCOL_PAGE, SECURITY_PAGE = ROOT / "docs" / "protocol.md", ROOT / "docs" / "security.md"
PROTOCOL = PROTOCOL_PAGE.read_text()


def anchors(text: str) -> set[str]:
    """What the headings of a document may be linked to as."""
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run make settings"


def test_metrics_page_is_up_to_date() -> None:
    assert make_metrics.PAGE.read_text() == make_metrics.page(), "run make metrics"


def test_settings_page_names_every_setting() -> None:
    assert [name for name, about in SETTINGS.items() if f"| `{name}`<br>`{about.flag}" not in page()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not link.startswith("https://") and (
            not target.exists() or (anchor and anchor not in anchors(target.read_text()))
        ):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_documents_runs(code: str) -> None:
    # Hooks, fixtures and tests are only defined here; test_examples.py and the test below run them.
    exec(compile(code, "<document>", "exec"), {"__name__": "document"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_the_package_exist(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(r"\bfastsmtp\.(?!py\b|toml\b|sqlite\b)([A-Za-z_]+)", text))
    named |= {name.strip() for names in re.findall(r"from fastsmtp import (.+)", text) for name in names.split(",")}
    assert [name for name in named if not hasattr(fastsmtp, name)] == []


def test_settings_that_the_documents_name_exist() -> None:
    flags = {about.flag for about in SETTINGS.values()} | {"--config", "--help", "--no-preload"}
    for document in DOCUMENTS:
        text = document.read_text()
        assert set(re.findall(r"fastsmtp serve[^\n`]*?(--[a-z-]+)", text)) <= flags
        assert set(re.findall(r"FASTSMTP_[A-Z0-9_]+", text)) <= {
            *(about.environment for about in SETTINGS.values()),
            "FASTSMTP_",
            "FASTSMTP_CONFIG",
        }


def test_every_hook_is_described_with_its_arguments() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \|([^|]*)\|", HANDLERS)
    described = {name: re.findall(r"`(\w+): \w+`", arguments) for name, arguments in rows if name in HOOKS}
    assert described == {
        name: list(inspect.signature(getattr(fastsmtp.Handler, name)).parameters)[2:] for name in HOOKS
    }


@pytest.mark.parametrize("name", fastsmtp.__all__)
def test_every_public_name_is_described(name: str) -> None:
    assert re.search(rf"\b{name}\b", HANDLERS) or re.search(rf"\b{name}\b", (ROOT / "README.md").read_text())


def told_to_handlers(described: type) -> set[str]:
    """The attributes that a handler may look at: those of the docstring where the driver has some of its own."""
    if described is fastsmtp.Session:
        docstring = inspect.getdoc(described) or ""
        properties = {"user_data", "server_name", "errors", "protocol"}
        return properties | set(re.findall(r"(?m)^    (\w+): ", docstring)) - {"service"}
    properties = {name for name, value in inspect.getmembers(described) if isinstance(value, property)}
    slots = {slot for each in described.__mro__ for slot in getattr(each, "__slots__", ())}
    return {name for name in slots | properties | {*getattr(described, "_fields", ())} if not name.startswith("_")}


@pytest.mark.parametrize(
    "described",
    [
        fastsmtp.Session,
        fastsmtp.Message,
        fastsmtp.Sender,
        fastsmtp.Recipient,
        fastsmtp.DeliverBy,
        fastsmtp.TLS,
        fastsmtp.Credentials,
        fastsmtp.ScramKey,
        XClient,
    ],
)
def test_public_attributes_are_described(described: type) -> None:
    public = told_to_handlers(described)
    assert public
    assert [name for name in sorted(public) if not re.search(rf"`(?:\w+\.)?{name}`", HANDLERS)] == []


def test_every_file_is_described() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "fastsmtp"
    files = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    described = set(re.findall(r"(?m)^\| `([\w/]+\.py)` \|", text))
    assert described == {file for file in files if file == "__init__.py" or not file.endswith("/__init__.py")}


def test_exit_codes_are_described() -> None:
    codes = {value for name, value in vars(master).items() if name.startswith("EXIT_")}
    usage = 2  # click's, for a wrong command line; ours for a wrong setting
    assert {int(code) for code in re.findall(r"(?m)^\| (\d) \|", (ROOT / "README.md").read_text())} == codes | {usage}


def test_the_test_of_a_handler_works(tmp_path: Path) -> None:
    (handler,) = re.findall(r"```python\n(# inbox\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (test,) = re.findall(r"```python\n([^`]*def test_[^`]*)```", HANDLERS)
    (tmp_path / "inbox.py").write_text(handler)
    (tmp_path / "test_inbox.py").write_text(test)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


# -- protocol.md ------------------------------------------------------------------------------------------------------

REPLY_ROW = re.compile(r"(?m)^\| (\d{3}) \| ([\d.]*) ?\| `(.*?)` \| (close )?\|")
ELSEWHERE = {  # replies that are put together where they are said
    ("250", "", "HOST, then a line for each keyword", False),
    ("250", "2.0.0", "accepted, ID", False),
    ("250", "2.0.0", "N octets received", False),
    ("334", "", "base64", False),
}


def test_every_reply_is_described() -> None:
    described = {
        (code, enhanced.strip(), text, bool(close)) for code, enhanced, text, close in REPLY_ROW.findall(PROTOCOL)
    }
    named = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}
    of_the_host = [value for value in vars(HostReplies("HOST")).values() if isinstance(value, Reply)]
    said = {
        (str(reply.code), reply.enhanced or "", reply.text, reply.close) for reply in [*named.values(), *of_the_host]
    }
    assert described == said | ELSEWHERE


def extension_rows() -> list[list[str]]:
    section = PROTOCOL.partition("\n## Extensions\n")[2].partition("\n## ")[0]
    return [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in re.findall(r"(?m)^\| [A-Z0-9-]+ +\| `\w+` \|.*$", section)
    ]


def test_every_extension_is_described_with_its_setting_and_default() -> None:
    for keyword, setting, default, *_ in extension_rows():
        value = getattr(Config(), setting.strip("`"))
        assert default == ("on" if value else "off"), keyword
    described = [row[0] for row in extension_rows()]
    switches = Switches(binarymime=True, dsn=True, requiretls=True, deliverby=True, futurerelease=60, mt_priority=True)
    everything = offer(
        switches,
        Limits(),
        tls=True,
        authenticated=True,
        starttls=True,
        mechanisms=("PLAIN",),
        xclient=True,
        now=lambda: datetime.now(UTC),
    )
    assert sorted(described) == sorted(keyword.partition(" ")[0] for keyword in everything.keywords)


def test_every_parameter_is_described() -> None:
    parameters = {
        name.decode()
        for value in vars(extensions).values()
        if isinstance(value, extensions.Extension)
        for name in (*value.mail, *value.rcpt)
    }
    cells = " ".join(row[4] for row in extension_rows())
    assert {name for name in parameters | {"SIZE", "AUTH", "BY", "HOLDFOR", "HOLDUNTIL"} if name not in cells} == set()


def test_what_handlers_see_of_an_extension_exists() -> None:
    classes = {"sender": fastsmtp.Sender, "recipient": fastsmtp.Recipient, "session": fastsmtp.Session}
    for row in extension_rows():
        for owner, name in re.findall(r"`(\w+)\.(\w+)`", row[5]):
            assert hasattr(classes[owner], name), row


# -- the table of commands --

BEGINNINGS = {
    "start": [],
    "ready": ["EHLO a"],
    "mail": ["EHLO a", "MAIL FROM:<>"],
    "rcpt": ["EHLO a", "MAIL FROM:<>", "RCPT TO:<a@b>"],
    "chunks": ["EHLO a", "MAIL FROM:<>", "RCPT TO:<a@b>", "BDAT 1\r\nx"],
}
ARGUMENTS = {
    "EHLO": "a",
    "HELO": "a",
    "LHLO": "a",
    "MAIL": "FROM:<>",
    "RCPT": "TO:<a@b>",
    "BDAT": "1\r\nx",
    "AUTH": "PLAIN AGEAYg==",
    "XCLIENT": "ADDR=192.0.2.1",
    "VRFY": "a",
    "EXPN": "a",
}


def reply_in(beginning: list[str], command: str) -> str:
    """The code of the reply to a command."""
    policy = Policy(starttls=True, auth_requires_tls=False)
    deciders: dict[str, Decider] = {"auth": lambda session, arguments: ACCEPT}
    place = Endpoint("192.0.2.1", 25)
    session = fastsmtp.Session(Service("mx.example", policy=policy), deciders, None, "id", place, place, None, True)
    session.greet()
    for line in beginning:
        session.receive(f"{line}\r\n".encode())
    session.output.clear()
    end = "" if command.startswith("BDAT") else "\r\n"
    session.receive(f"{command}{end}".encode())
    return session.output[0][:3].decode()


COMMAND_ROWS = [
    (verb, state, code.strip())
    for verbs, codes in re.findall(
        r"(?m)^\| ([A-Z, ]+) ((?:\| \d{3} ){5})\|$", PROTOCOL.partition("\n### Commands\n")[2]
    )
    for verb in verbs.split(", ")
    for state, code in zip(BEGINNINGS, codes.split("|")[1:], strict=True)
]


@pytest.mark.parametrize(("verb", "state", "code"), COMMAND_ROWS)
def test_the_table_of_commands(verb: str, state: str, code: str) -> None:
    assert reply_in(BEGINNINGS[state], f"{verb} {ARGUMENTS.get(verb, '')}".strip()) == code


def test_the_table_of_commands_is_complete() -> None:
    assert {verb.encode() for verb, _, _ in COMMAND_ROWS} == set(SMTP.ready)


# -- settings, tests and logins that the documents tell of -----------------------------------------------------------

WORDS = {"lmtp", "keep", "normalize"}  # values, and settings that are words of their own


@pytest.mark.parametrize("document", [PROTOCOL_PAGE, SECURITY_PAGE], ids=lambda path: path.name)
def test_settings_in_backticks_exist(document: Path) -> None:
    """Each lower-case name with an underscore is a setting, or something of the package."""
    known = {*SETTINGS, *HOOKS, *WORDS}
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", document.read_text()))
    assert named - known == set()


def test_tests_that_the_documents_name_exist() -> None:
    named = [
        name
        for document in DOCUMENTS
        for name in re.findall(r"`((?:tests/)[\w/]+\.(?:py|txt)(?:::\w+)?)`", document.read_text())
    ]
    assert named
    missing = []
    for name in named:
        file, _, function = name.partition("::")
        if not (ROOT / file).is_file() or (function and f"def {function}(" not in (ROOT / file).read_text()):
            missing.append(name)
    assert missing == []


def login_hook() -> Decider:
    """The auth hook of the page on handlers."""
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", HANDLERS, re.DOTALL) if "def auth(" in code]
    scope: dict[str, object] = {"__name__": "document"}
    exec(compile(code, "<document>", "exec"), scope)
    handler: fastsmtp.Handler = scope["Submission"]()  # type: ignore[operator]  # a class of the document's
    return lambda session, arguments: handler.auth(session, *arguments)


def authenticate(exchange: sasl.Exchange, *responses: bytes) -> sasl.Step:
    """Drives an exchange with the page's hook until it is over, or the client is to speak again."""
    decide, place = login_hook(), Endpoint("192.0.2.1", 25)
    session = fastsmtp.Session(Service("mx.example"), {}, None, "id", place, place)
    step: sasl.Step | None = None
    for response in responses:
        step = exchange.respond(response)
        while isinstance(step, fastsmtp.Credentials):
            answer = decide(session, (step,))
            step = (
                exchange.keyed(answer)
                if isinstance(answer, fastsmtp.ScramKey)
                else exchange.decided(answer in (None, ACCEPT))
            )
    assert step is not None
    return step


@pytest.mark.parametrize(
    ("response", "accepted"),
    [
        (b"\0ann@example.org\0correct horse", True),
        (b"\0ann@example.org\0wrong", False),
        (b"\0ann@example.org\0corr\xc3\xa9ct", False),
        (b"\0bob@example.org\0correct horse", False),
    ],
)
def test_the_login_of_the_page_decides_on_passwords(response: bytes, accepted: bool) -> None:
    outcome = authenticate(sasl.begin("PLAIN", "mx.example", {}), response)
    assert isinstance(outcome, sasl.Outcome)
    assert outcome.accepted is accepted


def test_the_login_of_the_page_hands_out_keys() -> None:
    exchange = sasl.begin("SCRAM-SHA-256", "mx.example", {})
    challenge = authenticate(exchange, b"n,,n=ann@example.org,r=nonce")
    assert isinstance(challenge, sasl.Challenge)
    assert challenge.octets.startswith(b"r=nonce")
