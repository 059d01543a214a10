"""What the checks of the image share. They run in a network namespace of their own: `make image-test`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.docker.image import network
from tests.docker.image.containers import Container, Image, running
from tests.docker.image.names import Names

Starter = Callable[..., AbstractContextManager[Container]]


@pytest.fixture(scope="session")
def image() -> Image:
    """The image that `make image-test` has built."""
    return Image.load(Path(os.environ["FASTSMTP_IMAGE_TEST"]))


@pytest.fixture(scope="session")
def bridge() -> None:
    assert network.is_own_namespace(), "run make image-test"
    network.make_bridge()


@pytest.fixture(scope="session")
def names(bridge: None) -> Names:
    """The resolver of the compose network."""
    found = Names({})
    found.start()
    return found


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume that belongs to the image's user, as a new one of Docker's does."""
    path = tmp_path / "data"
    path.mkdir(mode=0o750)
    os.chown(path, 10001, 10001)
    return path


@pytest.fixture
def namespace(bridge: None) -> Iterator[Path]:
    """The network of one container, at 10.89.0.11."""
    with network.namespace("fastsmtp-image-test", f"{network.SUBNET}.11") as path:
        yield path


@pytest.fixture
def start(image: Image, tmp_path: Path, namespace: Path, volume: Path) -> Starter:
    """Starts the only container of a test, its volume at /data."""

    def starting(*arguments: str, cpus: float = 1.0) -> AbstractContextManager[Container]:
        return running(image, "fastsmtp", tmp_path, namespace, *arguments, cpus=cpus, mounts=[(volume, "/data")])

    return starting
