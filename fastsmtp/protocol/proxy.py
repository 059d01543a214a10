"""The header of the PROXY protocol, versions 1 and 2: a proxy says for whom it connects, before anything else is said.

Guarantees: whatever cannot belong to a header is found at its first octet, so nobody waits for the rest of it (an IPv6
address is judged at its end); the verdict never depends on how the octets were cut into reads; no octet behind the
header is lost; at most one segment more than a header is kept.

Sections are those of proxy-protocol.txt, which comes with HAProxy. CRC32C is not verified: TCP has checked the octets.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from .envelope import Endpoint

MAX_LINE: Final = 107  # octets of version 1 with CR LF, section 2.1

_LOCAL: Final = b"\x20"  # version 2 and a command, section 2.2
_PROXY: Final = b"\x21"
_UNSPEC: Final = b"\x00"
_UNIX: Final = b"\x31"
_UNIX_BYTES: Final = 216
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_HEAD: Final = len(_SIGNATURE) + 4  # octets up to the addresses: command, family and length
_TLV_HEAD: Final = 3  # octets: type and length
# Source, destination, and their ports. No datagrams: none of them could carry SMTP.
_TCP: Final = {b"\x11": struct.Struct("!4s4sHH"), b"\x21": struct.Struct("!16s16sHH")}
_ADDRESS_BYTES: Final = {_UNSPEC: 0, _UNIX: _UNIX_BYTES, **{family: layout.size for family, layout in _TCP.items()}}


class ProxyError(Exception):
    """These octets are no header. The text says why; it is for the log, the peer is told nothing."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy says of the connection that it passes on.

    Attributes:
        source: the client; None to keep the address of the socket (LOCAL, UNKNOWN, UNSPEC, UNIX).
        destination: where the client has connected to; None where the source is.
    """

    source: Endpoint | None
    destination: Endpoint | None


_KEPT: Final = ProxyHeader(None, None)


class ProxyReader:
    """Reads the header of one connection.

    Args:
        max_v2_bytes: octets of addresses and TLVs that a header of version 2 may announce.
    """

    __slots__ = ("_max_v2_bytes", "_octets", "_tlv")

    def __init__(self, max_v2_bytes: int) -> None:
        self._max_v2_bytes = max_v2_bytes
        self._octets = bytearray()
        self._tlv = 0  # where the next TLV of version 2 begins; 0: not known yet

    def feed(self, octets: bytes) -> tuple[ProxyHeader, bytes] | None:
        """Take what one read brought.

        Returns:
            The header and every octet behind it, and the reader is done; None if more is needed.

        Raises:
            ProxyError: an octet cannot belong to a header.
        """
        self._octets += octets
        return self._read_v1() if self._octets.startswith(b"P") else self._read_v2()

    def _read_v1(self) -> tuple[ProxyHeader, bytes] | None:
        text, cr, behind = bytes(self._octets).partition(b"\r")
        fits = len(text) + 2 <= MAX_LINE
        header = _parse_line(text[: MAX_LINE - 2], complete=fits and bool(cr))
        if not fits:
            raise ProxyError(f"a line of more than {MAX_LINE} octets")
        if header is None or not behind:
            return None
        if not behind.startswith(b"\n"):
            raise ProxyError("a CR without its LF")
        return header, behind[1:]

    def _read_v2(self) -> tuple[ProxyHeader, bytes] | None:
        octets = self._octets
        head = bytes(octets[:_HEAD])
        _check_head(head, self._max_v2_bytes)
        if len(head) < _HEAD:
            return None
        end = _HEAD + _number(head[14:])
        self._tlv = self._tlv or _first_tlv(head, end)
        self._check_tlvs(end)
        return (_parse_block(bytes(octets[:end])), bytes(octets[end:])) if len(octets) >= end else None

    def _check_tlvs(self, end: int) -> None:
        """Nobody here asks what TLVs say. It goes on where it stopped, so that many short reads cost no more."""
        while self._tlv < end:
            start = self._tlv
            behind = start + _TLV_HEAD + _number(self._octets[start + 1 : start + _TLV_HEAD])
            if behind > end:
                raise ProxyError("a TLV runs over the end of the header")
            if len(self._octets) < start + _TLV_HEAD:
                return
            self._tlv = behind


# -- version 1, section 2.1 -------------------------------------------------------------------------------------------


class _Notation(NamedTuple):
    """How a family writes its addresses: what an address may look like so far, and how it is read."""

    name: str
    begun: re.Pattern[bytes]
    parse: Callable[[str], IPv4Address | IPv6Address]


_UNKNOWN: Final = b"PROXY UNKNOWN"
_BYTE: Final = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_NOTATIONS: Final = {
    b"PROXY TCP4 ": _Notation("IPv4", re.compile(rb"(?:%b\.){0,3}%b?" % (_BYTE, _BYTE)), IPv4Address),
    # Dots: HAProxy writes the IPv4 half of a mixed pair as ::ffff:192.0.2.1.
    b"PROXY TCP6 ": _Notation("IPv6", re.compile(rb"[0-9A-Fa-f:.]{0,45}"), IPv6Address),
}
_PORT_BEGUN: Final = re.compile(rb"(?:0|[1-9][0-9]{0,4})?")
_MAX_PORT: Final = 65535


def _parse_line(text: bytes, complete: bool) -> ProxyHeader | None:
    """The header; None if this is only the beginning of a line.

    Args:
        text: the line without CR LF, or as much as there is.
        complete: whether its CR is there.
    """
    for start, notation in _NOTATIONS.items():
        if text.startswith(start):
            return _parse_fields(text[len(start) :].split(b" "), notation, complete)
    if text.startswith(_UNKNOWN):
        _check_unknown(text[len(_UNKNOWN) :])
        return _KEPT if complete else None
    if complete or not any(start.startswith(text) for start in (*_NOTATIONS, _UNKNOWN)):
        raise ProxyError("neither PROXY TCP4 nor PROXY TCP6 nor PROXY UNKNOWN")
    return None


def _check_unknown(rest: bytes) -> None:
    """What a proxy adds to UNKNOWN means nothing, but an LF alone ends no line."""
    if rest[:1] not in (b"", b" ") or b"\n" in rest:
        raise ProxyError("PROXY UNKNOWN, and no CR LF at its end")


def _parse_fields(fields: list[bytes], notation: _Notation, complete: bool) -> ProxyHeader | None:
    """Read from left to right: whatever stands behind the first fault has not come yet in another segmentation."""
    finished = len(fields) - (not complete)
    hosts = [_parse_host(field, notation, at < finished) for at, field in enumerate(fields[:2])]
    ports = [_parse_port(field, at < finished) for at, field in enumerate(fields[2:4], 2)]
    if len(fields) > 4 or len(fields) < 4 * complete:
        raise ProxyError("not two addresses and two ports with single spaces")
    return ProxyHeader(Endpoint(hosts[0], ports[0]), Endpoint(hosts[1], ports[1])) if complete else None


def _parse_host(field: bytes, notation: _Notation, finished: bool) -> str:
    """The address, normalised; empty if it is not finished."""
    error = ProxyError(f"not an {notation.name} address")
    if not notation.begun.fullmatch(field):
        raise error
    try:
        return str(notation.parse(field.decode("ascii"))) if finished else ""
    except AddressValueError:
        raise error from None


def _parse_port(field: bytes, finished: bool) -> int:
    port = int(field or b"0") if _PORT_BEGUN.fullmatch(field) else _MAX_PORT + 1
    if port > _MAX_PORT or (finished and not field):
        raise ProxyError(f"not a port from 0 to {_MAX_PORT}")
    return port


# -- version 2, section 2.2 -------------------------------------------------------------------------------------------


def _number(octets: bytes | bytearray) -> int:
    """A number of two octets; if they are not all there, the least one that begins so."""
    return int.from_bytes(octets.ljust(2, b"\0"), "big")


def _check_head(head: bytes, max_bytes: int) -> None:
    """Judge the octets of the head that are there. LOCAL ignores its family: section 2.2 says MUST."""
    command, family, length = head[12:13], head[13:14], _number(head[14:])
    if not _SIGNATURE.startswith(head[:12]):
        raise ProxyError("neither a PROXY line nor the signature of version 2")
    if command not in (b"", _LOCAL, _PROXY):
        raise ProxyError("not version 2, or neither LOCAL nor PROXY")
    if command == _PROXY and family and family not in _ADDRESS_BYTES:
        raise ProxyError("neither TCP over IPv4 or IPv6 nor UNSPEC nor UNIX")
    if length > max_bytes:
        raise ProxyError(f"more than {max_bytes} octets of addresses and TLVs")
    if len(head) == _HEAD and command == _PROXY and length < _ADDRESS_BYTES[family]:
        raise ProxyError("too short for the addresses of its family")


def _first_tlv(head: bytes, end: int) -> int:
    """Where TLVs begin; at the end if nobody knows: LOCAL and UNSPEC may have addresses of any length before them."""
    command, family = head[12:13], head[13:14]
    return end if command == _LOCAL or family == _UNSPEC else _HEAD + _ADDRESS_BYTES[family]


def _parse_block(header: bytes) -> ProxyHeader:
    """A complete header that was checked."""
    layout = _TCP.get(header[13:14])
    if header[12:13] == _LOCAL or layout is None:
        return _KEPT
    source, destination, source_port, destination_port = layout.unpack_from(header, _HEAD)
    return ProxyHeader(
        Endpoint(str(ip_address(source)), source_port), Endpoint(str(ip_address(destination)), destination_port)
    )
