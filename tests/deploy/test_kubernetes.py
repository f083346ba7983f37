"""The manifests of deploy/kubernetes are valid, and fit the hub: its commands, settings, addresses
and times. There is no cluster: what they start is started here as processes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands

from agentcom import __version__
from agentcom.openapi import addresses
from agentcom.shutdown import FORCED_EXIT_S
from lab.harness.hub import Server, free_port, web_command
from lab.harness.store import MIGRATE, ROOT, Store, environment, on_postgresql
from tests.deploy.test_deploy import FAREWELL_S, SERVICES, assigned, spoken

Manifest = dict[str, Any]

KUBERNETES = ROOT / "deploy/kubernetes"
VERSIONS = ["1.30", "1.37"]  # of Kubernetes: the oldest and the newest that README.md names
FILES = {
    path.relative_to(KUBERNETES).as_posix(): [
        document for document in yaml.safe_load_all(path.read_text()) if document
    ]
    for path in sorted(KUBERNETES.rglob("*.yaml"))
}
KUSTOMIZATIONS = {
    path.partition("/")[0]: documents[0]
    for path, documents in FILES.items()
    if path.endswith("/kustomization.yaml")
}
EXAMPLE = KUSTOMIZATIONS["example"]
# Kinds that Kubernetes itself does not know.
FOREIGN = {"ServiceMonitor"}
MANIFESTS: list[Manifest] = [
    document
    for path, documents in FILES.items()
    if not path.endswith("/kustomization.yaml")
    for document in documents
]
SETTINGS = assigned("kubernetes/example/settings.env")
SECRETS = assigned("kubernetes/example/secrets.env.example")
KEY = "k" * 25 + "0123456789abcdefghijklmnopq"  # one that passes for secret
START_S = 60


def identified(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def named(identity: str) -> Manifest:
    [found] = [manifest for manifest in MANIFESTS if identified(manifest) == identity]
    return found


WEB, WORKER = named("Deployment/agentcom-web"), named("Deployment/agentcom-worker")
MIGRATE_JOB = named("Job/agentcom-migrate-version")
PODS = {
    identified(manifest): manifest["spec"]["template"] for manifest in (MIGRATE_JOB, WEB, WORKER)
}
CONTAINERS: dict[str, Manifest] = {
    container["name"]: container
    for pod in PODS.values()
    for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
}
[WEB_CONTAINER] = WEB["spec"]["template"]["spec"]["containers"]
PORT = {port["name"]: port["containerPort"] for port in WEB_CONTAINER["ports"]}["http"]
PROBES = {
    name: WEB_CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
}


# --- The manifests by themselves


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=identified)
def test_every_manifest_is_what_kubernetes_knows(manifest: Manifest, version: str):
    if manifest["kind"] in FOREIGN:
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            kubernetes_validate.validate(manifest, version, strict=True)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_manifest_with_a_mistake_is_refused():
    spec = {**WEB["spec"], "replica": 2}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**WEB, "spec": spec}, VERSIONS[-1], strict=True)


def test_every_manifest_is_applied_but_what_needs_an_operator():
    for folder, kustomization in KUSTOMIZATIONS.items():
        files = {Path(path).name for path in FILES if path.startswith(f"{folder}/")}
        taken = {name for name in kustomization["resources"] if name.endswith(".yaml")}
        left_out = {Path(path).name for path, found in FILES.items() if found[0]["kind"] in FOREIGN}
        assert files - {"kustomization.yaml"} - taken == left_out & files, folder
    assert "../base" in EXAMPLE["resources"]


def test_the_example_changes_what_there_is():
    assert {image["name"] for image in EXAMPLE["images"]} == {
        container["image"] for container in CONTAINERS.values()
    }
    assert [image["newTag"] for image in EXAMPLE["images"]] == [__version__]
    assert f"job/agentcom-migrate-{__version__}" in (KUBERNETES / "README.md").read_text()
    for change in EXAMPLE["replicas"]:
        named(f"Deployment/{change['name']}")
    [replacement] = EXAMPLE["replacements"]
    assert replacement["source"]["fieldPath"] == "spec.template.spec.containers.0.image"
    [target] = replacement["targets"]
    parts = MIGRATE_JOB["metadata"]["name"].split(target["options"]["delimiter"])
    assert parts[target["options"]["index"] :] == ["version"]


def test_selectors_find_the_pods_of_their_component_only():
    labels = {identity: pod["metadata"]["labels"] for identity, pod in PODS.items()}
    for kind, name, found in (
        ("Deployment", "agentcom-web", WEB),
        ("Deployment", "agentcom-worker", WORKER),
        ("PodDisruptionBudget", "agentcom-web", WEB),
        ("PodDisruptionBudget", "agentcom-worker", WORKER),
    ):
        wanted = named(f"{kind}/{name}")["spec"]["selector"]["matchLabels"]
        assert [of for of in labels if wanted.items() <= labels[of].items()] == [identified(found)]
    assert named("Service/agentcom")["spec"]["selector"] == labels[identified(WEB)]
    policies = [manifest for manifest in MANIFESTS if manifest["kind"] == "NetworkPolicy"]
    assert len(policies) == 3
    for policy in policies:
        wanted = policy["spec"]["podSelector"]["matchLabels"]
        assert any(wanted.items() <= found.items() for found in labels.values())


# --- Commands


def test_web_processes_and_workers_are_started_as_everywhere():
    assert spoken(WEB_CONTAINER["command"]) == spoken(["python", *web_command("daphne", PORT)])
    assert CONTAINERS["worker"]["command"] == SERVICES["worker"]["command"]
    assert CONTAINERS["migrate"]["command"] == SERVICES["migrate"]["command"]


def test_every_command_of_the_hub_exists():
    files = (path for path in KUBERNETES.rglob("*") if path.is_file())
    texts = [path.read_text() for path in files]
    texts += [" ".join(container["command"]) for container in CONTAINERS.values()]
    commands = {command for text in texts for command in re.findall(r"manage\.py,? (\w+)", text)}
    assert {"migrate", "runworker", "token"} <= commands
    assert commands <= get_commands().keys()


# --- Settings


def test_only_settings_that_exist_are_set():
    variables = {
        entry["name"] for container in CONTAINERS.values() for entry in container.get("env", ())
    }
    assert variables <= settings.ENVIRONMENT.keys()
    assert SETTINGS.keys() <= settings.ENVIRONMENT.keys()
    assert {"AGENTCOM_ALLOWED_HOSTS", "AGENTCOM_DASHBOARD_ACCESS"} <= SETTINGS.keys()


def read_from_secret(container: Manifest) -> dict[str, str]:
    """The keys that a container takes, by the variable that each becomes."""
    return {entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in container["env"]}


def test_the_secret_has_what_is_read():
    for name, container in CONTAINERS.items():
        read = read_from_secret(container)
        needless = {"REDIS_URL"} if name == "migrate" else set()
        assert read == {key: key for key in SECRETS.keys() - needless}, name


def test_a_pod_that_lacks_a_secret_does_not_start():
    """Without the database's address, for example, the hub would take SQLite."""
    [secret] = EXAMPLE["secretGenerator"]
    for container in CONTAINERS.values():
        for entry in container["env"]:
            reference = entry["valueFrom"]["secretKeyRef"]
            assert reference["name"] == secret["name"]
            assert not reference.get("optional")


