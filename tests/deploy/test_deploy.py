"""What deploy/ holds fits the code and the docs: one set of commands, settings that exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from django.conf import settings

from lab.harness.hub import Cluster, Hub, Server, free_port
from lab.harness.store import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
HUB_SERVICES = {
    name: service for name, service in SERVICES.items() if service["image"] == "agentcom"
}
UNITS = {path.name: path.read_text() for path in sorted((DEPLOY / "systemd").iterdir())}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
PROXY = (DEPLOY / "nginx/agentcom.conf").read_text()
SERVERS = ["nginx/site.conf", "nginx/compose.conf"]
FAREWELL_S = 10  # as docs/operations.md says


def unit_values(unit: str, name: str) -> list[str]:
    """All values of a unit's option, continued lines joined."""
    return re.findall(rf"^{name}=(.*)$", UNITS[unit].replace("\\\n", ""), re.M)


def assigned(file: str) -> dict[str, str]:
    """What an environment file sets, lines that are commented out included."""
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", (DEPLOY / file).read_text(), re.M))


# --- Commands


def spoken(command: list[str]) -> list[str]:
    """A command without what may differ: the interpreter's place, port and address."""
    words = [re.sub(r"port=[^:]+:interface=[^:]+", "port=P:interface=I", word) for word in command]
    first = next(at for at, word in enumerate(words) if re.search(r"(daphne|manage\.py)$", word))
    return [words[first].rpartition("/")[2], *words[first + 1 :]]


def of_unit(unit: str) -> list[str]:
    [command] = unit_values(unit, "ExecStart")
    return spoken(shlex.split(command))


def of_service(name: str) -> list[str]:
    return spoken(SERVICES[name]["command"])


def of_docs(beginning: str) -> list[str]:
    [command] = {
        command
        for block in re.findall(r"^```sh\n(.*?)^```$", OPERATIONS, re.M | re.S)
        for command in block.replace("\\\n", "").splitlines()
        if command.startswith(beginning)
    }
    return spoken(shlex.split(command))


def of_harness(server: Server) -> list[str]:
    return spoken(list(server._command))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("cluster"), webs=1, workers=1, server="daphne")


def test_web_processes_are_started_alike_everywhere(cluster: Cluster):
    command = of_harness(cluster.webs[0])
    assert command[0] == "daphne"
    assert of_docs(".venv/bin/daphne") == command
    assert of_unit("agentcom-web@.service") == command
    assert of_service("web") == command


def test_workers_are_started_alike_everywhere(cluster: Cluster):
    command = of_harness(cluster.workers[0])
    assert command == ["manage.py", "runworker"]
    assert of_docs(".venv/bin/python manage.py runworker") == command
    assert of_unit("agentcom-worker@.service") == command
    assert of_service("worker") == command


def test_the_single_hub_is_started_alike_everywhere(tmp_path: Path):
    command = of_harness(Hub(tmp_path, server="daphne").webs[0])
    [image] = re.findall(r"^CMD (.*)$", DOCKERFILE, re.M)
    assert of_unit("agentcom.service") == command == spoken(json.loads(image))


def test_the_database_is_brought_up_to_date_first():
    command = of_docs(".venv/bin/python manage.py migrate")
    assert of_unit("agentcom-migrate.service") == command == of_service("migrate")
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("web", "worker"):
        needed = SERVICES[name]["depends_on"]["migrate"]
        assert needed["condition"] == "service_completed_successfully", name
        unit = f"agentcom-{name}@.service"
        for option in ("Wants", "After"):
            assert "agentcom-migrate.service" in unit_values(unit, option)[0].split()


# --- Settings


def test_only_settings_that_exist_are_set():
    named = set(re.findall(r"^(?:ENV|   ) *([A-Z_]+)=(?!/opt)", DOCKERFILE, re.M))
    named |= assigned("agentcom.env.example").keys()
    for service in HUB_SERVICES.values():
        named |= service["environment"].keys()
    for unit in UNITS:
        for pairs in unit_values(unit, "Environment"):
            named |= {pair.partition("=")[0] for pair in pairs.split()}
    assert named - {"PYTHONUNBUFFERED"} <= settings.ENVIRONMENT.keys()
    assert {"DATABASE_URL", "AGENTCOM_SECRET_KEY", "AGENTCOM_HOST"} <= named


def test_the_example_for_compose_names_what_it_asks_for():
    wanted = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    example = assigned("env.example").keys()
    assert wanted <= example
    assert example - wanted <= settings.ENVIRONMENT.keys()


def test_all_processes_of_compose_have_the_same_settings():
    web, *others = HUB_SERVICES.values()
    for other in others:
        assert other["environment"] == web["environment"]
        assert other["env_file"] == web["env_file"]


