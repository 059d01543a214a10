"""Replies (RFC 5321 4.2) and enhanced status codes (RFC 3463): every reply the server can give has its name here.

A reply is encoded once, when it is made. Those that name the server are made once per process (`HostReplies`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

MAX_REPLY_LINE: Final = 512  # octets with CRLF, RFC 5321 4.5.3.1.5
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}", re.A)  # RFC 3463 2
# Texts reach the wire as printable ASCII only: a text that holds a CR LF would be a second reply.
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answers to a command.

    Args:
        code: three digits, 200 to 559.
        enhanced: the enhanced status code, of the same class as the code; None to send none.
        text: printable text; its lines become the lines of a multi-line reply. Other characters are sent as ``?``.
        close: whether the connection is closed behind this reply.

    Raises:
        ValueError: the codes do not fit each other, or a line would be longer than 512 octets.
    """

    code: int
    enhanced: str | None
    text: str
    close: bool = False
    encoded: bytes = field(init=False, repr=False, compare=False)
    plain: bool = field(init=False, repr=False, compare=False)  # neither closes nor counts as an error

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 559:
            raise ValueError(f"reply code {self.code}: must be between 200 and 559 (RFC 5321 4.2.1)")
        if self.enhanced is not None and not _fits(self.code, self.enhanced):
            raise ValueError(
                f"enhanced code {self.enhanced!r}: must look like {self.code // 100}.x.y beside {self.code}"
            )
        object.__setattr__(self, "encoded", _encode(self.code, self.enhanced, self.text))
        object.__setattr__(self, "plain", self.code < 500 and not self.close)

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))


def _fits(code: int, enhanced: str) -> bool:
    return bool(_ENHANCED.fullmatch(enhanced)) and int(enhanced[0]) == code // 100


def _encode(code: int, enhanced: str | None, text: str) -> bytes:
    prefix = f"{enhanced} " if enhanced else ""
    lines = [prefix + _UNPRINTABLE.sub("?", line) for line in text.splitlines() or [""]]
    if max(map(len, lines)) > MAX_REPLY_LINE - 6:  # the code, its separator, CR LF
        raise ValueError(
            f"reply text: a line may have {MAX_REPLY_LINE - 6 - len(prefix)} characters (RFC 5321 4.5.3.1.5)"
        )
    head = "".join(f"{code}-{line}\r\n" for line in lines[:-1])
    return f"{head}{code} {lines[-1]}\r\n".encode("ascii")


