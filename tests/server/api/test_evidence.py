"""What the guard shows of its evidence: as JSON, and as a page for people."""

import json
from contextlib import closing
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from flagd_server.domain.guard.aftermath import Requests, look_back
from flagd_server.storage import open_storage
from flagd_server.storage.records import EvidenceNote
from tests.contract.openapi_contract import contract
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION

TELEMETRY = "/sdk/v1/telemetry"


@pytest.fixture
def summary() -> dict[str, Any]:
    """The contract's example: 95 exposures of new-checkout, of which one failed."""
    operations = {operation.name: operation for operation in contract().operations}
    example: dict[str, Any] = deepcopy(operations["report_telemetry"].body_example)
    return example


def harmful(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with forty units that failed with the feature, and none without."""
    on = summary["cells"][0]
    hashes = [f"{number:016x}" for number in range(1, 41)]
    on |= {"exposures": 250, "errors": 40, "latency": {}, "units": {"error:KeyError": hashes}}
    off = {**on, "variant": "off", "exposures": 750, "errors": 0, "units": {}}
    return {**summary, "cells": [on, off]}


def test_shows_the_life_that_runs(
    sdk: Api, admin: Api, checkout: str, summary: dict[str, Any]
) -> None:
    sdk.post(TELEMETRY, summary)
    evidence = admin.get(f"{PRODUCTION}/evidence").json
    assert evidence["reports"] == []
    assert evidence["running"]["configuration_version"] == 2
    assert evidence["running"]["comparisons"][0]["treatment"]["exposures"] == 95


def test_a_kill_by_the_guard_is_explained(
    sdk: Api, admin: Api, checkout: str, summary: dict[str, Any]
) -> None:
    assert sdk.post(TELEMETRY, harmful(summary)).json["accepted"] == 2
    kill = admin.get(PRODUCTION).json["kill"]
    assert kill["source"] == "guard"
    listed = admin.get(f"{PRODUCTION}/evidence").json
    assert listed["running"] is None
    assert [report["id"] for report in listed["reports"]] == [kill["evidence"]]
    assert listed["reports"][0]["decision"]["kill"] is True
    report = admin.get(f"{PRODUCTION}/evidence/{kill['evidence']}").json
    assert report["kill"] == kill
    assert report["comparisons"][0]["treatment"]["failing_units"] == 40
    counted = 'flagd_guard_decisions_total{environment="production",mode="enforce"} 1.0'
    assert counted in admin.get("/metrics").text.splitlines()


def test_a_report_is_a_page_for_people_as_well(
    sdk: Api, admin: Api, checkout: str, summary: dict[str, Any]
) -> None:
    path = f"{PRODUCTION}/evidence"
    page = admin.get(f"{path}?format=text")
    assert page.mimetype == "text/plain"
    assert page.text.startswith("new-checkout in production: not watched now")
    sdk.post(TELEMETRY, harmful(summary))
    killed = admin.post(f"{PRODUCTION}/kill", {"reason": "me too"}).json
    report = killed["report"]
    assert report == f"{path}/{killed['kill']['evidence']}"
    by_query = admin.get(f"{report}?format=text")
    by_header = admin.get(report, headers={"Accept": "text/plain"})
    assert by_query.data == by_header.data
    assert by_query.text.startswith("new-checkout in production: switched off by the guard")
    assert "All 40 visitors who ran into KeyError had “on”" in by_query.text
    now = admin.get(path, headers={"Accept": "text/plain"}).text
    assert now.startswith("new-checkout in production: not watched now")
    assert killed["kill"]["evidence"] in now
    as_json = admin.get(f"{report}?format=json", headers={"Accept": "text/plain"})
    assert as_json.json["kill"] == killed["kill"]


def test_an_unknown_format_is_refused(admin: Api, checkout: str) -> None:
    for path in (f"{PRODUCTION}/evidence", f"{PRODUCTION}/evidence/ev-0"):
        refused = admin.get(f"{path}?format=pdf")
        assert refused.status_code == 422
        assert [fault["field"] for fault in refused.json["errors"]] == ["query.format"]


def test_what_became_known_later_stands_beside_the_report(
    sdk: Api, admin: Api, checkout: str, summary: dict[str, Any], database: str
) -> None:
    sdk.post(TELEMETRY, harmful(summary))
    kill = admin.get(PRODUCTION).json["kill"]
    path = f"{PRODUCTION}/evidence/{kill['evidence']}"
    report = admin.get(path).json
    assert report["notes"] == []
    fell = look_back(Requests(1_000, 40), Requests(1_000), Requests(750)).to_document()
    now = datetime.now(UTC)
    note = EvidenceNote(kill["evidence"], "aftermath", 120, now, json.dumps(fell))
    with closing(open_storage(database)) as storage, storage.transaction() as tx:
        tx.insert_evidence_note(note)
    later = admin.get(path).json
    assert [(note["kind"], note["document"]) for note in later.pop("notes")] == [
        ("aftermath", fell)
    ]
    assert later == {name: value for name, value in report.items() if name != "notes"}
    assert (
        "Yes. In the 2 minutes after the kill 0% of the flag's"
        in admin.get(f"{path}?format=text").text
    )


def test_a_report_belongs_to_its_flag(admin: Api, checkout: str) -> None:
    assert admin.get(f"{PRODUCTION}/evidence/ev-0").status_code == 404
