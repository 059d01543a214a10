"""Root binds, then becomes somebody else for good: with all workers, and never half."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastsmtp.config import Listen
from fastsmtp.server.listeners import Listener
from fastsmtp.server.privileges import Account, PrivilegeError, account
from fastsmtp.server.startup import pidfile
from tests.server.processes import children_of
from tests.server.running import ROOT, failing, starting
from tests.server.waiting import until

UID = GID = 65534  # Debian's nobody and nogroup
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


# -- who ---------------------------------------------------------------------------------------------------------------


def test_nobody_is_named() -> None:
    assert account(None, None) is None


def test_names_and_numbers() -> None:
    assert account("root", None) == Account(0, 0, "root")
    assert account("0", None) == Account(0, 0, "root")
    assert account("root", "4242") == Account(0, 4242, "root")
    assert account("4243", "4242") == Account(4243, 4242, None)
    assert account(None, "4242") == Account(os.getuid(), 4242, None)


@pytest.mark.parametrize(
    ("user", "group", "says"),
    [
        ("no-such-user", None, "user no-such-user: there is none of this name"),
        ("root", "no-such-group", "group no-such-group: there is none of this name"),
        ("4243", None, "its group must be named"),
    ],
)
def test_who_is_unknown(tmp_path: Path, user: str, group: str | None, says: str) -> None:
    with pytest.raises(PrivilegeError, match=says):
        account(user, group)
    code, log = failing(tmp_path, "--listen=127.0.0.1:0", f"--user={user}", *([f"--group={group}"] if group else []))
    assert (code, says in log, "Traceback" in log) == (2, True, False)


BECOME = """
import os, sys
from fastsmtp.server.privileges import Account, PrivilegeError, become
try:
    become(Account({uid}, {gid}, {name!r}))
except PrivilegeError as error:
    sys.exit(str(error))
print(os.getresuid(), os.getresgid(), os.getgroups())
"""


def _become(uid: int, gid: int, name: str | None, **who: object) -> subprocess.CompletedProcess[str]:
    script = BECOME.format(uid=uid, gid=gid, name=name)
    command = [_interpreter(), "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=_environment(), **who)  # type: ignore[call-overload,no-any-return]  # of subprocess.run


@NEEDS_ROOT
def test_all_of_it_is_dropped() -> None:
    """User, group and the groups of root, real, effective and saved."""
    done = _become(UID, GID, None)
    assert done.stdout == f"({UID}, {UID}, {UID}) ({GID}, {GID}, {GID}) [{GID}]\n", done.stderr


@NEEDS_ROOT
def test_who_may_not_is_told_and_who_is_it_already_is_not() -> None:
    who = {"user": UID, "group": GID, "extra_groups": [GID]}
    assert "cannot become uid 0" in _become(0, 0, "root", **who).stderr
    assert "cannot become uid 4243" in _become(4243, GID, None, **who).stderr
    assert _become(UID, GID, None, **who).returncode == 0


# -- what the user may have put in the way -----------------------------------------------------------------------------

OPEN = """
import os, sys
from fastsmtp.config import Config
from fastsmtp.server.log_files import LogFiles
from fastsmtp.server.privileges import Account
try:
    LogFiles(Config(log_file=sys.argv[1])).open(Account({uid}, {gid}, None))
except OSError as error:
    sys.exit(f"{{error.filename}}: {{error.strerror}}")
os.write(2, b"a line\\n")
"""


def _write_a_line(log: Path, **streams: object) -> subprocess.CompletedProcess[str]:
    """As root, to a log that is to be somebody else's."""
    command = [sys.executable, "-c", OPEN.format(uid=UID, gid=GID), str(log)]
    streams = streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(command, text=True, timeout=30, check=False, env=_environment(), **streams)  # type: ignore[call-overload,no-any-return]  # of subprocess.run


@NEEDS_ROOT
def test_a_new_log_is_given_away_and_one_that_was_there_is_not(tmp_path: Path) -> None:
    log = tmp_path / "log"
    _write_a_line(log)
    assert (log.read_text(), log.stat().st_uid, log.stat().st_gid) == ("a line\n", UID, GID)
    os.chown(log, 0, 0)
    _write_a_line(log)
    assert (log.read_text(), log.stat().st_uid, log.stat().st_gid) == ("a line\na line\n", 0, 0)


