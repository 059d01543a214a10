"""A users file: who may log in, checked by an `auth` hook, and kept by ``fastsmtp user``.

One line for each user and scheme, ``NAME:VALUE``; comments (``#``) and blank lines stay where they are:

    alice:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH                PLAIN and LOGIN
    alice:SCRAM-SHA-256$4096:SALT$STOREDKEY:SERVERKEY             SCRAM, in PostgreSQL's form

Guarantees: a reader sees the file before or after a change, never between; of two writers at the same time one waits;
a user is replaced with all schemes, so that no old password stays valid. Assumes: a local file system.
"""

from __future__ import annotations

import base64
import binascii
import errno
import fcntl
import logging
import os
import re
import secrets
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .protocol import scram
from .protocol.credentials import Credentials, ScramKey
from .protocol.events import ACCEPT, REJECT, Verdict
from .protocol.replies import SMTPError
from .protocol.sasl import MECHANISMS, check_mechanisms, is_visible

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_log = logging.getLogger("fastsmtp.users")

_ARGON2: Final = re.compile(r"\$(argon2(?:id|i|d))\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+", re.A)
_BASE64: Final = r"([A-Za-z0-9+/]+={0,2})"
_SCRAM: Final = re.compile(rf"SCRAM-SHA-256\$([1-9]\d{{0,7}}):{_BASE64}\${_BASE64}:{_BASE64}", re.A)
_PASSWORD_MECHANISMS: Final = frozenset({"PLAIN", "LOGIN"})
_KEY_MECHANISMS: Final = frozenset({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"})


class UsersFileError(ValueError):
    """A users file cannot be read, understood or written, or what is to go into it does not fit. Says what to do."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file, as it stands there. It is false if it is a comment or blank."""

    text: str = field(repr=False)
    name: str = ""
    scheme: str = ""
    argon2: str = field(default="", repr=False)
    scram: ScramKey | None = None

    def __bool__(self) -> bool:
        return bool(self.name)


_NOBODY: Final = _Line("")


@dataclass(frozen=True, slots=True)
class _Content:
    """A file as it was read: never changed, so that threads need no lock to look at it."""

    users: Mapping[str, _Line]  # all that there is of a user, in one
    decoy: str = field(repr=False)  # an argon2 hash for users who have none

    @classmethod
    def of(cls, lines: list[_Line]) -> _Content:
        users: dict[str, _Line] = {}
        for line in filter(None, lines):
            user = users.get(line.name, line)
            users[line.name] = replace(user, argon2=line.argon2 or user.argon2, scram=line.scram or user.scram)
        return cls(users, next((line.argon2 for line in lines if line.argon2), ""))


_Signature = tuple[int, ...] | None


class UsersFile:
    """Answers for an `auth` hook. One serves all sessions and threads of a process; it follows changes of the file.

    Args:
        path: the file.

    Raises:
        UsersFileError: it cannot be read, a line is malformed, or argon2-cffi is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.path.abspath(path)  # the handler may change the working directory
        self._hasher = _hasher()
        self._lock = threading.Lock()  # for reading the file
        self._content, self._signature = _load(self._path)

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What the file is good for, the best first: PLAIN and LOGIN, and SCRAM if a user has a key for it."""
        keyed = any(user.scram for user in self._current().users.values())
        offered = _PASSWORD_MECHANISMS | _KEY_MECHANISMS if keyed else _PASSWORD_MECHANISMS
        return tuple(name for name in MECHANISMS if name in offered)

    def check(self, session: object, credentials: Credentials) -> Verdict | ScramKey:
        """What an `auth` hook returns. Blocks for the time of a hash: not for the event loop.

        Nobody may act as somebody else: an authorization identity of its own is refused.
        """
        content = self._current()
        user = content.users.get(credentials.username, _NOBODY)
        if credentials.authzid:
            return REJECT
        if credentials.mechanism in _PASSWORD_MECHANISMS and credentials.password is not None:
            return ACCEPT if self._verify(user.argon2, content.decoy, credentials.password) else REJECT
        if credentials.mechanism in _KEY_MECHANISMS:
            return user.scram or REJECT
        return REJECT

    def _verify(self, encoded: str, decoy: str, password: str) -> bool:
        from argon2.exceptions import VerifyMismatchError

        # Who has no password takes as long as who has: a hash of the same file is computed, and its result not used.
        # A file without any has nobody to hide.
        if not (encoded or decoy):
            return False
        try:
            self._hasher.verify(encoded or decoy, password)
        except VerifyMismatchError:
            return False
        return bool(encoded)

    def _current(self) -> _Content:
        signature = _signature(self._path)
        if signature != self._signature:
            with self._lock:
                if signature != self._signature:  # else another thread has read it meanwhile
                    self._reload(signature)
        return self._content

    def _reload(self, signature: _Signature) -> None:
        try:
            self._content, self._signature = _load(self._path)
        except UsersFileError as exc:
            self._signature = signature  # said once, until the file changes again
            _log.error("%s; those who could log in still can", exc)


# -- changing the file -----------------------------------------------------------------------------------------------


def set_password(path: Path, name: str, password: str, *, scram: bool = False) -> bool:
    """Adds a user, or replaces one with all that was stored for it. The file is made if need be, for its owner only.

    Args:
        path: the file.
        name: compared exactly when the user logs in.
        password: kept as argon2 hash.
        scram: whether a SCRAM key is made of the password as well.

    Returns:
        Whether the user was there before.

    Raises:
        UsersFileError: name or password do not do, or the file cannot be changed; then its users are as they were.
    """
    if fault := _fault(name):
        raise UsersFileError(f"user name {name!r}: {fault}")
    _check_password(password)
    texts = [f"{name}:{_hasher().hash(password)}"]
    if scram:
        texts.append(f"{name}:{_scram_value(name, password)}")
    return _change(path, name, texts, create=True)


def remove_user(path: Path, name: str) -> bool:
    """Removes a user with all that was stored for it.

    Returns:
        Whether the user was there.

    Raises:
        UsersFileError: the file cannot be changed; then it is as it was.
    """
    return _change(path, name, [], create=False)


def list_users(path: Path) -> dict[str, tuple[str, ...]]:
    """The users in the order of the file, and their schemes: ``argon2id`` and the like, ``SCRAM-SHA-256``.

    Raises:
        UsersFileError: the file cannot be read, or a line is malformed.
    """
    schemes: dict[str, tuple[str, ...]] = {}
    with _explained(str(path)), open(path, "rb") as file:
        for line in _parse(file.read(), str(path)):
            if line:
                schemes[line.name] = (*schemes.get(line.name, ()), line.scheme)
    return schemes


def _change(path: Path, name: str, texts: list[str], *, create: bool) -> bool:
    # Behind symbolic links: a rename would put a file in the link's place.
    target = os.path.realpath(path)
    with _explained(str(path), create), _locked(target, create) as file:
        lines = _parse(Path(target).read_bytes(), str(path))
        places = [place for place, line in enumerate(lines) if line.name == name]
        kept = [line.text for line in lines if line.name != name]
        place = places[0] if places else len(kept)
        wanted = [*kept[:place], *texts, *kept[place:]]
        if places or texts:
            _replace(target, "".join(f"{text}\n" for text in wanted).encode(), os.fstat(file))
    return bool(places)


@contextmanager
def _locked(path: str, create: bool) -> Iterator[int]:
    """Keeps other writers out. The lock is on the file itself: no lock file stays behind."""
    while True:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):
                yield file
                return
        finally:
            os.close(file)


def _is_at(file: int, path: str) -> bool:
    """Whether the file is still the one of this name: who had the lock before has put another in its place."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.stat(path))
    return False


def _replace(path: str, octets: bytes, like: os.stat_result) -> None:
    """Puts a new file in the place of the old one, with its owner and mode; a power cut leaves one or the other."""
    directory, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with open(descriptor, "wb") as file:
            os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync(directory)


def _sync(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher
    except ImportError:
        raise UsersFileError("users files need argon2-cffi: pip install 'fastsmtp[auth]'") from None
    # OWASP's least for argon2id, not argon2-cffi's 64 MiB and four threads: every thread of every worker may be
    # checking a password at the same time. One check takes about 20 ms.
    return PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)


def _check_password(password: str) -> None:
    if not password:
        raise UsersFileError("password: must not be empty")
    if re.search("[\0\ud800-\udfff]", password):  # surrogates are what Python makes of what is no UTF-8
        raise UsersFileError("password: must be UTF-8 without NUL")


def _scram_value(name: str, password: str) -> str:
    try:
        check_mechanisms(_KEY_MECHANISMS)
        key = scram.key_of(password, secrets.token_bytes(scram.SALT_OCTETS))
    except ValueError as exc:
        raise UsersFileError(str(exc)) from None
    if not _survives_scram(name):
        raise UsersFileError(f"user name {name!r}: SCRAM clients change it (SASLprep, RFC 4013); choose another")
    salt, stored, server = (base64.b64encode(part).decode() for part in (key.salt, key.stored_key, key.server_key))
    return f"SCRAM-SHA-256${key.iterations}:{salt}${stored}:{server}"


def _survives_scram(name: str) -> bool:
    escaped = name.replace("=", "=3D").replace(",", "=2C")  # RFC 5802 5.1
    try:
        return scram.username(f"n={escaped},r=0") == name
    except SMTPError:
        return False


# -- reading the file ------------------------------------------------------------------------------------------------


def _load(path: str) -> tuple[_Content, _Signature]:
    with _explained(path), open(path, "rb") as file:
        signature = _signature_of(os.fstat(file.fileno()))
        return _Content.of(_parse(file.read(), path)), signature


def _signature(path: str) -> _Signature:
    try:
        return _signature_of(os.stat(path))
    except OSError:
        return None


def _signature_of(status: os.stat_result) -> _Signature:
    # With the time of the last chmod: a file that could not be read may be readable now.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def _explained(path: str, create: bool = False) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        hint = f"; make it with: fastsmtp user add {path} NAME" if exc.errno == errno.ENOENT and not create else ""
        raise UsersFileError(f"users file {path}: {exc.strerror or exc}{hint}") from None


def _parse(octets: bytes, path: str) -> list[_Line]:
    lines: list[_Line] = []
    seen: dict[tuple[str, bool], int] = {}
    texts = octets.split(b"\n")
    for number, text in enumerate(texts if texts[-1] else texts[:-1], 1):
        try:
            line = _parse_line(text)
            if line and (before := seen.setdefault((line.name, line.scram is None), number)) != number:
                raise ValueError(f"the user is on line {before} already")
        except ValueError as exc:
            raise UsersFileError(f"users file {path}, line {number}: {exc}") from None
        lines.append(line)
    return lines


def _parse_line(octets: bytes) -> _Line:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if not text.strip() or text.startswith("#"):
        return _Line(text)
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError("expected NAME:VALUE")
    if fault := _fault(name):
        raise ValueError(f"the name {fault}")
    value = value.rstrip()
    if match := _ARGON2.fullmatch(value):
        return _Line(text, name, match[1], argon2=value)
    return _Line(text, name, "SCRAM-SHA-256", scram=_scram_key(value))


def _scram_key(value: str) -> ScramKey:
    match = _SCRAM.fullmatch(value)
    if match is None:  # what it is instead is not said: it may be a password
        raise ValueError("expected $argon2id$... or SCRAM-SHA-256$... behind the name; fastsmtp user add makes both")
    try:
        salt, stored, server = (base64.b64decode(part, validate=True) for part in match.groups()[1:])
    except binascii.Error:
        raise ValueError("the SCRAM key is not in base64") from None
    key = ScramKey(salt, int(match[1]), stored, server)
    scram.check_key(key)
    return key


# What is wrong with a name that contains or is one of these.
_FAULTS: Final[tuple[tuple[Callable[[str], bool], str], ...]] = (
    (lambda name: not name, "must not be empty"),
    (lambda name: ":" in name, "must not hold a colon"),
    (lambda name: name.startswith("#"), "must not begin with #, which makes a comment"),
    (lambda name: name != name.strip(), "must not begin or end with a space"),
    (lambda name: not is_visible(name), "must be UTF-8 without control or invisible characters"),
)


def _fault(name: str) -> str:
    """What is wrong with a name, if anything."""
    return next((fault for has, fault in _FAULTS if has(name)), "")
