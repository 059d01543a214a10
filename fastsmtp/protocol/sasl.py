"""The server's side of the SASL exchanges (RFC 4422, RFC 4954 4): what client and server say until a login is decided.

Each mechanism is one generator that reads from top to bottom: it yields a `Challenge` where the client is to speak, and
`Credentials` where the handler is to decide; what it returns is the `Outcome`. `Exchange` drives it.

Guarantees:
* Octets of the client lead to a step or to `SMTPError`, to nothing else.
* Nobody is let in without a yes: a verdict of True in PLAIN, LOGIN, CRAM-MD5 and the bearer tokens, a proof that fits
  the handler's key in SCRAM. A key is no yes in the former, and True is none in the latter.
* A SCRAM user who does not exist is told apart from a wrong password by nothing that is sent.
* User names hold no character that nobody can see. No secret stands in a repr or an exception.

Assumes: responses arrive decoded, and the caller bounds their size. Base64, `*` and ``=`` are the session's business.
"""

from __future__ import annotations

import binascii
import re
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from . import scram
from .credentials import Credentials, ScramKey
from .replies import CANNOT_DECODE, UNKNOWN_MECHANISM, SMTPError


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the client is told, in base64 behind a 334 (RFC 4954 4); then `Exchange.respond` takes its response.

    Attributes:
        octets: of the challenge; they stay out of logs.
        refusal: whether it says that the login has failed; what the client responds to that changes nothing.
    """

    octets: bytes = field(repr=False)
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The exchange is over.

    Attributes:
        accepted: whether the client is logged in.
        username: as whom: the authorization identity if the client gave one, else the authentication identity
            (RFC 4422 2). Of a refused login the authentication identity, as far as it was said; else empty.
    """

    accepted: bool
    username: str


Step = Challenge | Credentials | Outcome
"""What comes next. `Credentials`: ask the handler; `Exchange.decided` or `Exchange.keyed` brings its answer."""

_Answer = bytes | bool | ScramKey
_Script = Generator[Challenge | Credentials, _Answer, Outcome]
_Asking = Generator[Challenge | Credentials, _Answer, bytes]


@dataclass(frozen=True, slots=True)
class _Terms:
    """What an exchange depends on besides the client."""

    mechanism: str
    hostname: str
    bindings: Mapping[str, bytes] = field(repr=False)


class Exchange:
    """One AUTH command on its way to its outcome. Made by `begin`; of no use after an `Outcome` or an `SMTPError`.

    Attributes:
        mechanism: its name.
        refused: whether a challenge has said already that the login has failed.
    """

    __slots__ = ("_open", "_script", "_step", "mechanism", "refused")

    def __init__(self, mechanism: str, script: Callable[[bytes | None], _Script]) -> None:
        self.mechanism = mechanism
        self.refused = False
        self._open = script
        self._script: _Script | None = None
        self._step: Step | None = None  # the last one, as long as it waits for an answer

    def respond(self, response: bytes | None) -> Step:
        """The client's next response.

        Args:
            response: decoded; None, the first time only, where AUTH came without an initial response.

        Raises:
            SMTPError: 501 5.5.2, the response is malformed.
        """
        if self._script is None:
            self._script = self._open(response)
            return self._advance(partial(next, self._script))
        assert response is not None, "None stands for an initial response only"
        return self._answer(Challenge, response)

    def decided(self, accepted: bool) -> Step:
        """The handler's verdict on `Credentials`, where it gave no key. It lets nobody in by SCRAM."""
        return self._answer(Credentials, accepted)

    def keyed(self, key: ScramKey) -> Step:
        """The key that the handler has stored for the user of `Credentials`: SCRAM goes on, the others refuse.

        Raises:
            ValueError: a key that SCRAM cannot work with, which is the handler's fault.
        """
        return self._answer(Credentials, key)

    def _answer(self, question: type[Challenge | Credentials], answer: _Answer) -> Step:
        assert self._script is not None, "nothing was said"
        assert isinstance(self._step, question), f"this is no answer to {self._step!r}"
        return self._advance(partial(self._script.send, answer))

    def _advance(self, advance: Callable[[], Challenge | Credentials]) -> Step:
        self._step = None  # and stays so if a malformed message ends it here
        try:
            self._step = step = advance()
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        self.refused = isinstance(step, Challenge) and step.refusal
        return step


