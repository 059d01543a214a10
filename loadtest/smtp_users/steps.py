"""The steps of a dialogue: the names of the rows in Locust's report."""

from __future__ import annotations

from typing import Final

CONNECT: Final = "connect"  # from the connection's begin to its 220
EHLO: Final = "EHLO"
STARTTLS: Final = "STARTTLS"  # the reply and the handshake
AUTH: Final = "AUTH"
MAIL: Final = "MAIL"
RCPT: Final = "RCPT"
RCPT_REFUSED: Final = "RCPT refused"  # a recipient that is to be refused, and was
DATA: Final = "DATA"  # to the 354
CONTENT: Final = "content"  # from the first octet behind the 354 to the reply that takes the message
QUIT: Final = "QUIT"
MESSAGE: Final = "message"  # from MAIL to the reply that takes the message
ROWS: Final = (CONNECT, EHLO, STARTTLS, AUTH, MAIL, RCPT, RCPT_REFUSED, DATA, CONTENT, QUIT, MESSAGE)
METHOD: Final = "SMTP"
