"""The services of docker/compose.yaml that Debian has, with the same configuration files, round real containers."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from tests.docker.image.build import ROOT
from tests.docker.image.check_image import GRACE, wait_until_ready
from tests.docker.image.containers import Container, Image, running
from tests.docker.image.names import RESOLVER, Names
from tests.docker.image.network import CLIENT, HERE, SUBNET, namespace
from tests.docker.image.senders import Senders, send
from tests.docker.queries import queries_of_the_dashboard
from tests.server.waiting import until

DOCKER = ROOT / "docker"
PROXIED = (HERE, 2525)  # HAProxy, where compose.yaml publishes port 25
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
NAMES = {"haproxy": [HERE], "postgres": [HERE]}


def expanded(text: str) -> str:
    """A value of compose.yaml, its variables at their defaults."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def command_of(service: str) -> list[str]:
    return [expanded(word) for word in COMPOSE[service]["command"]]


def environment_of(service: str) -> list[str]:
    return [f"{name}={expanded(value)}" for name, value in COMPOSE[service].get("environment", {}).items()]


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
def public_folder() -> Iterator[Path]:
    """A folder that another user may reach; pytest's own are for one user."""
    with tempfile.TemporaryDirectory(prefix="fastsmtp-image-test-") as path:
        yield Path(path)


@pytest.fixture
def postgresql(bridge: None, public_folder: Path, tmp_path: Path) -> Iterator[None]:
    """PostgreSQL with the configuration of docker/, and what its image makes at the first start."""
    data = public_folder / "data"
    data.mkdir()
    for each in (public_folder, data):
        shutil.chown(each, "postgres", "postgres")
    (binaries,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    password = expanded(COMPOSE["postgres"]["environment"]["POSTGRES_PASSWORD"])
    (public_folder / "password").write_text(password)
    initdb = (f"--pgdata={data}", "--username=fastsmtp", f"--pwfile={public_folder}/password", "--auth=scram-sha-256")
    subprocess.run(["runuser", "-u", "postgres", "--", str(binaries / "initdb"), *initdb], check=True)
    with open(data / "pg_hba.conf", "a") as rules:
        rules.write("host all all all scram-sha-256\n")
    options = {
        "config_file": DOCKER / "postgresql/postgresql.conf",
        "data_directory": data,
        "hba_file": data / "pg_hba.conf",
        "ident_file": data / "pg_ident.conf",
        "unix_socket_directories": data,
    }
    start = ("runuser", "-u", "postgres", "--", str(binaries / "postgres"))
    arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    client = {"PGHOST": HERE, "PGUSER": "fastsmtp", "PGPASSWORD": password}
    with program(tmp_path / "postgresql.log", *start, *arguments):
        ready = [str(binaries / "pg_isready"), "--quiet"]
        until(lambda: subprocess.run(ready, env=client, check=False).returncode == 0, "PostgreSQL is ready", 30)
        create = [str(binaries / "createdb"), "fastsmtp"]
        subprocess.run(create, env=client, check=True)
        yield


@pytest.fixture
def replicas(image: Image, names: Names, postgresql: None, tmp_path: Path) -> Iterator[Sequence[Container]]:
    """The two containers of the service mx."""
    names.addresses = {**NAMES, "mx": [f"{SUBNET}.11", f"{SUBNET}.12"]}
    with ExitStack() as stack:
        found = [stack.enter_context(service("mx", number, image, tmp_path)) for number in (11, 12)]
        for container in found:
            wait_until_ready(container)
        yield found


@contextmanager
def service(name: str, number: int, image: Image, folder: Path) -> Iterator[Container]:
    """A container of a service of compose.yaml, at an address of the network."""
    hosts, resolver = folder / "hosts", folder / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{at} {host}\n" for host, (at,) in NAMES.items()))
    resolver.write_text(f"nameserver {RESOLVER}\n")
    mounts = [(hosts, "/etc/hosts"), *((DOCKER / at, to) for at, to in files_of(name))]
    with (
        namespace(f"fastsmtp-image-test-{number}", f"{SUBNET}.{number}") as network,
        running(
            image,
            f"{name}-{number}",
            folder,
            network,
            *command_of(name),
            environment=environment_of(name),
            mounts=mounts,
        ) as container,
    ):
        yield container


def files_of(service: str) -> list[tuple[str, str]]:
    """What compose.yaml mounts: files of docker/, and where they are to be seen."""
    split = (each.split(":") for each in COMPOSE[service].get("volumes", []))
    return [(parts[0], parts[1]) for parts in split]


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


def test_mail_goes_all_the_way(haproxy: Sequence[Container], image: Image, tmp_path: Path) -> None:
    """Client, HAProxy, one of two servers, PostgreSQL, consumer; with the client's own address in the logs."""
    sent: list[str] = []

    def both_have_some() -> bool:
        sent.append(f"through-{len(sent)}")
        send(PROXIED, sent[-1], source=CLIENT)
        return len(sent) >= 20 and all(messages_of(container) for container in haproxy)

    until(both_have_some, "both servers get mail", 40)
    for container in haproxy:  # from the PROXY header; HAProxy's own address is another one
        assert all(CLIENT in line for line in messages_of(container))
    with service("consumer", 13, image, tmp_path) as consumer:
        until(lambda: consumed(consumer) >= set(sent), "all are consumed", 40)
        consumer.signal("TERM")
        assert consumer.process.wait(GRACE) == 0


def messages_of(server: Container) -> list[str]:
    """The lines of a server's access log."""
    return [line for line in server.log.splitlines() if "sender.example" in line]


def consumed(consumer: Container) -> set[str]:
    """The subjects in the consumer's log."""
    return set(re.findall(r"octets: (\S+)$", consumer.log, re.MULTILINE))


def test_a_replica_that_stops_under_load_costs_no_message(
    haproxy: Sequence[Container], image: Image, tmp_path: Path
) -> None:
    senders = Senders(PROXIED, 6)
    with senders.sending():
        until(lambda: len(senders.acknowledged) >= 60, "60 messages", 60)
        haproxy[0].signal("TERM")
        assert haproxy[0].process.wait(GRACE) == 0
        before = len(senders.acknowledged)
        until(lambda: len(senders.acknowledged) >= before + 60, "60 more, by the other one", 60)
    with service("consumer", 13, image, tmp_path) as consumer:
        until(lambda: consumed(consumer) >= set(senders.acknowledged), "all are consumed", 60)


def test_prometheus_finds_both_and_answers_what_the_dashboard_asks(
    haproxy: Sequence[Container], tmp_path: Path
) -> None:
    resolv = tmp_path / "resolv.conf"
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
