"""Where mail is to go, as the command line says it: one relay, or each domain's own hosts."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl, urlencode

from fastsmtp.client import Hop, parse_hop

_SMTP_PORT: Final = "25"


def parse_target(text: str, per_domain: int) -> tuple[bool, Hop]:
    """Reads ``mx:`` with options behind ``?``, or the URL of a relay.

    ``mx:`` takes the options of a relay, besides those of a login, and ``port``.

    Args:
        text: for example ``mx:?tls=required`` or ``smtp://relay.example:587``.
        per_domain: connections to one host of ``mx:``, where the text does not say.

    Returns:
        Whether the domain's own hosts are meant, and the hop: the relay, or a pattern for those hosts.

    Raises:
        ValueError: the text says what is wrong.
    """
    scheme, colon, rest = text.partition(":")
    if scheme != "mx" or not colon:
        return False, parse_hop(text)
    if rest and not rest.startswith("?"):
        raise ValueError(f"{text!r}: expected mx: or mx:?NAME=VALUE")
    options = {"connections": str(per_domain), **dict(parse_qsl(rest[1:], keep_blank_values=True))}
    port = options.pop("port", _SMTP_PORT)
    return True, parse_hop(f"smtp://mx:{port}?{urlencode(options)}")


def parse_server(text: str) -> tuple[str, int]:
    """A name server: ``ADDRESS``, ``IPV4:PORT`` or ``[IPV6]:PORT``.

    Raises:
        ValueError: it is not that.
    """
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = str(ip_address(host))
    except ValueError:
        raise ValueError(f"{text!r}: expected an address, or ADDRESS:PORT") from None
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ValueError(f"{text!r}: expected a port of 1 to 65535")
    return address, int(port)