class SMTPError(Exception):
    """Ends the command at hand with a reply. Hooks raise it, and so does the protocol for a peer's fault.

    Attributes:
        reply: what the client is told.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


# -- success ---------------------------------------------------------------------------------------------------------

MAIL_OK: Final = Reply(250, "2.1.0", "sender ok")
RCPT_OK: Final = Reply(250, "2.1.5", "recipient ok")
OK: Final = Reply(250, "2.0.0", "ok")
START_DATA: Final = Reply(354, None, "end data with <CR><LF>.<CR><LF>")
CANNOT_VERIFY: Final = Reply(252, "2.0.0", "cannot verify, but will take mail and try")  # RFC 5321 3.5.3
HELP: Final = Reply(214, "2.0.0", "see RFC 5321")
START_TLS: Final = Reply(220, "2.0.0", "ready to start TLS")
AUTH_OK: Final = Reply(235, "2.7.0", "authentication succeeded")

# -- temporary failure -----------------------------------------------------------------------------------------------

TEMPORARY_FAILURE: Final = Reply(451, "4.3.0", "temporary failure, try again later")
OVERLOADED: Final = Reply(451, "4.3.2", "too busy, try again later")
INSUFFICIENT_STORAGE: Final = Reply(452, "4.3.1", "insufficient storage, try again later")
TOO_MANY_RECIPIENTS: Final = Reply(452, "4.5.3", "too many recipients")  # RFC 5321 4.5.3.1.10: 452, not 552
TOO_MANY_MESSAGES: Final = Reply(452, "4.5.3", "too many messages")
AUTH_TEMPORARY: Final = Reply(454, "4.7.0", "temporary authentication failure")

# -- syntax and order ------------------------------------------------------------------------------------------------

UNKNOWN_COMMAND: Final = Reply(500, "5.5.2", "command not recognized")
LINE_TOO_LONG: Final = Reply(500, "5.5.2", "line too long")
AUTH_LINE_TOO_LONG: Final = Reply(500, "5.5.6", "line too long")
WRONG_PROTOCOL: Final = Reply(500, "5.5.1", "wrong protocol")
NO_ARGUMENT_ALLOWED: Final = Reply(501, "5.5.4", "syntax error, this command takes no argument")
ARGUMENT_MISSING: Final = Reply(501, "5.5.4", "syntax error, this command needs an argument")
BAD_CLIENT_NAME: Final = Reply(501, "5.5.4", "syntax error, expected one domain or address literal")
MAIL_SYNTAX: Final = Reply(501, "5.5.4", "syntax error, expected MAIL FROM:<address>")
RCPT_SYNTAX: Final = Reply(501, "5.5.4", "syntax error, expected RCPT TO:<address>")
BAD_PARAMETER: Final = Reply(501, "5.5.4", "syntax error in a parameter")
BAD_SENDER: Final = Reply(501, "5.1.7", "bad address")
BAD_RECIPIENT: Final = Reply(501, "5.1.3", "bad address")
BAD_UTF8: Final = Reply(501, "5.5.2", "cannot decode")
CANNOT_DECODE: Final = Reply(501, "5.5.2", "cannot decode")  # base64, or a SASL message (RFC 4954 4)
AUTH_SYNTAX: Final = Reply(501, "5.5.4", "syntax error, expected AUTH MECHANISM [initial-response]")
AUTH_CANCELLED: Final = Reply(501, "5.7.0", "authentication cancelled")
NOT_IMPLEMENTED: Final = Reply(502, "5.5.1", "not implemented")
NEED_EHLO: Final = Reply(503, "5.5.1", "bad sequence of commands, EHLO first")
NEED_MAIL: Final = Reply(503, "5.5.1", "bad sequence of commands, MAIL first")
NEED_RCPT: Final = Reply(503, "5.5.1", "bad sequence of commands, RCPT first")
NESTED_MAIL: Final = Reply(503, "5.5.1", "bad sequence of commands, a transaction is open")
NESTED_AUTH: Final = Reply(503, "5.5.1", "bad sequence of commands, not in a transaction")
ALREADY_AUTHENTICATED: Final = Reply(503, "5.5.1", "bad sequence of commands, authenticated already")
ALREADY_TLS: Final = Reply(503, "5.5.1", "bad sequence of commands, TLS is active already")
NEED_BDAT: Final = Reply(503, "5.5.1", "bad sequence of commands, the message is sent in chunks")
BINARY_NEEDS_BDAT: Final = Reply(503, "5.5.1", "bad sequence of commands, BODY=BINARYMIME needs BDAT")
NO_CHUNKING: Final = Reply(503, "5.5.1", "bad sequence of commands, CHUNKING was not offered")
UNKNOWN_MECHANISM: Final = Reply(504, "5.5.4", "mechanism not supported")
SESSION_REFUSED: Final = Reply(503, "5.5.1", "bad sequence of commands, only QUIT is possible")
PARAMETER_NOT_SUPPORTED: Final = Reply(555, "5.5.4", "parameter not supported")
NOT_SMTP: Final = Reply(521, "5.5.1", "protocol error, closing connection", close=True)
BDAT_SYNTAX: Final = Reply(521, "5.5.4", "protocol error, expected BDAT SIZE [LAST], closing connection", close=True)
BARE_LF: Final = Reply(521, "5.5.2", "protocol error, closing connection", close=True)
LINE_FAR_TOO_LONG: Final = Reply(521, "5.5.2", "line too long, closing connection", close=True)

# -- policy and content ----------------------------------------------------------------------------------------------

TLS_REQUIRED: Final = Reply(530, "5.7.0", "STARTTLS first")
AUTH_REQUIRED: Final = Reply(530, "5.7.0", "authentication required")
AUTH_FAILED: Final = Reply(535, "5.7.8", "authentication failed")
AUTH_NEEDS_TLS: Final = Reply(538, "5.7.11", "encryption required")
NOT_AUTHORIZED: Final = Reply(550, "5.7.0", "not authorized")
EARLY_TALKER: Final = Reply(554, "5.5.0", "client talked before the banner, closing connection", close=True)
REJECTED_ADDRESS: Final = Reply(550, "5.7.1", "rejected by policy")
REJECTED: Final = Reply(554, "5.7.1", "rejected by policy")
BARE_NEWLINE: Final = Reply(550, "5.5.2", "bare CR or LF in message")
TOO_LARGE: Final = Reply(552, "5.3.4", "message too large")
FAR_TOO_LARGE: Final = Reply(552, "5.3.4", "message too large", close=True)
HEADER_TOO_LARGE: Final = Reply(552, "5.3.4", "message too large, its header section")
ADDRESS_NOT_ALLOWED: Final = Reply(553, "5.6.7", "address not allowed")
NO_VALID_RECIPIENTS: Final = Reply(554, "5.5.1", "no valid recipients")
TOO_MANY_HOPS: Final = Reply(554, "5.4.6", "too many hops")
CONTENT_NOT_ALLOWED: Final = Reply(554, "5.6.0", "message content not allowed")


class HostReplies:
    """The replies that begin with the server's name; made once per process.

    Args:
        hostname: the server's own name, RFC 5321 4.2.
    """

    def __init__(self, hostname: str) -> None:
        self.banner: Final = Reply(220, None, f"{hostname} ESMTP")
        self.goodbye: Final = Reply(221, "2.0.0", f"{hostname} closing connection")

        def closing(enhanced: str, why: str) -> Reply:
            return Reply(421, enhanced, f"{hostname} {why}", close=True)

        self.timeout: Final = closing("4.4.2", "timeout, closing connection")
        self.shutting_down: Final = closing("4.3.2", "shutting down, try again")
        self.too_busy: Final = closing("4.3.2", "too busy, try again later")
        self.too_many_connections: Final = closing("4.7.0", "too many connections from your address")
        self.too_many_logins: Final = closing("4.7.0", "too many failed logins")
        self.too_many_errors: Final = closing("4.7.0", "too many errors")
        self.too_many_junk: Final = closing("4.7.0", "too many commands without mail")
        self.closing: Final = closing("4.7.0", "closing connection")