@NEEDS_ROOT
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_log_that_leads_to_a_file_of_roots_is_not_opened(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    victim, log = tmp_path / "victim", tmp_path / "log"
    victim.write_text("of root\n")
    link(victim, log)
    done = _write_a_line(log)
    assert (done.returncode, done.stderr) == (1, f"{log}: is a link to a file of somebody else's\n")
    assert (victim.read_text(), victim.stat().st_uid) == ("of root\n", 0)
    code, text = failing(tmp_path, "--listen=127.0.0.1:0", f"--user={UID}", f"--group={GID}", f"--log-file={log}")
    assert (code, f"{log}: cannot be opened: is a link to" in text, "Traceback" in text) == (2, True, False)


@NEEDS_ROOT
def test_a_log_that_leads_to_no_file_makes_none(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    assert _write_a_line(tmp_path / "log").returncode == 1
    assert not (tmp_path / "victim").exists()


@NEEDS_ROOT
def test_a_log_that_leads_to_a_file_of_the_users_is_written(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.touch()
    os.chown(theirs, UID, GID)
    (tmp_path / "log").symlink_to(theirs)
    _write_a_line(tmp_path / "log")
    assert theirs.read_text() == "a line\n"


@NEEDS_ROOT
def test_a_log_that_leads_to_a_device_a_pipe_or_where_we_write_already_is_written(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    assert _write_a_line(tmp_path / "null").returncode == 0
    assert _write_a_line(Path("/dev/stdout")).stdout == "a line\n"
    with (tmp_path / "output").open("w") as output:
        assert _write_a_line(Path("/dev/stdout"), stdout=output).returncode == 0
    assert (tmp_path / "output").read_text() == "a line\n"
    assert (tmp_path / "output").stat().st_uid == 0


@NEEDS_ROOT
def test_a_link_in_place_of_a_unix_socket_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, path, chown = tmp_path / "victim", tmp_path / "smtp.sock", os.chown
    victim.touch()

    def chown_too_late(name: str, *arguments: int, **options: bool) -> None:
        path.unlink()
        path.symlink_to(victim)
        chown(name, *arguments, **options)

    monkeypatch.setattr(os, "chown", chown_too_late)
    Listener(Listen.parse(f"unix:{path}"), 1, 1, owner=Account(UID, GID, None)).close()
    assert victim.stat().st_uid == 0


def test_a_link_in_place_of_a_pidfile_that_is_being_written_is_not_followed(tmp_path: Path) -> None:
    """Also of the name that it has until it is whole; what a killed server has left there is in nobody's way."""
    victim, path = tmp_path / "victim", tmp_path / "pid"
    Path(f"{path}.{os.getpid()}").symlink_to(victim)
    with pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


# -- a server ----------------------------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTSMTP_")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), *_packages()]), "PYTHONDONTWRITEBYTECODE": "1"}


def _packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


def _interpreter() -> str:
    """A Python of our version that others may run, too; the one of this environment may lie in a home of root's."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        command = [candidate, "-c", "import uvloop, stringzilla, fastsmtp.server.worker"]
        try:
            done = subprocess.run(
                command, user=UID, group=GID, extra_groups=[], env=_environment(), timeout=60, cwd="/"
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    pytest.skip(f"uid {UID} may run no {version} that has the dependencies")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others may enter; pytest's are for its user alone."""
    path = Path(tempfile.mkdtemp(prefix="fastsmtp-"))
    path.chmod(0o755)
    (path / "theirs").mkdir()
    os.chown(path / "theirs", UID, GID)
    yield path
    shutil.rmtree(path)


def _ids(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {*fields["Uid"].split(), *fields["Gid"].split(), *fields["Groups"].split()}


@NEEDS_ROOT
def test_a_server_runs_as_somebody_else(place: Path) -> None:
    command = [_interpreter(), "-m", "fastsmtp", "serve", "tests.server.apps:Pids"]
    command += ["--listen=127.0.0.1:0", "--listen=unix:smtp.sock socket_mode=0660", "--workers=1", "--max-workers=3"]
    command += [f"--user={UID}", f"--group={GID}", "--store=maildir:theirs/mail", "--pidfile=pid", "--drain-idle=0.1"]
    command += ["--log-file=theirs/log", "--admin=unix:admin.sock"]
    with starting(place, command, {"PYTHONPATH": _environment()["PYTHONPATH"]}) as server:
        log = place / "theirs" / "log"
        until(lambda: log.exists() and "listening on " in log.read_text(), "it serves", 20)
        server.addresses = [("127.0.0.1", int(log.read_text().partition("127.0.0.1:")[2].partition(",")[0]))]
        for pid in (server.pid, *children_of(server.pid)):
            assert _ids(pid) == {str(UID)}
        server.greeted().deliver()
        (mail,) = (place / "theirs/mail/new").iterdir()
        assert (mail.stat().st_uid, log.stat().st_uid) == (UID, UID)
        path = (place / "smtp.sock").stat()
        assert (path.st_uid, stat.S_IMODE(path.st_mode)) == (UID, 0o660)
        # More workers: their sockets were bound when that was allowed.
        server.send_signal(signal.SIGTTIN)
        until(lambda: len(_served(server.host_and_port)) == 2, "the new worker serves")
        # The same with a reload, and a log that is opened anew.
        log.rename(place / "theirs" / "old")
        server.send_signal(signal.SIGUSR1)
        until(log.exists, "a new log")
        server.send_signal(signal.SIGHUP)
        until(lambda: "reload: done" in log.read_text(), "the reload", 20)
        assert server.stop() == 0
        assert "Traceback" not in server.log + log.read_text()


def _served(address: tuple[str, int]) -> set[bytes]:
    found = set()
    for _ in range(16):
        with socket.create_connection(address, 5) as client:
            found.add(client.recv(100))
    return found
