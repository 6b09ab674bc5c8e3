"""docker-compose.yml against the project: paths, ports, variables and commands that it names are there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from streams.app import STAGES
from streams.cli import main
from streams.settings import load
from tests.kafka.apache_kafka import POM

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if "build" in service}
LASTING = {name: service for name, service in SERVICES.items() if service.get("restart") == "unless-stopped"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
#: In /run/secrets of a container.
SECRET = re.compile(r"/run/secrets/(\w+)")


def read(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return loaded


def mounts(service: str) -> dict[str, str]:
    """Path in the container to source."""
    parts = [volume.split(":") for volume in SERVICES[service].get("volumes", [])]
    return {part[1]: part[0] for part in parts}


def container_ports(service: str) -> set[str]:
    published = {port.rpartition(":")[2] for port in SERVICES[service].get("ports", [])}
    return published | set(SERVICES[service].get("expose", []))


def test_the_schema_holds(tmp_path: Path) -> None:
    """Compose itself takes the file, with every profile; that of Debian 12 knows no name at its top."""
    if shutil.which("docker-compose") is None:
        pytest.skip("no docker-compose here (Debian: apt-get install docker-compose)")
    file = tmp_path / "docker-compose.yml"
    file.write_text(TEXT.replace("name: fraudstream\n", ""))
    profiles = [word for service in SERVICES.values() for word in service.get("profiles", [])]
    done = subprocess.run(
        ["docker-compose", "--file", str(file), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COMPOSE_PROFILES": ",".join(profiles)},
    )
    assert done.returncode == 0, done.stderr


def test_images_are_pinned_and_kafka_is_the_tested_one() -> None:
    """No image floats; the broker is the version of the broker tests, our image the version of pyproject."""
    kafka = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)</version>", POM.read_text())
    assert kafka is not None
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka.group(1)}"
    assert {service["image"] for service in OWN.values()} == {f"fraudstream:{own}"}
    for service in SERVICES.values():
        assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+\.\d+", service["image"])


def test_ports_are_open_to_this_machine_only() -> None:
    """Every published port is bound to the loopback interface, and no two to the same one."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    hosts = [port.split(":")[1] for port in published]
    assert len(set(hosts)) == len(hosts)


@pytest.mark.parametrize("name", SERVICES)
def test_service_can_do_no_more_than_it_must(name: str) -> None:
    """No capabilities, no new privileges, no root, and a root file system that is read-only."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    # Apache's image writes its configuration below /opt/kafka at its start.
    assert service.get("read_only", False) is (name != "kafka")
    user = service.get("user") or re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert int(user.split(":")[0]) > 0
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_service_says_whether_it_is_well(name: str) -> None:
    """What runs on has a health check, a limit of memory and is started again; jobs have no port to ask."""
    service = SERVICES[name]
    if name not in LASTING and name != "kafka":
        assert service["healthcheck"] == {"disable": True}
        return
    assert service["mem_limit"]
    if name in OWN:
        assert "HEALTHCHECK" in DOCKERFILE
        return
    asked = re.search(r":(\d+)", " ".join(service["healthcheck"]["test"]))
    assert asked is not None
    internal = {"19092"} if name == "kafka" else set()
    assert asked.group(1) in container_ports(name) | internal


@pytest.mark.parametrize("name", OWN)
def test_commands_are_those_of_the_project(name: str) -> None:
    """The command line of every service of ours is one that the project understands."""
    service = SERVICES[name]
    words = service.get("entrypoint", ["fraudstream"])[1:] + service.get("command", [])
    if name == "replay":
        words = [*words, str(ROOT / "README.md")]  # a file that exists, as the one that is given
    command: click.Command = main
    while isinstance(command, click.Group):
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    command.make_context(name, list(words))


def test_workers_share_all_stages() -> None:
    """Every stage runs, each in one service, and learning apart from scoring."""
    stages = {name: SERVICES[name]["command"][2].split(",") for name in ("worker", "learner")}
    assert sorted(stages["worker"] + stages["learner"]) == sorted(STAGES)
    assert "score" in stages["worker"]
    assert "learn" in stages["learner"]


def test_services_wait_for_services() -> None:
    """What is waited for is there, and has the health check that is waited for."""
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            healthy = SERVICES[other].get("healthcheck", {}) != {"disable": True}
            assert how["condition"] == ("service_healthy" if healthy else "service_completed_successfully")


def test_only_settings_that_exist_are_set() -> None:
    """Each FRAUD_ variable of the container files is a setting; an unknown one would end the worker."""
    variables = dict.fromkeys(re.findall(r"\b(FRAUD_\w+)\b", TEXT + DOCKERFILE))
    values = {"FRAUD_WORKER__METRICS_PORT": "9464", "FRAUD_BROKER__BOOTSTRAP": "kafka:19092"}
    settings = load(environ={name: values.get(name, "0.0.0.0") for name in variables})
    assert settings.broker.bootstrap == "kafka:19092"
    assert settings.worker.metrics_port == 9464
    assert "PLAINTEXT://kafka:19092" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]


def test_mounted_paths_exist() -> None:
    """What is mounted from the project is there and read-only; named volumes are declared."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, _, *options = volume.split(":")
            if source == "./data":
                continue  # the user's histories
            if source.startswith("./"):
                assert (ROOT / source).is_dir(), source
                assert options == ["ro"], name
            else:
                assert source in COMPOSE["volumes"]


