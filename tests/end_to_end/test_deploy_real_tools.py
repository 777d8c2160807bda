"""The files in `deploy/` with a real server, a real Prometheus and a real Alertmanager."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import yaml

from flagd_sdk.core.latency import latency_bucket
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S, REPOSITORY
from tests.end_to_end.real_tools import (
    instant,
    running_alertmanager,
    running_prometheus,
)
from tests.end_to_end.telemetry import cell, summary
from tests.waiting import eventually

DEPLOY = REPOSITORY / "deploy"
SPLIT = {"split": {"weights": {"on": 25_000, "off": 75_000}}}
VARIABLES = {
    "environment": "production",
    "flag": "new-checkout",
    "variant": "on",
    "control": "off",
    "service": "shop",
    "version": "v1",
}


def objects(path: str) -> dict[str, Any]:
    """Return the objects of a file by name."""
    documents = yaml.safe_load_all((DEPLOY / path).read_text())
    return {document["metadata"]["name"]: document for document in documents}


def flagger_query(name: str, **variables: str) -> str:
    """Return the query as Flagger sends it: variables put in, runs of blanks made one."""
    query = objects("flagger/metric-templates.yaml")[name]["spec"]["query"]
    values = VARIABLES | variables
    query = re.sub(r"\{\{ variables\.(\w+) \}\}", lambda found: values[found[1]], query)
    return re.sub(r"\s+", " ", query.replace("{{ interval }}", "1m"))


def argo_metric(template: str, name: str) -> dict[str, Any]:
    metrics = objects("argo/analysis-templates.yaml")[template]["spec"]["metrics"]
    return next(metric for metric in metrics if metric["name"] == name)


def argo_phase(metric: dict[str, Any], result: Any) -> str:
    """Return what Argo makes of a result, as its `utils/evaluate/evaluate.go` does."""

    def holds(condition: str) -> bool:
        # The few words of its language that are used here are Python's, but for this one.
        return bool(eval(condition.replace("&&", "and"), {"len": len}, {"result": result}))

    if holds(metric["failureCondition"]):
        return "Failed"
    return "Successful" if holds(metric["successCondition"]) else "Inconclusive"


@dataclass(frozen=True)
class Watched:
    server: FlagServer
    prometheus: str

    def flagger(self, name: str, **variables: str) -> list[float]:
        return instant(self.prometheus, flagger_query(name, **variables))

    def argo(self, name: str, **arguments: str) -> str:
        metric = argo_metric("flagd-variant", name)
        values = VARIABLES | arguments
        query = metric["provider"]["prometheus"]["query"]
        query = re.sub(r"\{\{args\.(\w+)\}\}", lambda found: values[found[1]], query)
        return argo_phase(metric, instant(self.prometheus, query))


def report(server: FlagServer, sequence: int, times: int) -> None:
    """Report the new path as failing one request of ten, the old one one of a hundred."""
    cells = [
        cell("new-checkout", "on", 2, exposures=100 * times, errors=10 * times)
        | {"latency": {str(latency_bucket(300_000)): 100 * times}},
        cell("new-checkout", "off", 2, exposures=300 * times, errors=3 * times)
        | {"latency": {str(latency_bucket(40_000)): 300 * times}},
    ]
    answer = server.call(
        "POST",
        "/sdk/v1/telemetry",
        summary(sequence, cells),
        token=server.sdk_tokens["production"],
    )
    assert answer.json()["accepted"] == 2, answer.text


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, module_server: FlagServer
) -> Iterator[Watched]:
    tmp_path, server = tmp_path_factory.mktemp("prometheus"), module_server
    for key in ("new-checkout", "killed"):
        server.create_flag(key, default_serve=SPLIT)
    configuration = (DEPLOY / "prometheus/prometheus.yml").read_text()
    configuration = configuration.replace(
        "flagd-server.flagd:8013", server.url.removeprefix("http://")
    )
    configuration = configuration.replace("interval: 15s", "interval: 1s")
    token = tmp_path / "token"
    token.write_text(server.admin_token)
    configuration = configuration.replace("/etc/prometheus/flagd-token", str(token))
    (tmp_path / "alerts.yml").write_text((DEPLOY / "prometheus/alerts.yml").read_text())
    with running_prometheus(tmp_path, configuration) as (prometheus, _):
        yield Watched(server, prometheus)


def test_what_flagger_and_argo_ask_prometheus_is_answered(watched: Watched) -> None:
    assert watched.flagger("flagd-error-rate-increase") == []
    assert watched.flagger("flagd-guard-sees") == [0.0]
    assert watched.argo("error-rate-increase") == "Inconclusive"

    report(watched.server, 1, times=1)
    eventually(lambda: instant(watched.prometheus, "flagd_exposures_total"))
    report(watched.server, 2, times=10)
    (increase,) = eventually(lambda: watched.flagger("flagd-error-rate-increase"))
    assert increase == pytest.approx(9.0)
    (p99,) = watched.flagger("flagd-duration-p99")
    assert 0.262 < p99 <= 0.525
    (control_p99,) = watched.flagger("flagd-duration-p99", variant="off")
    assert 0.032 < control_p99 <= 0.066
    (of_service,) = watched.flagger("flagd-service-error-rate")
    assert of_service == pytest.approx(100 * 13 / 400)
    assert watched.flagger("flagd-guard-sees") in ([0.0], [1.0])
    assert watched.argo("error-rate-increase") == "Failed"
    assert watched.argo("duration-p99") == "Successful"

    # What nobody was served is not healthy.
    for name in ("flagd-error-rate-increase", "flagd-duration-p99"):
        assert watched.flagger(name, variant="nobody") == []
    assert watched.flagger("flagd-service-error-rate", version="v0") == []
    assert watched.argo("error-rate-increase", variant="nobody") == "Inconclusive"
    assert watched.argo("duration-p99", variant="nobody") == "Inconclusive"


def test_a_kill_is_an_alert(watched: Watched) -> None:
    watched.server.kill_flag("killed")

    def firing() -> list[dict[str, Any]]:
        answer = requests.get(f"{watched.prometheus}/api/v1/alerts", timeout=DEADLINE_S).json()
        return [alert for alert in answer["data"]["alerts"] if alert["state"] == "firing"]

    (alert,) = eventually(firing)
    assert alert["labels"]["alertname"] == "FlagKilled"
    assert alert["annotations"]["summary"] == "killed is killed in production by operator"


def test_every_series_that_the_files_name_is_there(module_server: FlagServer) -> None:
    text = module_server.call("GET", "/metrics").text
    there = set(re.findall(r"^# TYPE (flagd_\w+)", text, re.MULTILINE))
    for path in (
        "prometheus/alerts.yml",
        "flagger/metric-templates.yaml",
        "argo/analysis-templates.yaml",
    ):
        expressions = (DEPLOY / path).read_text()
        named = set(re.findall(r"\b(flagd_\w+?)(?:_bucket|_count)?(?=[{)\[ ])", expressions))
        assert named
        assert named <= there, path


def test_alertmanager_kills_what_an_alert_names(
    tmp_path: Path, start_server: Callable[..., FlagServer]
) -> None:
    server = start_server()
    for key in ("new-checkout", "other"):
        server.create_flag(key, default_serve=SPLIT)
    token = server.call("POST", "/api/v1/tokens", {"scope": "kill", "name": "alerts"}).json()
    (tmp_path / "token").write_text(token["text"])
    configuration = (DEPLOY / "alertmanager/alertmanager.yml").read_text()
    configuration = configuration.replace("http://flagd-server.flagd:8013", server.url)
    configuration = configuration.replace("/etc/alertmanager/flagd-token", f"{tmp_path / 'token'}")
    kill_path = "/api/v1/flags/{}/environments/production"

    def kill_of(flag: str) -> Any:
        return server.call("GET", kill_path.format(flag)).json()["kill"]

    def raise_alerts(alertmanager: str, *labels: dict[str, str]) -> None:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        alerts = [
            {
                "labels": {"alertname": "CheckoutFails", **each},
                "annotations": {"summary": "orders fail"},
                "startsAt": started,
            }
            for each in labels
        ]
        url = f"http://{alertmanager}/api/v2/alerts"
        assert requests.post(url, json=alerts, timeout=DEADLINE_S).status_code == 200

    with running_alertmanager(tmp_path, configuration) as alertmanager:
        raise_alerts(alertmanager, {"flag": "other"}, {"flag": "new-checkout", "kill": "flagd"})
        kill = eventually(lambda: kill_of("new-checkout"))
        assert (kill["source"], kill["by"]) == ("alert", "Alertmanager (alerts)")
        assert kill["reason"] == "alert CheckoutFails fires: orders fail"
        assert kill_of("other") is None


def test_argo_reads_a_gate(start_server: Callable[..., FlagServer]) -> None:
    server = start_server()
    gate = "/api/v1/environments/production/gates/before-more-traffic"
    server.call("PUT", gate, {"approval": True})
    token = server.call("POST", "/api/v1/tokens", {"scope": "read", "name": "argo"}).json()["text"]
    metric = argo_metric("flagd-gate", "gate")
    web = metric["provider"]["web"]
    assert web["jsonPath"] == "{$.data}"
    path = web["url"].replace("http://flagd-server.flagd:8013", server.url)
    path = path.replace("{{args.environment}}", "production")
    (header,) = web["headers"]

    def phase(name: str) -> str:
        answer = requests.get(
            path.replace("{{args.gate}}", name),
            headers={header["key"]: header["value"].replace("{{args.token}}", token)},
            timeout=web["timeoutSeconds"],
        )
        assert answer.status_code == 200
        return argo_phase(metric, SimpleNamespace(**answer.json()["data"]))

    assert phase("before-more-traffic") == phase("no-such-gate") == "Inconclusive"
    server.call("POST", f"{gate}/approve", {"reason": "looks good"})
    assert phase("before-more-traffic") == "Successful"