def begin(mechanism: str, hostname: str, bindings: Mapping[str, bytes]) -> Exchange:
    """Begins an exchange; its first step is what `respond` makes of the initial response.

    Args:
        mechanism: in upper case.
        hostname: the server's, for the challenge of CRAM-MD5.
        bindings: the channel bindings by type, such as ``tls-server-end-point`` (RFC 5929 4), of a connection on which
            SCRAM-SHA-256-PLUS was offered; else empty.

    Raises:
        SMTPError: 504, there is no such mechanism, or none without a channel binding.
    """
    if mechanism not in _SCRIPTS or (mechanism in _BOUND and not bindings):
        raise SMTPError(UNKNOWN_MECHANISM)
    return Exchange(mechanism, partial(_SCRIPTS[mechanism], _Terms(mechanism, hostname, bindings)))


def check_mechanisms(names: Iterable[str]) -> None:
    """Whether these mechanisms can be offered; for the time when the server is configured.

    Raises:
        ValueError: one is unknown, or needs a library that is not installed.
    """
    names = list(names)
    for name in names:
        if name not in MECHANISMS:
            raise ValueError(f"AUTH mechanism {name!r}: unknown; there are {', '.join(MECHANISMS)}")
    if any(name.startswith("SCRAM-") for name in names):
        scram.check_library()


def decode_base64(octets: bytes) -> bytes:
    """Strict base64 (RFC 4648 4): nothing is skipped, the padding is there, and unused bits are 0 (RFC 4648 3.5).

    Raises:
        SMTPError: 501 5.5.2, it is anything else.
    """
    try:
        decoded = binascii.a2b_base64(octets)
    except binascii.Error:
        raise SMTPError(CANNOT_DECODE) from None
    if binascii.b2a_base64(decoded, newline=False) != octets:  # the decoder is lenient, the encoder knows one way only
        raise SMTPError(CANNOT_DECODE)
    return decoded


# -- mechanisms ------------------------------------------------------------------------------------------------------


def _plain(terms: _Terms, initial: bytes | None) -> _Script:
    """RFC 4616 2: ``[authzid] NUL authcid NUL passwd``."""
    parts = (yield from _opening(initial)).split(b"\0")
    if len(parts) != 3:
        raise SMTPError(CANNOT_DECODE)
    authzid, username, password = _name(parts[0]), _name(parts[1]), _text(parts[2])
    authzid = "" if authzid == username else authzid
    return (yield from _by_password(Credentials(terms.mechanism, username, authzid, password)))


def _login(terms: _Terms, initial: bytes | None) -> _Script:
    """draft-murchison-sasl-login: clients show or ignore the challenges' texts, and some look for these two."""
    username = _name((yield from _opening(initial, b"Username:")))
    password = _text((yield from _ask(b"Password:")))
    return (yield from _by_password(Credentials(terms.mechanism, username, password=password)))


def _cram_md5(terms: _Terms, initial: bytes | None, challenge: bytes | None = None) -> _Script:
    """RFC 2195 2: the challenge looks like a message identifier; the response is ``user SP digest``."""
    if initial is not None:  # RFC 4954 4: not where the server begins
        raise SMTPError(CANNOT_DECODE)
    challenge = challenge or f"<{secrets.token_hex(16)}@{terms.hostname}>".encode()
    match = _matched(_CRAM_RESPONSE, _text((yield from _ask(challenge))))
    username = _visible(match["user"])
    credentials = Credentials(terms.mechanism, username, challenge=challenge, digest=match["digest"].lower())
    return (yield from _decide(credentials))


