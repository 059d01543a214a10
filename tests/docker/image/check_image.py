"""The image as an operator runs it: read-only, without privileges, with a CPU quota, stopped under load."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from pathlib import Path

import pytest

from tests.docker.image.build import ROOT, Buildah
from tests.docker.image.conftest import Starter
from tests.docker.image.containers import Container, Image, running
from tests.docker.image.network import SUBNET
from tests.docker.image.senders import Senders, send, stored
from tests.server.waiting import until

ADDRESS = (f"{SUBNET}.11", 2525)
GRACE = 45.0  # seconds: stop_grace_period in docker/compose.yaml
START = 60.0


def wait_until_ready(container: Container) -> None:
    def healthy() -> bool:
        assert container.process.poll() is None, container.log
        return container.run("fastsmtp", "healthcheck").returncode == 0

    until(healthy, "the container is healthy", START)


def test_what_the_image_says(image: Image) -> None:
    config = image.config
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["fastsmtp"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "fastsmtp", "healthcheck"]
    assert config["Labels"]["org.opencontainers.image.title"] == "fastsmtp"


def test_what_the_image_is_without(image: Image) -> None:
    """No compilers, no pip, no caches, no sources."""
    folders = [image.root / each for each in ("usr/bin", "usr/local/bin", "opt/fastsmtp/bin")]
    programs = {path.name for folder in folders for path in folder.iterdir()}
    assert "fastsmtp" in programs
    assert {name for name in programs if re.fullmatch(r"(gcc|cc|g\+\+|ld|as|make|pip[\d.]*|git|curl)", name)} == set()
    assert list(image.root.rglob("site-packages/pip")) == []
    assert not (image.root / "root/.cache").exists()
    assert not (image.root / "src").exists()
    assert not (image.root / "wheels").exists()


@pytest.mark.parametrize(("cpus", "workers"), [(1.0, 1), (1.5, 2)])
def test_workers_follow_the_quota(start: Starter, cpus: float, workers: int) -> None:
    with start(cpus=cpus) as container:
        wait_until_ready(container)
        status = json.loads(container.run("fastsmtp", "ctl", "status", "--json").stdout)
        assert len(status["workers"]) == workers
        assert f"CPU quota {cpus:g}" in container.log


def test_mail_health_and_metrics_with_a_read_only_root(start: Starter, volume: Path) -> None:
    small, large = uuid.uuid4().hex, uuid.uuid4().hex
    with start() as container:
        wait_until_ready(container)
        send(ADDRESS, small)
        send(ADDRESS, large, octets=8_000_000)  # waits in /tmp
        assert stored(volume / "mail") == {small, large}
        assert container.run("touch", "/opt/fastsmtp/x").returncode != 0
        assert container.run("python", "-c", "import os; print(os.getuid())").stdout == "10001\n"
        fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8025/metrics').read().decode())"
        metrics = container.run("python", "-c", fetch).stdout
        assert 'fastsmtp_messages_total{outcome="accepted"} 2.0' in metrics


def test_stopped_under_load_it_loses_nothing_and_exits_with_0(start: Starter, volume: Path) -> None:
    """TERM to process 1, while clients send."""
    senders = Senders(ADDRESS, 8)
    with start() as container:
        wait_until_ready(container)
        with senders.sending():
            until(lambda: len(senders.acknowledged) >= 100, "100 messages", 60)
            begun = time.monotonic()
            container.signal("TERM")
            code = container.process.wait(GRACE)
        assert code == 0, container.log
        assert time.monotonic() - begun < GRACE
        assert "pid 1" in container.log
    assert set(senders.acknowledged) <= stored(volume / "mail")


def test_the_users_application_in_one_layer(tmp_path: Path, namespace: Path, volume: Path) -> None:
    """The Dockerfile of docker/README.md, and the handler of README.md."""
    readme = (ROOT / "docker/README.md").read_text()
    dockerfile, *_ = re.findall(r"(?m)((?:^    (?:FROM fastsmtp|COPY inbox|CMD).*\n)+)", readme)
    (handler,) = re.findall(r"```python\n(# inbox\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(re.sub(r"(?m)^    ", "", dockerfile))
    (context / "inbox.py").write_text(handler)
    buildah = Buildah(Path(os.environ["FASTSMTP_IMAGE_TEST"]))
    buildah.build(context, "inbox")
    root, config = buildah.unpacked("inbox")
    with running(Image(root, config), "inbox", tmp_path, namespace, mounts=[(volume, "/data")]) as container:
        wait_until_ready(container)
        with pytest.raises(OSError, match="relaying denied"):  # SMTPRecipientsRefused: the handler's own words
            send(ADDRESS, "refused")
