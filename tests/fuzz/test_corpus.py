"""The committed corpora: what fuzzing has found worth keeping passes, and stays small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz import chunking, parameters, proxy, sasl, session
from tests.fuzz.engine import FuzzOne

CORPUS: Final = Path(__file__).parent / "corpus"
TARGETS: Final[dict[str, FuzzOne]] = {
    "session": session.fuzz_one,
    "proxy": proxy.fuzz_one,
    "chunking": chunking.fuzz_one,
    "sasl": sasl.fuzz_one,
    "parameters": parameters.fuzz_one,
}
MAX_FILES: Final = 300
MAX_OCTETS: Final = 200_000


def _inputs() -> Iterator[tuple[str, Path]]:
    for target in TARGETS:
        for path in sorted((CORPUS / target).iterdir()):
            yield target, path


@pytest.mark.parametrize("target", TARGETS)
def test_replay(target: str) -> None:
    paths = sorted((CORPUS / target).iterdir())
    assert paths
    for path in paths:
        try:
            TARGETS[target](path.read_bytes())
        except BaseException as error:
            error.add_note(f"input: {path}")
            raise


@pytest.mark.parametrize("target", TARGETS)
def test_anything(target: str) -> None:
    """Octets that end early, and none at all."""
    for length in range(80):
        TARGETS[target](bytes(length))
        TARGETS[target](b"\xff" * length)


def test_every_corpus_has_its_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


def test_the_corpora_are_small() -> None:
    sizes = [path.stat().st_size for _, path in _inputs()]
    assert len(sizes) < MAX_FILES
    assert sum(sizes) < MAX_OCTETS