def _scram(terms: _Terms, initial: bytes | None, nonce: str | None = None) -> _Script:
    """RFC 5802 3 and 5, RFC 7677. The outcome of the client's proof waits until it has seen the server's."""
    first = _visible(_text((yield from _opening(initial))))
    header = _matched(_GS2_HEADER, first)
    username = scram.username(header["rest"])
    # scramp takes no authorization identity. None is needed to log in: here it is refused, where PLAIN passes it on.
    if not _binding_fits(header, terms) or header["authzid"]:
        return Outcome(False, username)
    answer = yield Credentials(terms.mechanism, username)
    if answer is True:  # a hook that knows no SCRAM, and accepts whatever comes by returning nothing
        return Outcome(False, username)
    key = answer if isinstance(answer, ScramKey) else scram.decoy(username)
    binding = (header["type"], terms.bindings[header["type"]]) if header["type"] else None
    server = scram.Server(first, binding, key, nonce)
    final = _text((yield from _ask(server.first)))
    _matched(_CLIENT_FINAL, final)
    signature = server.verify(final)
    if signature is None or key is not answer:
        return Outcome(False, username)
    if (yield from _ask(signature)):
        raise SMTPError(CANNOT_DECODE)  # RFC 4954 4: the client has nothing left to say but an empty line
    return Outcome(True, username)


def _xoauth2(terms: _Terms, initial: bytes | None) -> _Script:
    """``user=NAME ^A auth=Bearer TOKEN ^A ^A``, as Gmail and Exchange have it; there is no RFC."""
    match = _matched(_XOAUTH2_RESPONSE, _text((yield from _opening(initial))))
    credentials = Credentials(terms.mechanism, _visible(match["user"]), token=match["token"])
    return (yield from _by_token(credentials, b'{"status":"401","schemes":"bearer"}'))


def _oauthbearer(terms: _Terms, initial: bytes | None) -> _Script:
    """RFC 7628 3.1: a GS2 header, whose authorization identity is the user, and pairs, of which ``auth`` counts."""
    header = _matched(_GS2_HEADER, _text((yield from _opening(initial))))
    _matched(_KEY_VALUE_PAIRS, header["rest"])
    tokens = _AUTH_PAIR.findall(header["rest"])
    if header["type"] or len(tokens) > 1:  # there is no channel binding (RFC 7628 3.1); two tokens are ambiguous
        raise SMTPError(CANNOT_DECODE)
    username = _visible(_unescaped(header["authzid"] or ""))
    # No token, or another scheme's: RFC 7628 4.3, a client that looks for what the error tells.
    token = next((match["token"] for match in map(_BEARER.fullmatch, tokens) if match), "")
    credentials = Credentials(terms.mechanism, username, token=token)
    return (yield from _by_token(credentials, b'{"status":"invalid_token"}'))


# What each name in AUTH runs, in the order in which they are best offered: SCRAM shows the password to nobody, and
# CRAM-MD5 needs it in clear text on the server.
_SCRIPTS: Final[dict[str, Callable[[_Terms, bytes | None], _Script]]] = {
    "SCRAM-SHA-256-PLUS": _scram,
    "SCRAM-SHA-256": _scram,
    "OAUTHBEARER": _oauthbearer,
    "XOAUTH2": _xoauth2,
    "PLAIN": _plain,
    "LOGIN": _login,
    "CRAM-MD5": _cram_md5,
}
_BOUND: Final = frozenset({"SCRAM-SHA-256-PLUS"})  # need a channel binding

MECHANISMS: Final = tuple(_SCRIPTS)
"""Every mechanism there is, the best first."""


# -- what the mechanisms share ---------------------------------------------------------------------------------------


def _ask(challenge: bytes) -> _Asking:
    answer = yield Challenge(challenge)
    assert isinstance(answer, bytes)
    return answer


def _opening(initial: bytes | None, challenge: bytes = b"") -> _Asking:
    """What the client begins with, with AUTH itself or when it is asked to."""
    return (yield from _ask(challenge)) if initial is None else initial


def _decide(credentials: Credentials) -> _Script:
    if not credentials.username:
        return Outcome(False, "")
    answer = yield credentials
    if answer is not True:
        return Outcome(False, credentials.username)
    return Outcome(True, credentials.authzid or credentials.username)


