"""`deploy/` as the tools themselves see it, without running them; with them, it is in
`tests/end_to_end/test_deploy_real_tools.py`.
"""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from flagd_server.domain.hooks import HOOKS
from tests.deploy.kubernetes import SCHEMAS
from tests.end_to_end.processes import REPOSITORY
from tests.end_to_end.real_tools import program

DEPLOY = REPOSITORY / "deploy"
KUBERNETES = sorted([*DEPLOY.glob("flagger/*.yaml"), *DEPLOY.glob("argo/*.yaml")])


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def test_promtool_takes_the_alerts_and_the_configuration(tmp_path: Path) -> None:
    promtool = program("promtool")
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", DEPLOY / "prometheus/alerts.yml")
    shutil.copy(DEPLOY / "prometheus/alerts.yml", tmp_path)
    token = tmp_path / "token"
    token.write_text("fr_read_")
    text = (DEPLOY / "prometheus/prometheus.yml").read_text()
    assert "/etc/prometheus/flagd-token" in text
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(text.replace("/etc/prometheus/flagd-token", str(token)))
    run(promtool, "check", "config", configuration)


def test_each_alert_fires_when_it_should() -> None:
    run(program("promtool"), "test", "rules", DEPLOY / "prometheus/alerts_test.yml")


def test_each_alert_is_tried_both_ways() -> None:
    (rules,) = documents(DEPLOY / "prometheus/alerts.yml")
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    (tests,) = documents(DEPLOY / "prometheus/alerts_test.yml")
    tried = Counter(
        (row["alertname"], bool(row["exp_alerts"]))
        for test in tests["tests"]
        for row in test["alert_rule_test"]
    )
    # Of a silent environment there is another one beside it that reports.
    both = {(alert, fires) for alert in alerts for fires in (True, False)}
    assert both - tried.keys() == {("TelemetrySilent", False)}
    assert {alert for alert, _ in tried} == alerts


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (["alertname=A"], "people"),
        (["alertname=A", "kill=flagd", "flag=new-checkout"], "flagd-production,people"),
        (["alertname=A", "kill=no"], "people"),
    ],
)
def test_amtool_routes_alerts_to_people_and_those_that_kill_to_the_server_too(
    labels: list[str], receivers: str
) -> None:
    amtool = program("amtool")
    file = DEPLOY / "alertmanager/alertmanager.yml"
    run(amtool, "check-config", file)
    shown = run(amtool, "config", "routes", "test", f"--config.file={file}", *labels)
    assert shown.strip() == receivers


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_objects_have_the_fields_that_the_tools_document(path: Path) -> None:
    for document in documents(path):
        validator = Draft202012Validator(SCHEMAS[document["kind"]])
        assert [error.message for error in validator.iter_errors(document)] == []


def test_a_mistyped_field_is_found() -> None:
    (canary,) = documents(DEPLOY / "flagger/canary.yaml")
    canary["spec"]["analysis"]["treshold"] = 5
    assert not Draft202012Validator(SCHEMAS["Canary"]).is_valid(canary)


def test_each_webhook_says_its_type_again() -> None:
    (canary,) = documents(DEPLOY / "flagger/canary.yaml")
    for webhook in canary["spec"]["analysis"]["webhooks"]:
        assert webhook["metadata"]["hook"] == webhook["type"]
        assert webhook["type"] in HOOKS


def test_each_variable_of_a_template_is_given() -> None:
    templates = {
        each["metadata"]["name"]: each["spec"]["query"]
        for each in documents(DEPLOY / "flagger/metric-templates.yaml")
    }
    (canary,) = documents(DEPLOY / "flagger/canary.yaml")
    for metric in canary["spec"]["analysis"]["metrics"]:
        query = templates[metric["templateRef"]["name"]]
        assert set(re.findall(r"variables\.(\w+)", query)) == set(metric["templateVariables"])


def test_each_argument_of_an_analysis_is_given() -> None:
    templates = {
        each["metadata"]["name"]: each["spec"]
        for each in documents(DEPLOY / "argo/analysis-templates.yaml")
    }
    for name, spec in templates.items():
        used = set(re.findall(r"args\.(\w+)", yaml.safe_dump(spec["metrics"])))
        assert used == {argument["name"] for argument in spec["args"]}, name
    (rollout,) = documents(DEPLOY / "argo/rollout.yaml")
    canary = rollout["spec"]["strategy"]["canary"]
    steps = [step["analysis"] for step in canary["steps"] if "analysis" in step]
    for analysis in (canary["analysis"], *steps):
        for template in analysis["templates"]:
            needed = {
                argument["name"]
                for argument in templates[template["templateName"]]["args"]
                if not argument.keys() & {"value", "valueFrom"}
            }
            assert needed == {argument["name"] for argument in analysis["args"]}
