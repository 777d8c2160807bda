"""`deploy/kubernetes` and `deploy/compose` against their schemas, and against the server itself."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from flagd_server import serving
from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.config.showing import markdown_table
from tests.deploy.dockerfile import read
from tests.deploy.kubernetes import SCHEMAS
from tests.end_to_end.processes import REPOSITORY

KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
COMPOSE = REPOSITORY / "deploy" / "compose"
FILES = sorted(KUBERNETES.glob("*.yaml"))
# The oldest and the newest release that is looked after.
RELEASES = ("1.31", "1.37")
VARIABLES = set(re.findall(r"`(FLAGD_[A-Z_]+)`", markdown_table()))
USER = int(read(REPOSITORY / "Dockerfile")[-1].last("USER").rest.partition(":")[0])


def objects(kind: str) -> list[dict[str, Any]]:
    found = [
        each
        for path in FILES
        for each in yaml.safe_load_all(path.read_text())
        if each["kind"] == kind
    ]
    assert found, kind
    return found


def the(kind: str) -> dict[str, Any]:
    (found,) = objects(kind)
    return found


def pods() -> Iterator[dict[str, Any]]:
    for kind in ("Deployment", "Job"):
        yield the(kind)["spec"]["template"]


def containers() -> Iterator[dict[str, Any]]:
    for pod in pods():
        yield from pod["spec"]["containers"]


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    app = create_app(Settings(database=str(tmp_path_factory.mktemp("routes") / "flagd.db")))
    try:
        return {rule.rule for rule in app.url_map.iter_rules()}
    finally:
        app.extensions["flagd_server"].close()


class TestKubernetes:
    @pytest.mark.parametrize("release", RELEASES)
    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
    def test_objects_are_what_the_schemas_say(self, path: Path, release: str) -> None:
        for each in yaml.safe_load_all(path.read_text()):
            if each["kind"] == "ServiceMonitor":  # not of Kubernetes itself
                assert not list(Draft202012Validator(SCHEMAS["ServiceMonitor"]).iter_errors(each))
            else:
                kubernetes_validate.validate(each, release, strict=True)

    def test_a_mistyped_field_is_found(self) -> None:
        deployment = the("Deployment")
        deployment["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, RELEASES[0], strict=True)

    def test_every_variable_is_a_setting_of_the_server(self) -> None:
        named = set(the("ConfigMap")["data"])
        for container in containers():
            named |= {each["name"] for each in container.get("env", ())}
        assert named <= VARIABLES
        assert {"FLAGD_DATABASE_URL_FILE", "FLAGD_ADMIN_TOKEN_FILE"} <= named

    def test_what_it_is_told_is_what_the_server_takes(self, tmp_path: Path) -> None:
        environ = dict(the("ConfigMap")["data"])
        for name, secret in the("Secret")["stringData"].items():
            (tmp_path / name).write_text(
                secret.replace("CHANGE-ME", f"fr_admin_{'a1B2' * 10}" if "admin" in name else "x")
            )
        for name, text in environ.items():
            environ[name] = text.replace("/run/secrets/flagd", str(tmp_path))
        settings = Settings.from_environ(environ)
        assert settings.port == ports()["http"]
        assert settings.host == "0.0.0.0"

    def test_secrets_are_files_that_are_mounted(self) -> None:
        keys = set(the("Secret")["stringData"])
        values = {**the("ConfigMap")["data"]}
        for pod in pods():
            (container,) = pod["spec"]["containers"]
            own = {each["name"]: each["value"] for each in container.get("env", ())}
            mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
            for name, path in {**(values if "envFrom" in container else {}), **own}.items():
                if name.endswith("_FILE") and "secrets" in path:
                    folder, _, key = path.rpartition("/")
                    volume = volumes[mounted[folder]]
                    assert volume["secret"]["secretName"] == the("Secret")["metadata"]["name"]
                    assert key in keys

    def test_probes_ask_routes_at_the_port_that_is_open(self, routes: set[str]) -> None:
        (server,) = the("Deployment")["spec"]["template"]["spec"]["containers"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = server[name]["httpGet"]
            assert asked["path"] in routes
            assert asked["port"] in ports()
        assert (
            server["livenessProbe"]["httpGet"]["path"]
            != server["readinessProbe"]["httpGet"]["path"]
        )
        assert the("Service")["spec"]["ports"][0]["targetPort"] in ports()
        (endpoint,) = the("ServiceMonitor")["spec"]["endpoints"]
        assert endpoint["path"] in routes
        assert endpoint["port"] == the("Service")["spec"]["ports"][0]["name"]
        allowed = the("NetworkPolicy")["spec"]["ingress"][0]["ports"]
        assert [each["port"] for each in allowed] == list(ports().values())

    def test_a_stop_has_the_time_that_the_server_takes(self) -> None:
        pod = the("Deployment")["spec"]["template"]["spec"]
        (server,) = pod["containers"]
        command, seconds = server["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "sleep"
        # What came in is stored after the last request, for as long again.
        needed_s = int(seconds) + 2 * serving._GRACEFUL_S
        assert pod["terminationGracePeriodSeconds"] >= needed_s

    def test_nothing_runs_as_root_or_writes_its_root(self) -> None:
        for pod in pods():
            spec = pod["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["runAsUser"] == USER
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert spec["automountServiceAccountToken"] is False
            # A Service called flagd would set FLAGD_PORT to tcp://….
            assert spec["enableServiceLinks"] is False
        for container in containers():
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]

    def test_selectors_find_the_pods_and_only_the_server_s(self) -> None:
        server, job = (pod["metadata"]["labels"] for pod in pods())
        deployment = the("Deployment")["spec"]
        spread = deployment["template"]["spec"]["topologySpreadConstraints"]
        for selector in (
            deployment["selector"]["matchLabels"],
            the("Service")["spec"]["selector"],
            the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            *(each["labelSelector"]["matchLabels"] for each in spread),
        ):
            assert selector.items() <= server.items()
            assert not selector.items() <= job.items()
        everybody = the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
        assert everybody.items() <= server.items()
        assert everybody.items() <= job.items()

    def test_one_replica_may_leave_and_another_is_there(self) -> None:
        replicas = the("Deployment")["spec"]["replicas"]
        assert 0 < the("PodDisruptionBudget")["spec"]["maxUnavailable"] < replicas


def ports() -> dict[str, int]:
    (server,) = the("Deployment")["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["containerPort"] for each in server["ports"]}


class TestCompose:
    document: Any = yaml.safe_load((COMPOSE / "compose.yaml").read_text())

    def servers(self) -> dict[str, Any]:
        return {
            name: service
            for name, service in self.document["services"].items()
            if service["image"].startswith("flagd-release:")
        }

    def test_two_replicas_and_what_is_around_them(self) -> None:
        assert set(self.document["services"]) == {
            "postgres",
            "migrate",
            "flagd-1",
            "flagd-2",
            "nginx",
        }

    def test_every_variable_is_a_setting_of_the_server(self) -> None:
        for service in self.servers().values():
            assert set(service["environment"]) <= VARIABLES
            assert all(isinstance(value, str) for value in service["environment"].values())

    def test_secrets_are_files_and_each_is_declared_used_and_made(self, tmp_path: Path) -> None:
        services = self.document["services"].values()
        used = {name for service in services for name in service.get("secrets", ())}
        assert used == set(self.document["secrets"])
        for service in services:
            for name, value in service.get("environment", {}).items():
                if name.endswith("_FILE") and "/run/secrets/" in value:
                    assert value.removeprefix("/run/secrets/") in service["secrets"]
        script = tmp_path / "secrets.sh"
        script.write_text((COMPOSE / "secrets.sh").read_text())
        made = [subprocess.run(["sh", script], check=True, capture_output=True) for _ in range(2)]
        assert b"fr_admin_" not in made[0].stdout
        files = {name: tmp_path / each["file"] for name, each in self.document["secrets"].items()}
        settings = Settings.from_environ(
            {
                "FLAGD_DATABASE_URL_FILE": str(files["database_url"]),
                "FLAGD_ADMIN_TOKEN_FILE": str(files["admin_token"]),
            }
        )
        assert files["postgres_password"].read_text() in settings.database
        assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
        assert (COMPOSE / ".gitignore").read_text() == "secrets/\n"

    def test_nothing_writes_its_root_and_a_stop_has_its_time(self) -> None:
        for name, service in self.document["services"].items():
            assert service["read_only"] is True, name
        for service in self.servers().values():
            assert int(service["stop_grace_period"].rstrip("s")) >= 2 * serving._GRACEFUL_S
            assert service["cap_drop"] == ["ALL"]

    def test_each_waits_for_what_it_needs_and_says_whether_it_is_well(self) -> None:
        services = self.document["services"]
        assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
        for name in ("flagd-1", "flagd-2"):
            waits = services[name]["depends_on"]["migrate"]["condition"]
            assert waits == "service_completed_successfully"
            assert services["nginx"]["depends_on"][name]["condition"] == "service_healthy"
            assert "healthcheck" not in services[name], "the image has one"
        for name in ("postgres", "nginx"):
            assert services[name]["healthcheck"]["test"][0] == "CMD"

    def test_nginx_leads_to_the_replicas(self) -> None:
        for volume in self.document["services"]["nginx"]["volumes"]:
            assert (COMPOSE / volume.split(":")[0]).is_file(), volume
        text = (REPOSITORY / "deploy" / "nginx" / "flagd.conf").read_text()
        (port,) = {service["environment"].get("FLAGD_PORT") for name, service in
                   self.servers().items() if name != "migrate"}  # fmt: skip
        assert set(re.findall(r"server (flagd-\d:\d+)", text)) == {
            f"flagd-{number}:{port}" for number in (1, 2)
        }
        listening = re.findall(r"^\s*listen (\d+);", text, re.MULTILINE)
        published = self.document["services"]["nginx"]["ports"][0].split(":")
        assert published[0] == "127.0.0.1"
        assert listening == [published[2]]


DASHBOARD: Any = json.loads((REPOSITORY / "deploy/grafana/flagd-release.json").read_text())


def dashboard_queries() -> list[str]:
    targets = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    annotations = [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    variables = [each["query"] for each in DASHBOARD["templating"]["list"]]
    return [*(target["expr"] for target in targets), *annotations, *variables]


class TestDashboard:
    def test_panels_have_names_of_their_own_and_do_not_lie_on_each_other(self) -> None:
        panels = DASHBOARD["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert len({panel["title"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
            assert not cells & taken, panel["title"]
            taken |= cells

    def test_it_shows_every_side(self) -> None:
        queried = "\n".join(dashboard_queries())
        for name in (
            "flagd_http_request_duration_seconds_bucket",
            "flagd_http_requests_total",
            "flagd_http_requests_waiting",
            "flagd_streams_open",
            "flagd_flags_killed",
            "flagd_guard_flags_blind",
            "flagd_telemetry_waiting",
            "flagd_leader",
        ):
            assert name in queried