def test_web_processes_and_workers_have_the_same_settings():
    [generated] = EXAMPLE["configMapGenerator"]
    for name in ("web", "worker"):
        assert CONTAINERS[name]["envFrom"] == [{"configMapRef": {"name": generated["name"]}}]
    assert not SETTINGS.keys() & SECRETS.keys()


def test_what_the_job_reads_keeps_its_name():
    """A Job cannot be changed: one that names a map with a hash could not be applied again."""
    assert "envFrom" not in CONTAINERS["migrate"]
    [secret] = EXAMPLE["secretGenerator"]
    assert secret["options"]["disableNameSuffixHash"]


def test_no_example_holds_a_secret():
    assert set(SECRETS.values()) == {""}
    assert "secrets.env" in (ROOT / ".gitignore").read_text().splitlines()
    [secret] = EXAMPLE["secretGenerator"]
    assert secret["envs"] == ["secrets.env"]
    assert not any(manifest["kind"] == "Secret" for manifest in MANIFESTS)


def pod_environment(**more: str) -> dict[str, str]:
    """What the web container gets from the example."""
    return environment(**{**SETTINGS, "AGENTCOM_SECRET_KEY": KEY, **more})


def checked(**variables: str) -> subprocess.CompletedProcess[str]:
    command = ["manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=variables, capture_output=True, text=True
    )


def test_the_example_is_fit_for_a_server(tmp_path: Path):
    done = checked(**pod_environment(AGENTCOM_DATA_DIR=str(tmp_path)))
    assert done.returncode == 0, done.stderr