def test_no_example_holds_a_secret():
    assert assigned("env.example")["AGENTCOM_SECRET_KEY"] == ""
    assert assigned("env.example")["POSTGRES_PASSWORD"] == ""
    assert assigned("agentcom.env.example")["AGENTCOM_SECRET_KEY"] == ""


def test_what_holds_secrets_stays_out_of_git_and_of_the_image():
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    taken = {line[1:] for line in lines if line.startswith("!")}
    assert next(line for line in lines if not line.startswith("#")) == "*"
    assert not taken & {"deploy", "lab", "tests", "var", ".git", ".venv"}
    rooms = {app for app in settings.INSTALLED_APPS if (ROOT / app).is_dir()} - {"lab"}
    assert rooms | {"client", "templates", "manage.py", "requirements.txt"} <= taken


# --- Limits


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_a_planned_stop_has_the_time_it_takes():
    for unit in set(UNITS) - {"agentcom-migrate.service"}:
        assert seconds(unit_values(unit, "TimeoutStopSec")[0]) > FAREWELL_S, unit
    for name, service in HUB_SERVICES.items():
        assert seconds(service["stop_grace_period"]) > FAREWELL_S, name


def test_there_are_file_descriptors_for_thousands_of_sockets():
    for unit in ("agentcom.service", "agentcom-web@.service"):
        assert unit_values(unit, "LimitNOFILE") == ["65536"]
    for name in ("web", "proxy"):
        assert SERVICES[name]["ulimits"]["nofile"] == 65536


def test_nothing_gives_up_while_the_database_is_away():
    for unit in UNITS:
        assert unit_values(unit, "StartLimitIntervalSec") == ["0"], unit
        assert unit_values(unit, "Restart")[0] in ("always", "on-failure"), unit


def test_only_the_proxy_is_published_and_to_this_machine_alone():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    [(name, [port])] = published.items()
    assert name == "proxy"
    assert port.startswith("127.0.0.1:")


# --- The image's health check


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def health_of(port: int) -> int:
    [check] = re.findall(r"^HEALTHCHECK.* CMD (.*)$", DOCKERFILE.replace("\\\n", ""), re.M)
    python, *arguments = json.loads(check)
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "AGENTCOM_PORT": str(port)},
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
    return done.returncode


def test_the_health_check_tells_a_hub_that_answers_from_none(hub: Hub):
    assert health_of(hub.port) == 0
    assert health_of(free_port()) != 0


class WithoutDatabase(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path in ("/health", "/health/ready") else 200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_the_health_check_does_not_pass_a_hub_without_its_database():
    with ThreadingHTTPServer(("127.0.0.1", 0), WithoutDatabase) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            assert health_of(server.server_port) != 0
        finally:
            server.shutdown()
            serving.join()


# --- The proxy


def test_the_proxy_lets_the_hub_say_what_is_too_large():
    [limit] = re.findall(r"client_max_body_size (\d+)m;", PROXY)
    assert int(limit) * 1024 * 1024 > settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    [said] = re.findall(r"return 413 '(.*)';", PROXY)
    wanted = {"error": "body_too_large", "limit": settings.DATA_UPLOAD_MAX_MEMORY_SIZE}
    assert json.loads(said) == wanted


def test_the_proxy_passes_on_what_the_hub_needs():
    headers = dict(re.findall(r"proxy_set_header (\S+) (\S+);", PROXY))
    assert headers == {
        "Host": "$http_host",
        "X-Forwarded-Proto": "$agentcom_scheme",
        "Upgrade": "$http_upgrade",
        "Connection": "$connection_upgrade",
    }
    assert "proxy_read_timeout 1h;" in PROXY.partition("location /ws {")[2].partition("}")[0]


@pytest.mark.parametrize("server", SERVERS)
def test_each_server_defines_what_the_shared_part_uses(server: str):
    text = (DEPLOY / server).read_text()
    assert "include /etc/nginx/agentcom.conf;" in text
    for definition in (
        r"upstream agentcom \{",
        r"map \S+ \$agentcom_scheme \{",
        r"map \$http_upgrade \$connection_upgrade \{",
        r"least_conn;",
        r"max_fails=1",
    ):
        assert re.search(definition, text), definition


def test_the_proxy_reaches_the_web_processes_where_they_listen():
    [port] = re.findall(r"port=(\d+)", " ".join(SERVICES["web"]["command"]))
    assert re.findall(r"server web:(\d+) resolve", (DEPLOY / "nginx/compose.conf").read_text()) == [
        port
    ]
    mounted = {volume.split(":")[0] for volume in SERVICES["proxy"]["volumes"]}
    assert all((DEPLOY / file).is_file() for file in mounted)
