"""Every file in docker/ is what its program takes for one, and says nothing that does not exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from fastsmtp.config import SETTINGS
from tests.docker.queries import DASHBOARD, queries_of_the_dashboard

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    each for path in sorted((DOCKER / "kubernetes").glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())
]
(DEPLOYMENT,) = [each for each in OBJECTS if each["kind"] == "Deployment"]
# Files that a test of their own is about.
CHECKED = {
    "README.md",
    "compose.yaml",
    "consumer.py",
    "grafana/dashboards/fastsmtp.json",
    "grafana/provisioning/dashboards/fastsmtp.yaml",
    "grafana/provisioning/datasources/prometheus.yaml",
    "haproxy/haproxy.cfg",
    "postgresql/postgresql.conf",
    "prometheus/prometheus.yml",
    "prometheus/rules.yml",
    *(f"kubernetes/{path.name}" for path in (DOCKER / "kubernetes").glob("*.yaml")),
}


def metric_names() -> set[str]:
    """All that the server has, with the names of a histogram's parts."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    names = set()
    for name, kind in re.findall(r"(?m)^\| `(fastsmtp_\w+)` \| (\w+) \|", page):
        names |= {f"{name}{part}" for part in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return names


def test_every_file_is_tested() -> None:
    files = {str(path.relative_to(DOCKER)) for path in DOCKER.rglob("*") if path.is_file()}
    assert {file for file in files if "__pycache__" not in file} == CHECKED


# -- compose ----------------------------------------------------------------------------------------------------------


def test_compose_keeps_to_the_schema_of_its_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*check, str(DOCKER / "compose.yaml")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_alone_is_the_small_thing() -> None:
    assert [name for name, service in COMPOSE["services"].items() if "profiles" not in service] == ["fastsmtp"]
    profiles = {profile for service in COMPOSE["services"].values() for profile in service.get("profiles", [])}
    assert profiles == {"cluster", "monitoring", "loadtest"}


def test_files_that_compose_mounts_are_there() -> None:
    mounted = {
        volume.split(":")[0]
        for service in COMPOSE["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith(".")
    }
    assert "./haproxy/haproxy.cfg" in mounted
    assert [path for path in mounted if not (DOCKER / path).exists()] == []


def test_settings_that_compose_and_kubernetes_name_exist() -> None:
    named = set()
    for path in [DOCKER / "compose.yaml", *(DOCKER / "kubernetes").glob("*.yaml")]:
        named |= set(re.findall(r"\bFASTSMTP_\w+", path.read_text()))
    assert named
    assert named <= {about.environment for about in SETTINGS.values()}


def test_each_grace_time_is_longer_than_what_happens_in_it() -> None:
    services = COMPOSE["services"]
    seconds = {name: int(services[name]["stop_grace_period"].removesuffix("s")) for name in ("mx", "haproxy")}
    hard_stop = int(re.findall(r"hard-stop-after (\d+)s", (DOCKER / "haproxy/haproxy.cfg").read_text())[0])
    drain = SETTINGS["drain_timeout"].default
    assert isinstance(drain, int | float)
    assert seconds["mx"] > drain
    assert seconds["haproxy"] > hard_stop
    pod = DEPLOYMENT["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > drain + pause


def test_proxies_that_are_believed_are_those_of_the_network() -> None:
    (subnet,) = [each["subnet"] for each in COMPOSE["networks"]["mail"]["ipam"]["config"]]
    assert f"proxy_networks={subnet}" in " ".join(COMPOSE["services"]["mx"]["command"])


# -- programs that read their own -------------------------------------------------------------------------------------


def test_haproxy_takes_its_configuration(require_program: Callable[[str], str]) -> None:
    check = [require_program("haproxy"), "-c", "-f", str(DOCKER / "haproxy/haproxy.cfg")]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_prometheus_takes_its_configuration_and_rules(require_program: Callable[[str], str]) -> None:
    check = [require_program("promtool"), "check", "config", str(DOCKER / "prometheus/prometheus.yml")]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"SUCCESS: \d+ rules found", done.stdout + done.stderr)


def test_postgresql_takes_its_configuration(require_program: Callable[[str], str], tmp_path: Path) -> None:
    """It prints a setting, after it has read all of them."""
    require_program("pg_createcluster")  # of the same package; Debian keeps postgres itself out of the PATH
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    files = {"data_directory": tmp_path, "hba_file": tmp_path / "hba", "ident_file": tmp_path / "ident"}
    files["config_file"] = DOCKER / "postgresql/postgresql.conf"
    options = [word for name, path in files.items() for word in ("-c", f"{name}={path}")]
    for name, value in (("max_connections", "200"), ("fsync", "on"), ("synchronous_commit", "on")):
        # As root it answers -C only.
        done = subprocess.run(
            [found[-1], "-C", name, *options], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.strip() == value, done.stderr


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    asked = {name for query in queries_of_the_dashboard() for name in re.findall(r"\bfastsmtp_\w+", query)}
    assert len(asked) > 10
    assert asked - metric_names() == set()


def test_alerts_are_about_metrics_that_exist() -> None:
    asked = set(re.findall(r"\bfastsmtp_\w+", (DOCKER / "prometheus/rules.yml").read_text()))
    assert asked
    assert asked - metric_names() == set()


def test_queries_of_the_dashboard_are_queries(require_program: Callable[[str], str], tmp_path: Path) -> None:
    """promtool reads expressions in rules only, so they become some."""
    queries = [each.replace("$__rate_interval", "1m").replace("$instance", ".*") for each in queries_of_the_dashboard()]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    check = [require_program("promtool"), "check", "rules", str(file)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_finds_its_data_source() -> None:
    (source,) = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    dashboard = json.loads(DASHBOARD.read_text())
    assert {target["datasource"]["uid"] for panel in dashboard["panels"] for target in panel["targets"]} == {
        source["uid"]
    }
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_grafana_finds_the_dashboard() -> None:
    (provider,) = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/fastsmtp.yaml").read_text())["providers"]
    mounts = COMPOSE["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts


# -- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", ["1.32", "1.37"])
@pytest.mark.parametrize("described", OBJECTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_objects_keep_to_the_schemas_of_kubernetes(described: dict[str, Any], release: str) -> None:
    kubernetes_validate.validate(described, release, strict=True)


def test_a_wrong_object_is_seen() -> None:
    """So that the test above can fail."""
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_everything_selects_the_pods_of_the_deployment() -> None:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for each in OBJECTS:
        by_kind.setdefault(each["kind"], []).append(each)
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        by_kind["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"],
        by_kind["NetworkPolicy"][0]["spec"]["podSelector"]["matchLabels"],
        *(service["spec"]["selector"] for service in by_kind["Service"]),
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    (autoscaler,) = by_kind["HorizontalPodAutoscaler"]
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    assert set(by_kind) == {
        *("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy")
    }


def test_pods_may_do_what_the_image_needs_and_no_more() -> None:
    pod = DEPLOYMENT["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/data"}
    assert container["resources"]["limits"]["cpu"] == container["resources"]["requests"]["cpu"]


def test_the_consumer_can_be_imported() -> None:
    namespace: dict[str, Any] = {"__name__": "consumer"}
    exec(compile((DOCKER / "consumer.py").read_text(), "consumer.py", "exec"), namespace)
    assert callable(namespace["receive"])
    assert "consumer:receive" in COMPOSE["services"]["consumer"]["command"]