def test_no_service_sets_the_port_to_a_url(tmp_path: Path):
    for identity, pod in PODS.items():
        assert pod["spec"]["enableServiceLinks"] is False, identity
    name = named("Service/agentcom")["metadata"]["name"]
    linked = {f"{name.upper()}_PORT": "tcp://10.0.0.1:80"}  # what Kubernetes would add
    done = checked(**pod_environment(AGENTCOM_DATA_DIR=str(tmp_path), **linked))
    assert done.returncode != 0
    assert "AGENTCOM_PORT" in done.stderr


# --- Ports and addresses


def test_ports_agree():
    [listened] = re.findall(r"port=(\d+)", " ".join(WEB_CONTAINER["command"]))
    assert int(listened) == PORT == settings.ENVIRONMENT["AGENTCOM_PORT"]
    [port] = named("Service/agentcom")["spec"]["ports"]
    assert port["targetPort"] == port["name"] == "http"
    [rule] = named("Ingress/agentcom")["spec"]["rules"]
    [way] = rule["http"]["paths"]
    assert way["backend"]["service"] == {"name": "agentcom", "port": {"name": port["name"]}}
    [allowed] = named("NetworkPolicy/agentcom-web")["spec"]["ingress"]
    assert [entry["port"] for entry in allowed["ports"]] == ["http"]
    assert all(probe["port"] == "http" for probe in PROBES.values())


def test_the_ingress_serves_the_name_that_the_hub_answers_under():
    spec = named("Ingress/agentcom")["spec"]
    served = {rule["host"] for rule in spec["rules"]}
    assert served == {host for entry in spec["tls"] for host in entry["hosts"]}
    names = set(SETTINGS["AGENTCOM_ALLOWED_HOSTS"].split(","))
    assert names - {"localhost", "127.0.0.1"} == served


def test_the_ingress_is_as_the_other_proxies():
    annotations = {
        name.removeprefix("nginx.org/"): value
        for name, value in named("Ingress/agentcom")["metadata"]["annotations"].items()
    }
    assert annotations.pop("websocket-services") == named("Service/agentcom")["metadata"]["name"]
    proxy = (ROOT / "deploy/nginx/agentcom.conf").read_text()
    for name, value in annotations.items():  # they are called as nginx' own directives
        assert f"{name.replace('-', '_')} {value};" in proxy
    assert {"proxy-read-timeout", "client-max-body-size"} <= annotations.keys()


def test_probes_and_metrics_lead_to_addresses_of_the_hub():
    assert {name: probe["path"] for name, probe in PROBES.items()} == {
        "startup": "/health/live",
        "liveness": "/health/live",
        "readiness": "/health/ready",
    }
    monitor = named("ServiceMonitor/agentcom")["spec"]
    [endpoint] = monitor["endpoints"]
    service = named("Service/agentcom")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert {endpoint["path"], *(probe["path"] for probe in PROBES.values())} <= addresses().keys()
    rules = (ROOT / "deploy/prometheus/agentcom.rules.yml").read_text()
    assert set(re.findall(r'job="(\w+)"', rules)) == {service["metadata"]["name"]}


# --- Times


def test_a_planned_stop_has_the_time_it_takes():
    _, waits_s = WEB_CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    for deployment, before_s in ((WEB, int(waits_s)), (WORKER, 0)):
        given_s = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert given_s > before_s + max(FAREWELL_S, FORCED_EXIT_S)


