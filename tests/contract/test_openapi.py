"""The contract against the application's routes, and the checker against known breaches."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import validate

from flagd_sdk.core.summary import OTHER_KIND
from flagd_server.api import problems
from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.domain import (
    allowance,
    condition_check,
    latency_hours,
    telemetry,
    validation,
)
from flagd_server.domain.guard.verdict_table import Word
from flagd_server.services.alarms import AlarmKind
from flagd_server.services.claims import OTHER
from flagd_server.services.followed_kills import NAMED
from tests.contract.openapi_contract import ContractError, Exchange, Operation, contract

DOCUMENT = contract().document


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = tmp_path_factory.mktemp("contract") / "flagd.db"
    app = create_app(Settings(database=str(path)))
    yield app
    app.extensions["flagd_server"].close()


def test_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_every_route_is_documented_and_everything_documented_is_a_route(app: Flask) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD"}
    }
    documented = {(operation.template, operation.method) for operation in contract().operations}
    assert routes == documented


def test_every_operation_has_a_name_of_its_own_and_a_summary() -> None:
    names = [operation.name for operation in contract().operations]
    assert len(names) == len(set(names))
    assert all(operation.definition["summary"] for operation in contract().operations)


def test_problem_types_are_those_of_the_table() -> None:
    types = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    assert set(types) == {problems.TYPE_PREFIX + kind for kind in problems.KINDS}
    for response in problem_responses():
        schema = response["content"]["application/problem+json"]["schema"]
        expected = schema["allOf"][1]["properties"]
        for name in expected["type"]["enum"]:
            kind = name.removeprefix(problems.TYPE_PREFIX)
            assert problems.KINDS[kind][0] == expected["status"]["const"]


def problem_responses() -> list[dict[str, Any]]:
    shared = DOCUMENT["components"]["responses"].values()
    return [each for each in shared if "application/problem+json" in each["content"]]


def test_limits_are_those_of_the_domain() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    summary = schemas["TelemetrySummary"]["properties"]
    cell = schemas["TelemetryCell"]["properties"]
    assert summary["cells"]["maxItems"] == telemetry.MAX_CELLS
    assert summary["unscoped"]["maxProperties"] == telemetry.MAX_UNSCOPED
    assert summary["error_kinds"]["maxItems"] == telemetry.MAX_ERROR_KINDS
    assert summary["dropped"]["maxProperties"] == telemetry.MAX_DROPPED
    assert cell["units"]["maxProperties"] == telemetry.MAX_KINDS_PER_CELL
    assert cell["units"]["additionalProperties"]["maxItems"] == telemetry.MAX_UNITS_PER_KIND
    assert schemas["Count"]["maximum"] == telemetry.MAX_COUNT
    receipt = schemas["TelemetryReceipt"]["properties"]
    assert set(receipt["slow_over_s"]["properties"]) == set(latency_hours.QUANTILES)
    named = (schemas["KillReceipt"]["properties"]["unconfirmed"], schemas["SlowestProcesses"])
    assert {each["maxItems"] for each in named} == {NAMED}
    assert schemas["VerdictWord"]["enum"] == list(Word)
    assert schemas["Alarm"]["properties"]["kind"]["enum"] == list(AlarmKind)
    (reporting,) = (each for each in contract().operations if each.name == "report_telemetry")
    spelled = " ".join(reporting.definition["description"].split())
    for limit in (
        f"an instance, {allowance.SUMMARIES_OF_INSTANCE.per_s:,.0f} summaries a second",
        f"({allowance.SUMMARIES_OF_INSTANCE.burst:,.0f} at once)",
        f"{allowance.EXPOSURES_OF_INSTANCE.per_s:,.0f} exposures of one flag a second",
        f"({allowance.EXPOSURES_OF_INSTANCE.burst / 1e6:.0f} million at once)",
        f"a token, {allowance.SUMMARIES_OF_TOKEN.per_s:,.0f} summaries a second",
        f"({allowance.SUMMARIES_OF_TOKEN.burst:,.0f} at once)",
        f"{allowance.INSTANCES_OF_TOKEN_AN_HOUR:,} instances an hour",
        f"({allowance.NUMBERS_OF_INSTANCE.burst:,.0f}, and"
        f" {allowance.NUMBERS_OF_INSTANCE.per_s:.0f} for each second since)",
        f"versions beyond {allowance.RELEASES_OF_FLAG_AN_HOUR} an hour",
        f"kinds beyond {allowance.KINDS_OF_FLAG_AN_HOUR} an hour",
        f"at most {allowance.DEPLOYMENTS_OF_ENVIRONMENT.per_s * 3_600:.0f} an hour",
        f"({allowance.DEPLOYMENTS_OF_ENVIRONMENT.burst:,.0f} at once) in an environment",
        f"version `{OTHER}` of service `{OTHER}`",
        f"as `{OTHER_KIND}`",
    ):
        assert limit in spelled
    rules = schemas["ConfigurationUpdate"]["properties"]["rules"]
    assert rules["maxItems"] == validation.MAX_RULES
    assert schemas["Variants"]["maxProperties"] == validation.MAX_VARIANTS
    conditions = {
        name: definition
        for alternative in schemas["Condition"]["oneOf"]
        for name, definition in alternative["properties"].items()
    }
    assert conditions["values"]["maxItems"] == condition_check.MAX_VALUES
    assert conditions["all"]["maxItems"] == condition_check.MAX_BRANCHES
    assert conditions["any"]["maxItems"] == condition_check.MAX_BRANCHES


@pytest.mark.parametrize(
    "operation",
    [item for item in contract().operations if "requestBody" in item.definition],
    ids=lambda operation: operation.name,
)
def test_an_example_is_what_its_schema_says(operation: Operation) -> None:
    assert contract().faults(operation.body_pointer, operation.body_example) == []


def test_no_object_of_a_schema_is_open_by_accident() -> None:
    """An object names its fields and refuses others, or says that it is open, or is a map."""
    open_objects = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            names_its_fields = "properties" in node and node.get("type") == "object"
            if names_its_fields and not isinstance(node.get("additionalProperties"), bool):
                open_objects.append(path)
            for key, value in node.items():
                walk(value, f"{path}/{key}")
        elif isinstance(node, list):
            for index, value in enumerate(node):
                walk(value, f"{path}/{index}")

    walk(DOCUMENT["paths"], "paths")
    walk(DOCUMENT["components"]["schemas"], "schemas")
    assert open_objects == []


ENVIRONMENT: dict[str, Any] = {
    "key": "preview",
    "name": "Preview",
    "sequence": 1763925277123,
    "created_at": "2026-11-23T19:14:37.123Z",
}
GOOD = Exchange(
    method="post",
    path="/api/v1/environments",
    query="",
    request_headers={},
    request_body=b'{"key": "preview"}',
    status=201,
    headers={"content-type": "application/json"},
    body=json.dumps(ENVIRONMENT).encode(),
)


class TestChecker:
    """The checker itself: an exchange it should pass, and breaches of each kind."""

    def test_passes_what_the_contract_says(self) -> None:
        contract().check(GOOD)

    @pytest.mark.parametrize(
        "change",
        [
            {"status": 200},
            {"body": json.dumps(ENVIRONMENT | {"surprise": 1}).encode()},
            {"body": json.dumps(ENVIRONMENT | {"sequence": "1"}).encode()},
            {"body": json.dumps(ENVIRONMENT | {"created_at": "yesterday"}).encode()},
            {"body": b'{"key": "preview"}'},
            {"headers": {"content-type": "text/html"}},
            {"request_body": b'{"key": "preview", "surprise": 1}'},
            {"request_body": b'{"key": "No Key"}'},
            {"query": "surprise=1"},
            {"path": "/api/v1/nothing"},
            {"method": "put"},
        ],
        ids=str,
    )
    def test_refuses_a_breach(self, change: dict[str, Any]) -> None:
        with pytest.raises(ContractError):
            contract().check(replace(GOOD, **change))

    def test_refuses_a_problem_without_what_its_status_promises(self) -> None:
        problem = {
            "type": "urn:problem-type:flagd:version-conflict",
            "title": "Someone else was first",
            "status": 412,
            "detail": "read it",
        }
        stale = Exchange(
            method="patch",
            path="/api/v1/flags/x/environments/production",
            query="",
            request_headers={"if-match": '"1"'},
            request_body=b"{}",
            status=412,
            headers={"content-type": "application/problem+json"},
            body=json.dumps(problem | {"current_version": 2}).encode(),
        )
        contract().check(stale)
        with pytest.raises(ContractError, match="current_version"):
            contract().check(replace(stale, body=json.dumps(problem).encode()))

    def test_misses_a_header_that_has_to_be_there(self) -> None:
        answer = replace(GOOD, method="delete", status=405, body=b"{}")
        with pytest.raises(ContractError, match="Allow"):
            contract().check(answer)