def _by_password(credentials: Credentials) -> _Script:
    # No handler is asked about an empty password: to an LDAP server it is a bind as nobody, which succeeds
    # (RFC 4513 5.1.2).
    if not credentials.password:
        return Outcome(False, credentials.username)
    return (yield from _decide(credentials))


def _by_token(credentials: Credentials, error: bytes) -> _Script:
    """A client whose token is refused is told why, and has to answer that, before all is over (RFC 7628 3.2.3)."""
    outcome = Outcome(False, credentials.username)
    if credentials.token:
        outcome = yield from _decide(credentials)
    if not outcome.accepted:
        yield Challenge(error, refusal=True)
    return outcome


def _binding_fits(header: re.Match[str], terms: _Terms) -> bool:
    """RFC 5802 6: whether the client's channel binding flag agrees with the mechanism and with what was offered.

    ``y`` says that the server has not offered -PLUS. Where it has, somebody between the two took it away.
    """
    bound = terms.mechanism in _BOUND
    if header["type"] and not bound:
        raise SMTPError(CANNOT_DECODE)  # RFC 5802 5.1: "p" is for -PLUS only
    if bound:
        return header["type"] in terms.bindings.keys() & scram.BINDING_TYPES
    return header["flag"] == "n" or not terms.bindings


# -- text ------------------------------------------------------------------------------------------------------------

_TOKEN: Final = r"(?P<token>[A-Za-z0-9._~+/-]+=*)"  # b64token, RFC 6750 2.1
_BASE64: Final = r"[A-Za-z0-9+/]+={0,2}"
_CRAM_RESPONSE: Final = re.compile(r"(?P<user>.*) (?P<digest>[0-9A-Fa-f]{32})", re.S)
_GS2_HEADER: Final = re.compile(  # RFC 5801 4
    r"(?P<flag>[ny]|p=(?P<type>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>[^,\0]+))?,(?P<rest>.*)", re.S
)
_CLIENT_FINAL: Final = re.compile(  # RFC 5802 7
    rf"c={_BASE64},r=[!-+\--~]+(?:,[A-Za-z]=[^,\0]+)*,p={_BASE64}"
)
_XOAUTH2_RESPONSE: Final = re.compile(rf"user=(?P<user>[^\x01]*)\x01auth=(?i:bearer) +{_TOKEN}\x01\x01")
_KEY_VALUE_PAIRS: Final = re.compile(r"\x01(?:[A-Za-z]+=[\t\n\r -~]*\x01)*\x01")  # RFC 7628 3.1
_AUTH_PAIR: Final = re.compile(r"(?<=\x01)auth=([^\x01]*)\x01")
_BEARER: Final = re.compile(rf"(?i:bearer) +{_TOKEN}")
# Controls; line separators; zero width and bidirectional ones, with which one name passes for another in a log; and
# surrogates, which are no characters.
_INVISIBLE: Final = re.compile("[\0-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")


def is_visible(name: str) -> bool:
    """Whether a user name is free of controls and of other characters that nobody can see; if not, it is refused."""
    return not _INVISIBLE.search(name)


def _text(octets: bytes) -> str:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SMTPError(CANNOT_DECODE) from None
    if "\0" in text:  # RFC 4616 2; behind it libraries in C see the end, of a password too
        raise SMTPError(CANNOT_DECODE)
    return text


def _visible(text: str) -> str:
    if not is_visible(text):
        raise SMTPError(CANNOT_DECODE)
    return text


def _name(octets: bytes) -> str:
    return _visible(_text(octets))


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise SMTPError(CANNOT_DECODE)
    return match


def _unescaped(saslname: str) -> str:
    """RFC 5801 4: ``=2C`` is a comma, ``=3D`` an equals sign, and no other ``=`` may be there."""
    if re.search(r"=(?!2C|3D)", saslname):
        raise SMTPError(CANNOT_DECODE)
    return saslname.replace("=2C", ",").replace("=3D", "=")