def test_a_rolling_restart_leaves_processes_and_time():
    assert WEB["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert WEB["spec"]["minReadySeconds"] > settings.AGENTCOM_RECLAIM_GRACE_S
    for deployment in (WEB, WORKER):
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        assert spec["replicas"] >= 2
        gone = spec["strategy"]["rollingUpdate"]["maxUnavailable"]
        assert gone < spec["replicas"]
        assert named(f"PodDisruptionBudget/{name}")["spec"]["maxUnavailable"] < spec["replicas"]


def test_a_database_that_is_away_restarts_no_process():
    """Liveness asks what answers without the database, and gives up later than readiness."""

    def gives_up_after_s(name: str) -> int:
        probe = WEB_CONTAINER[f"{name}Probe"]
        return int(probe["periodSeconds"] * probe["failureThreshold"])

    assert gives_up_after_s("readiness") < gives_up_after_s("liveness")
    assert gives_up_after_s("startup") >= START_S


# --- What a pod may


@pytest.mark.parametrize("identity", PODS)
def test_a_pod_may_do_nothing_that_it_does_not_need(identity: str):
    spec = PODS[identity]["spec"]
    assert spec["automountServiceAccountToken"] is False
    [uid] = re.findall(r"useradd --uid (\d+)", (ROOT / "deploy/Dockerfile").read_text())
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(uid),
        "runAsGroup": int(uid),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in spec.get("initContainers", []) + spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        # what is written to is not the data folder: a hub on SQLite must not begin here
        written = [at["mountPath"] for at in container["volumeMounts"] if not at.get("readOnly")]
        assert written == ["/tmp"]
        assert {"cpu", "memory"} == container["resources"]["requests"].keys()
        assert {"memory"} == container["resources"]["limits"].keys()


def test_the_namespace_takes_such_pods_only():
    labels = named("Namespace/agentcom")["metadata"]["labels"]
    assert labels == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert EXAMPLE["namespace"] == named("Namespace/agentcom")["metadata"]["name"]


# --- As processes


class Empty(Store):
    """A database without tables."""

    made_by = ("-c", "")


@pytest.fixture
def variables(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a pod whose database has no tables yet."""
    store = Empty(tmp_path) if on_postgresql() else None  # it drops the database when it goes
    yield pod_environment(**store.environment if store else {"AGENTCOM_DATA_DIR": str(tmp_path)})
    del store


def web_process(variables: dict[str, str], folder: Path) -> Server:
    """The web container's command, on another port."""
    port = free_port()
    _, *arguments = WEB_CONTAINER["command"]
    arguments = [word.replace(f"port={PORT}", f"port={port}") for word in arguments]
    return Server([sys.executable, "-m", "daphne", *arguments], variables, folder / "web.log", port)


def probe(web: Server, name: str) -> httpx.Response:
    """As the kubelet asks: by the pod's address."""
    return httpx.get(f"http://127.0.0.1:{web.port}{PROBES[name]['path']}")


def until_answered(web: Server) -> httpx.Response:
    give_up_at = time.monotonic() + START_S
    while True:
        try:
            return probe(web, "startup")
        except httpx.TransportError:
            assert web.is_running, web.log
            assert time.monotonic() < give_up_at, web.log
            time.sleep(0.1)


def run(command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL)


def test_pods_wait_for_the_migration_and_then_work(variables: dict[str, str], tmp_path: Path):
    """Web processes are alive and not ready, the worker's first container does not end; the Job's
    command changes both. Then a stop is over in time."""
    web = web_process(variables, tmp_path)
    web.launch()
    python_first = {**variables, "PATH": f"{Path(sys.executable).parent}:{variables['PATH']}"}
    waiting = run(CONTAINERS["migrated"]["command"], python_first)
    try:
        assert until_answered(web).status_code == 200
        assert probe(web, "liveness").status_code == 200
        refused = probe(web, "readiness")
        assert refused.status_code == 503
        assert "migrat" in refused.text
        assert waiting.poll() is None

        assert CONTAINERS["migrate"]["command"] == ["python", *MIGRATE[:2]]
        assert run([sys.executable, *MIGRATE], variables).wait(START_S) == 0
        assert waiting.wait(START_S) == 0
        web.wait_until_it_answers()
        assert probe(web, "readiness").status_code == 200

        began_at = time.monotonic()
        assert web.terminate() == 0
        assert time.monotonic() - began_at < FAREWELL_S
    finally:
        web.kill()
        waiting.kill()
        waiting.wait()


def test_prometheus_reads_a_pod_by_its_address(variables: dict[str, str], tmp_path: Path):
    """The address is none of the hub's names; the token is a viewer's."""
    assert run([sys.executable, *MIGRATE], variables).wait(START_S) == 0
    create = [sys.executable, "manage.py", "token", "create", "prometheus", "--kind", "viewer"]
    token = subprocess.check_output(create, cwd=ROOT, env=variables, text=True).strip()
    web = web_process(variables, tmp_path)
    web.start()
    try:
        address = {"Host": f"10.1.2.3:{PORT}"}
        of_viewer = {**address, "Authorization": f"Bearer {token}"}
        for path, headers, status in (
            ("/metrics", of_viewer, 200),
            ("/metrics", address, 401),
            (PROBES["readiness"]["path"], address, 200),
            ("/dashboard", address, 400),
        ):
            answer = httpx.get(f"http://127.0.0.1:{web.port}{path}", headers=headers)
            assert answer.status_code == status, path
    finally:
        web.terminate()