def test_prometheus_is_given_rules_workers_and_alertmanager() -> None:
    """Configuration and rules lie where it is told; it asks services that exist, on their ports."""
    (config,) = [word for word in SERVICES["prometheus"]["command"] if word.startswith("--config.file=")]
    path = Path(config.partition("=")[2])
    source = mounts("prometheus")[str(path.parent)]
    assert (ROOT / source / path.name).is_file()
    prometheus = read(f"{source}/{path.name}")
    assert all(list((ROOT / source).glob(pattern)) for pattern in prometheus["rule_files"])
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    (workers,) = jobs["fraudstream"]["dns_sd_configs"]
    assert set(workers["names"]) == {name for name, service in OWN.items() if "expose" in service}
    assert all(str(workers["port"]) in container_ports(name) for name in workers["names"])
    assert f"FRAUD_WORKER__METRICS_PORT={workers['port']}" in DOCKERFILE
    (static,) = prometheus["alerting"]["alertmanagers"][0]["static_configs"]
    for target in [*static["targets"], *jobs["alertmanager"]["static_configs"][0]["targets"]]:
        host, _, port = target.partition(":")
        assert port in container_ports(host)


def test_alertmanager_is_given_its_configuration() -> None:
    """The configuration lies where it is told."""
    (config,) = [word for word in SERVICES["alertmanager"]["command"] if word.startswith("--config.file=")]
    path = Path(config.partition("=")[2])
    assert (ROOT / mounts("alertmanager")[str(path.parent)] / path.name).is_file()


def test_grafana_asks_nobody_outside() -> None:
    """Neither for versions, plugins, news or pictures, nor does it tell how it is used."""
    set_to = SERVICES["grafana"]["environment"]
    for asks in (
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
        "GF_NEWS_NEWS_FEED_ENABLED",
    ):
        assert set_to[asks] == "false", asks
    assert set_to["GF_PLUGINS_PREINSTALL_DISABLED"] == set_to["GF_SECURITY_DISABLE_GRAVATAR"] == "true"


def test_grafana_is_given_data_source_and_dashboards() -> None:
    """Provisioning lies where Grafana looks, names a service and its port, and where the dashboards are."""
    mounted = mounts("grafana")
    provisioning = mounted["/etc/grafana/provisioning"]
    (source,) = read(f"{provisioning}/datasources/prometheus.yml")["datasources"]
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert port in container_ports(host)
    (provider,) = read(f"{provisioning}/dashboards/fraudstream.yml")["providers"]
    folder = provider["options"]["path"]
    assert list((ROOT / mounted[folder]).glob("*.json"))
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (ROOT / mounted[str(home.parent)] / home.name).is_file()


def test_secrets_are_files() -> None:
    """No password stands in the file; each secret that is read is given to the service, and made by make."""
    alertmanager = (ROOT / "monitoring" / "alertmanager" / "alertmanager.yml").read_text()
    read_by = {"alertmanager": SECRET.findall(alertmanager)}
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN", variable):
                assert variable.endswith("__FILE"), variable
                read_by.setdefault(name, []).extend(SECRET.findall(value))
    assert read_by == {"alertmanager": ["alert_webhook_url"], "grafana": ["grafana_admin_password"]}
    for name, secrets in read_by.items():
        assert SERVICES[name]["secrets"] == secrets
        for secret in secrets:
            assert COMPOSE["secrets"][secret]["file"] == f"./secrets/{secret}"
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_make_secrets_makes_them_once(tmp_path: Path) -> None:
    """A random password that a second run keeps, readable in the containers; the folder is the user's own."""

    def run() -> dict[str, str]:
        command = ["make", "--file", str(ROOT / "Makefile"), "secrets"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    made = run()
    assert made.keys() == COMPOSE["secrets"].keys()
    assert len(made["grafana_admin_password"]) >= 24
    assert run() == made
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "secrets").iterdir())
