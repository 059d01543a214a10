"""The services of docker/compose.yaml that Debian has, with the same configuration files, round real containers."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.docker.image.build import ROOT
from tests.docker.image.check_image import GRACE, wait_until_ready
from tests.docker.image.containers import Container, Image, running
from tests.docker.image.names import RESOLVER, Names
from tests.docker.image.network import CLIENT, HERE, SUBNET, namespace
from tests.docker.image.senders import Senders, send, stored
from tests.docker.queries import queries_of_the_dashboard
from tests.server.waiting import until

DOCKER = ROOT / "docker"
PROXIED = (HERE, 2525)  # HAProxy, where compose.yaml publishes port 25
SERVE = (
    "serve",
    "--listen",
    "0.0.0.0:2525 proxy_protocol proxy_networks=10.89.0.0/24",
    "--store",
    "maildir:/data/mail",
)
ADMIN = ("FASTSMTP_ADMIN=0.0.0.0:8025",)


@contextmanager
def program(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs; it is stopped with the context."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@pytest.fixture
def replicas(image: Image, names: Names, tmp_path: Path, volume: Path) -> Iterator[Sequence[Container]]:
    """The two containers of the service mx, which share a volume here."""
    with ExitStack() as stack:
        found = []
        for number in (11, 12):
            network = stack.enter_context(namespace(f"fastsmtp-image-test-{number}", f"{SUBNET}.{number}"))
            mounts = [(volume, "/data")]
            found.append(
                stack.enter_context(
                    running(image, f"mx-{number}", tmp_path, network, *SERVE, environment=ADMIN, mounts=mounts)
                )
            )
        for container in found:
            wait_until_ready(container)
        names.addresses = {
            "mx": [f"{SUBNET}.11", f"{SUBNET}.12"],
            "haproxy": [HERE],
        }
        yield found


@pytest.fixture
def haproxy(replicas: Sequence[Container], tmp_path: Path) -> Iterator[Sequence[Container]]:
    """HAProxy in front of both, when its checks have found them; yields the containers."""
    with program(tmp_path / "haproxy.log", "haproxy", "-W", "-f", str(DOCKER / "haproxy/haproxy.cfg")):
        until(lambda: servers_that_are_up() == 2, "HAProxy knows both", 30)
        yield replicas


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
        assert isinstance(text, str)
        return text


def servers_that_are_up() -> int:
    try:
        lines = get(f"http://{HERE}:8405/metrics").splitlines()
    except OSError:
        return 0
    return sum(
        line.endswith(" 1") for line in lines if line.startswith("haproxy_server_status{") and 'state="UP"' in line
    )


def test_mail_through_haproxy_reaches_both_with_the_clients_address(haproxy: Sequence[Container], volume: Path) -> None:
    sent = [f"through-{number}" for number in range(20)]
    for identity in sent:
        send(PROXIED, identity, source=CLIENT)
    assert stored(volume / "mail") == set(sent)
    for container in haproxy:
        lines = [line for line in container.log.splitlines() if "sender.example" in line]
        assert lines
        assert all(CLIENT in line for line in lines)  # from the PROXY header; HAProxy's own address is another one


def test_a_replica_that_stops_under_load_costs_no_message(haproxy: Sequence[Container], volume: Path) -> None:
    senders = Senders(PROXIED, 6)
    with senders.sending():
        until(lambda: len(senders.acknowledged) >= 60, "60 messages", 60)
        haproxy[0].signal("TERM")
        assert haproxy[0].process.wait(GRACE) == 0
        before = len(senders.acknowledged)
        until(lambda: len(senders.acknowledged) >= before + 60, "60 more, by the other one", 60)
    assert set(senders.acknowledged) <= stored(volume / "mail")


def test_prometheus_finds_both_and_answers_what_the_dashboard_asks(
    haproxy: Sequence[Container], tmp_path: Path
) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {RESOLVER}\n")
    # Its configuration is taken as it is, from where it is: rules.yml is beside it.
    script = f'mount --bind {resolv} "$(realpath /etc/resolv.conf)" && exec "$@"'
    prometheus = (
        *("unshare", "--mount", "sh", "-c", script, "sh", "prometheus"),
        *(f"--config.file={DOCKER}/prometheus/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"),
        f"--web.listen-address={HERE}:9090",
    )
    for number in range(4):
        send(PROXIED, f"measured-{number}")
    with program(tmp_path / "prometheus.log", *prometheus):
        until(lambda: ask('sum(up{job="fastsmtp"})') == [2.0], "both are scraped", 60)
        until(lambda: ask('sum(fastsmtp_messages_total{outcome="accepted"})') == [4.0], "the messages are seen", 30)
        until(lambda: ask('up{job="haproxy"}') == [1.0], "HAProxy is scraped", 30)
        for query in queries_of_the_dashboard():
            ask(query.replace("$instance", ".*").replace("$__rate_interval", "1m"))
        assert ask("sum(fastsmtp_processes{state='ready'}) > 0") == [2.0]
        rules = json.loads(get(f"http://{HERE}:9090/api/v1/rules"))["data"]["groups"][0]["rules"]
        assert rules
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}


def ask(query: str) -> list[float]:
    """The values of an instant query; none while Prometheus is not there yet."""
    try:
        found = json.loads(get(f"http://{HERE}:9090/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 400:
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        return []
    assert found["status"] == "success", found
    return [float(each["value"][1]) for each in found["data"]["result"]]
