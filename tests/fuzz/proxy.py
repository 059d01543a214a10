"""PROXY headers: how they are cut does not matter, and nothing but ProxyError comes of what is none."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from fastsmtp.protocol.proxy import ProxyError, ProxyHeader, ProxyReader
from tests.fuzz.engine import run
from tests.fuzz.octets import Octets
from tests.protocol.dialogues import cut

_MAX_V2_BYTES: Final = (4096, 64, 0, 65535)

Verdict = tuple[ProxyHeader, bytes] | str | None


def fuzz_one(octets: bytes) -> None:
    """The octets: what a header of version 2 may announce, four lengths of segments, what the proxy sends."""
    choices = Octets(octets)
    max_v2_bytes, lengths = choices.one_of(_MAX_V2_BYTES), choices.lengths()
    whole = _read([choices.rest], max_v2_bytes)
    assert _read(cut(choices.rest, lengths), max_v2_bytes) == whole
    assert _read(cut(choices.rest[:300], [1]), max_v2_bytes) == _read([choices.rest[:300]], max_v2_bytes)
    if isinstance(whole, tuple):
        _check(*whole, choices.rest)


def _read(segments: Iterable[bytes], max_v2_bytes: int) -> Verdict:
    """The header and what came behind it, also in later segments; or why it is none; or None: more is needed."""
    reader = ProxyReader(max_v2_bytes)
    remaining = iter(segments)
    for segment in remaining:
        try:
            found = reader.feed(segment)
        except ProxyError as error:
            return str(error)
        if found:
            return found[0], found[1] + b"".join(remaining)
    return None


def _check(header: ProxyHeader, behind: bytes, octets: bytes) -> None:
    assert octets.endswith(behind)
    assert len(behind) < len(octets)
    assert (header.source is None) == (header.destination is None)
    for end in (header.source, header.destination):
        if end:
            assert str(ip_address(end.host)) == end.host
            assert 0 <= end.port <= 65535
    if header.source and header.destination:
        assert ip_address(header.source.host).version == ip_address(header.destination.host).version


if __name__ == "__main__":
    run(fuzz_one)
