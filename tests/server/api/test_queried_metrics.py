"""What dashboard and alerts ask for is what `/metrics` says, names and labels both."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.test_manifests import dashboard_queries
from tests.end_to_end.processes import REPOSITORY
from tests.server.api.client import Api

NAME = re.compile(r"\b(?:flagd|process)_[a-z_]+\b")
SELECTED = re.compile(r"\b((?:flagd|process)_[a-z_]+)\{([^}]*)\}")
OF_PROMETHEUS = {"job", "instance"}
RUNBOOKS = REPOSITORY / "docs" / "operations.md"
(RULES,) = yaml.safe_load_all((REPOSITORY / "deploy/prometheus/alerts.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]


@pytest.fixture
def exposed(admin: Api, sdk: Api, checkout: str) -> dict[str, set[str]]:
    """Name of a series → its labels. Whatever has no series has its family's name at least."""
    admin.get("/nothing")
    admin.post(f"/api/v1/flags/{checkout}/environments/production/kill", {"reason": "a test"})
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(admin.get("/metrics").text):
        names = [family.name]
        if family.type == "counter":
            names = [f"{family.name}_total"]
        elif family.type == "histogram":
            names = [f"{family.name}_{end}" for end in ("bucket", "count", "sum")]
        for name in names:
            found.setdefault(name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries() -> list[str]:
    return [*dashboard_queries(), *(rule["expr"] for rule in ALERTS)]


def test_every_metric_that_is_asked_for_exists(exposed: dict[str, set[str]]) -> None:
    # Those of webhooks and objectives have series only where there are some.
    asked = {name for query in queries() for name in NAME.findall(re.sub(r'"[^"]*"', "", query))}
    assert len(asked) > 30
    assert asked - exposed.keys() == set()


def test_every_label_that_is_asked_for_exists(exposed: dict[str, set[str]]) -> None:
    for query in queries():
        for name, matchers in SELECTED.findall(query):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", matchers)))
            if exposed[name]:
                assert labels <= exposed[name] | OF_PROMETHEUS, query


def test_every_metric_joins_its_commit(exposed: dict[str, set[str]]) -> None:
    assert exposed["flagd_build_info"] == {"version", "git_sha"}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """In a section of its own, which says what it means, what to look at and what to do."""
    document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert REPOSITORY / document == RUNBOOKS
    assert anchor == rule["alert"].lower()
    assert rule["annotations"]["summary"]
    if rule["alert"] != "ErrorBudgetBurns":  # each objective says it itself
        assert rule["labels"]["severity"] in ("page", "ticket")
    (section,) = re.findall(
        rf"^### {rule['alert']}\n(.*?)(?=^##|\Z)", RUNBOOKS.read_text(), re.MULTILINE | re.DOTALL
    )
    for part in ("**Means**", "**Look**", "**Do**"):
        assert part in section


def test_no_runbook_is_of_an_alert_that_there_is_not() -> None:
    sections = set(re.findall(r"^### (\w+)$", RUNBOOKS.read_text(), re.MULTILINE))
    assert sections == {rule["alert"] for rule in ALERTS}


def test_the_dashboard_is_as_json_writes_it() -> None:
    path: Path = REPOSITORY / "deploy/grafana/flagd-release.json"
    document = json.loads(path.read_text())
    assert path.read_text() == json.dumps(document, indent=2, ensure_ascii=False) + "\n"
