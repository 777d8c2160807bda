"""What SDKs read and report."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from flask import Flask

from flagd_sdk.core.parsing import parse_flag_set
from flagd_server.domain.allowance import Rate
from flagd_server.domain.telemetry import MAX_CELLS, MAX_COUNT, MAX_LATENCY_BUCKET
from flagd_server.errors import StorageUnavailableError
from flagd_server.services import turns
from flagd_server.services.first_start import InitialTokens
from tests.contract.openapi_contract import contract
from tests.server.api.client import Api
from tests.server.api.conftest import CHECKOUT, PRODUCTION

SAME_ID = {"X-Request-Id": "the-same"}
FLAGS = "/sdk/v1/flags"
HASH = "9f86d081884c7d65"
TELEMETRY = "/sdk/v1/telemetry"


@pytest.fixture
def summary() -> dict[str, Any]:
    """The contract's example: 95 exposures of new-checkout, of which one failed."""
    operations = {operation.name: operation for operation in contract().operations}
    example: dict[str, Any] = deepcopy(operations["report_telemetry"].body_example)
    return example


class TestFlags:
    def test_are_what_the_sdk_can_read(self, sdk: Api, checkout: str) -> None:
        flags = parse_flag_set(sdk.get(FLAGS).json)
        assert flags.environment == "production"
        assert flags.faults == {}
        assert flags.resolve(checkout, {"targetingKey": "u-1"}).value in (True, False)

    def test_are_not_sent_to_who_has_them(self, sdk: Api, admin: Api, checkout: str) -> None:
        etag = sdk.get(FLAGS).headers["ETag"]
        same = sdk.get(FLAGS, headers={"If-None-Match": etag})
        assert (same.status_code, same.data) == (304, b"")
        assert same.headers["ETag"] == etag
        admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"})
        assert sdk.get(FLAGS, headers={"If-None-Match": etag}).status_code == 200

    def test_the_short_way_answers_as_the_view_does(self, sdk: Api, checkout: str) -> None:
        etag = sdk.get(FLAGS).headers["ETag"]
        short = sdk.get(FLAGS, headers={"If-None-Match": etag, **SAME_ID})
        view = sdk.get(FLAGS, headers={"If-None-Match": f"{etag}, {etag}", **SAME_ID})
        assert (short.status, short.data) == (view.status, view.data)
        assert sorted(short.headers.items()) == sorted(view.headers.items())
        route = 'flagd_http_requests_total{method="GET",route="/sdk/v1/flags",status="304"} 2.0'
        assert route in sdk.get("/metrics").text.splitlines()

    def test_the_short_way_sends_what_the_view_does(self, sdk: Api, checkout: str) -> None:
        short = sdk.get(FLAGS, headers=SAME_ID)
        view = sdk.get(FLAGS, headers={"If-None-Match": '"x", "y"', **SAME_ID})
        assert checkout in short.json["flags"]
        assert (short.status, short.data) == (view.status, view.data)
        assert sorted(short.headers.items()) == sorted(view.headers.items())

    def test_the_short_way_is_for_the_token_s_own_environment(
        self, sdk: Api, admin: Api, initial_tokens: InitialTokens
    ) -> None:
        held = {"If-None-Match": sdk.get(FLAGS).headers["ETag"]}
        assert sdk.by(initial_tokens.sdk["staging"]).get(FLAGS, headers=held).status_code == 200
        assert admin.get(FLAGS, headers=held).status_code == 403
        assert sdk.by("fr_sdk_production_x").get(FLAGS, headers=held).status_code == 401
        assert sdk.by(None).get(FLAGS, headers=held).status_code == 401
        assert sdk.get(f"{FLAGS}?x=1", headers=held).status_code == 422

    @pytest.mark.parametrize("form", ["W/{0}", '"x", {0}', "*", '{0} , W/"y"'])
    def test_are_compared_as_http_says(self, sdk: Api, form: str) -> None:
        etag = sdk.get(FLAGS).headers["ETag"]
        assert sdk.get(FLAGS, headers={"If-None-Match": form.format(etag)}).status_code == 304

    @pytest.mark.parametrize("held", ['"production-1"', "garbage", '"', ""])
    def test_are_sent_to_who_has_others(self, sdk: Api, held: str) -> None:
        assert sdk.get(FLAGS, headers={"If-None-Match": held}).status_code == 200

    def test_archived_ones_are_left_out(self, sdk: Api, admin: Api, checkout: str) -> None:
        admin.patch(CHECKOUT, {"archived": True})
        assert checkout not in sdk.get(FLAGS).json["flags"]

    def test_a_parameter_is_refused(self, sdk: Api) -> None:
        assert sdk.get(f"{FLAGS}?environment=staging").status_code == 422

    def test_a_stream_is_opened(self, sdk: Api) -> None:
        stream = sdk.get("/sdk/v1/stream", headers={"X-Flagd-Instance": "i-1"})
        assert stream.status_code == 200
        assert stream.mimetype == "text/event-stream"
        assert sdk.get("/sdk/v1/stream", headers={"X-Flagd-Instance": "i 1"}).status_code == 400


class TestTelemetry:
    def test_is_counted_once(self, sdk: Api, checkout: str, summary: dict[str, Any]) -> None:
        first = sdk.post(TELEMETRY, summary).json
        assert (first["accepted"], first["duplicate"], first["refused"]) == (1, False, [])
        again = sdk.post(TELEMETRY, summary).json
        assert (again["accepted"], again["duplicate"]) == (0, True)

    def test_the_short_way_in_answers_as_the_view_does(
        self, sdk: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        summary["cells"].append(summary["cells"][0] | {"split": "gone"})
        short = sdk.post(TELEMETRY, summary, headers=SAME_ID)
        summary["sequence"] += 1
        plain = "application/json; charset=utf-8"
        view = sdk.post(TELEMETRY, summary, content_type=plain, headers=SAME_ID)
        assert (short.status, short.data) == (view.status, view.data)
        assert sorted(short.headers.items()) == sorted(view.headers.items())
        route = f'flagd_http_requests_total{{method="POST",route="{TELEMETRY}",status="200"}} 2.0'
        assert route in sdk.get("/metrics").text.splitlines()

    def test_flask_is_asked_only_about_what_is_odd(
        self,
        app: Flask,
        sdk: Api,
        admin: Api,
        checkout: str,
        summary: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        asked: list[str] = []
        ask = app.full_dispatch_request
        monkeypatch.setattr(app, "full_dispatch_request", lambda: asked.append("") or ask())
        assert sdk.post(TELEMETRY, summary).status_code == 200
        assert asked == []
        odd = [
            sdk.post(f"{TELEMETRY}?x=1", summary),
            sdk.post(TELEMETRY, summary, content_type="text/plain"),
            sdk.post(TELEMETRY, summary, headers={"Content-Encoding": "gzip"}),
            sdk.post(TELEMETRY, raw=b"{"),
            sdk.post(TELEMETRY, summary | {"sequence": 0}),
            admin.post(TELEMETRY, summary),
            sdk.by(None).post(TELEMETRY, summary),
        ]
        assert [answer.status_code for answer in odd] == [422, 415, 415, 400, 422, 403, 401]
        assert len(asked) == len(odd)

    def test_what_can_not_be_stored_is_answered_and_may_come_again(
        self, app: Flask, sdk: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        ingestion = app.extensions["flagd_server"].ingestion
        with pytest.MonkeyPatch.context() as patch:

            def fail(*_: object) -> None:
                raise StorageUnavailableError("the disk is full")

            patch.setattr(ingestion, "_store_with_inbox", fail)
            refused = sdk.post(TELEMETRY, summary)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert sdk.post(TELEMETRY, summary).json["duplicate"] is False

    def test_an_unknown_cell_is_refused_by_itself(
        self, sdk: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        for change in ({"flag": "nothing"}, {"config_version": 99}, {"split": "gone"}):
            summary["cells"].append({**summary["cells"][0], **change})
        answer = sdk.post(TELEMETRY, summary).json
        assert answer["accepted"] == 1
        fields = [fault["field"].partition(".")[0] for fault in answer["refused"]]
        assert fields == ["cells[1]", "cells[2]", "cells[3]"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("errors", 96),
            ("errors", -1),
            ("exposures", MAX_COUNT + 1),
            ("exposures", True),
            ("exposures", 1.5),
            ("config_version", 0),
            ("split", ""),
            ("latency", {str(MAX_LATENCY_BUCKET + 1): 1}),
            ("latency", {"01": 1}),
            ("latency", {"-1": 1}),
            ("latency", {"3": -1}),
            ("units", {"error:Ké": []}),
            ("units", {"error:E": ["9F86D081884C7D65"]}),
            ("units", {"error:E": ["9f86"]}),
            ("units", {"error:E": "9f86d081884c7d65"}),
            ("units", {f"error:{n}": [] for n in range(65)}),
            ("units", {"error:E": [HASH, HASH]}),
            ("units", {"slow:p99": [HASH] * 96}),
            ("units", {"exposed": [HASH] * 96}),
            ("latency", {"3": 90, "4": 6}),
            ("surprise", 1),
        ],
    )
    def test_a_cell_that_can_not_be_is_named_and_the_others_are_counted(
        self,
        sdk: Api,
        admin: Api,
        checkout: str,
        summary: dict[str, Any],
        field: str,
        value: object,
    ) -> None:
        good = summary["cells"][0]
        summary["cells"] = [good, good | {field: value}, good | {"variant": "purple"}, good]
        answer = sdk.post(TELEMETRY, summary).json
        assert answer["accepted"] == 2
        named = [fault["field"] for fault in answer["refused"]]
        assert named[-1] == "cells[2].variant"
        assert all(name.startswith(f"cells[1].{field}") for name in named[:-1])
        outcomes = admin.get("/metrics").text.splitlines()
        for outcome in ("accepted", "refused"):
            line = f'{{environment="production",outcome="{outcome}"}} 2.0'
            assert f"flagd_telemetry_cells_total{line}" in outcomes

    def test_a_cell_claims_no_more_than_it_can(
        self, sdk: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        hashes = [f"{number:016x}" for number in range(95)]
        units = {"error:A": [HASH], "error:B": [HASH], "slow:p99": hashes, "exposed": hashes}
        summary["cells"][0] |= {"units": units, "latency": {"3": 95}}
        assert sdk.post(TELEMETRY, summary).json["refused"] == []

    def test_an_error_kind_that_can_not_be_is_named_and_the_others_are_kept(
        self, sdk: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        (kind,) = summary["error_kinds"]
        summary["error_kinds"] = [kind | {"count": -1}, kind, None]
        answer = sdk.post(TELEMETRY, summary).json
        assert answer["accepted"] == 1
        named = [fault["field"] for fault in answer["refused"]]
        assert named == ["error_kinds[0].count", "error_kinds[2]"]

    def test_every_bad_cell_is_named_however_many(
        self, sdk: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        bad = summary["cells"][0] | {"errors": -1, "exposures": -1}
        summary["cells"] = [bad] * 300
        answer = sdk.post(TELEMETRY, summary).json
        named = [fault["field"].partition(".")[0] for fault in answer["refused"]]
        assert list(dict.fromkeys(named)) == [f"cells[{number}]" for number in range(300)]
        assert len(named) < 400

    def test_a_broken_envelope_changes_nothing_however_good_its_cells(
        self, sdk: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        bad = summary["cells"][0] | {"errors": -1}
        broken = summary | {"cells": [bad, *summary["cells"]], "service": 1}
        refused = sdk.post(TELEMETRY, broken)
        assert refused.status_code == 422
        assert [fault["field"] for fault in refused.json["errors"]] == [
            "service",
            "cells[0].errors",
        ]
        assert sdk.post(TELEMETRY, summary).json["duplicate"] is False, "it was not counted"

    def test_the_answer_says_what_to_measure(
        self, sdk: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        answer = sdk.post(TELEMETRY, summary).json
        assert (answer["slow_over_s"], answer["exposed_below"]) == ({}, "4000000000000000")

    @pytest.mark.parametrize(
        "said_at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00+14:00"]
    )
    def test_times_are_labels(
        self, sdk: Api, admin: Api, checkout: str, summary: dict[str, Any], said_at: str
    ) -> None:
        summary |= {"started_at": said_at, "ended_at": said_at}
        assert sdk.post(TELEMETRY, summary).json["accepted"] == 1
        arm = admin.get(f"{PRODUCTION}/evidence").json["running"]["comparisons"][0]["treatment"]
        assert (arm["exposures"], arm["failing_units"]) == (95, 1)

    def test_what_a_client_token_reports_never_reaches_the_guard(
        self, sdk: Api, admin: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        body = {"scope": "sdk", "kind": "client", "name": "page", "environment": "production"}
        page = sdk.by(admin.post("/api/v1/tokens", body).json["text"])
        on = summary["cells"][0]
        hashes = [f"{number:016x}" for number in range(1, 41)]
        on |= {"exposures": 250, "errors": 40, "units": {"error:KeyError": hashes}}
        off = {**on, "variant": "off", "exposures": 750, "errors": 0, "units": {}}
        summary["cells"] = [on, off]
        assert page.post(TELEMETRY, summary).json["accepted"] == 2
        assert admin.get(PRODUCTION).json["kill"] is None
        assert admin.get(f"{PRODUCTION}/evidence").json["running"] is None
        summary["instance"] = "i-server"
        assert sdk.post(TELEMETRY, summary).json["accepted"] == 2
        assert admin.get(PRODUCTION).json["kill"] is not None, "a server token's report kills"

    @pytest.mark.parametrize(
        "content_type", ["application/json", "application/json; charset=utf-8"]
    )
    def test_a_flood_is_told_to_wait_and_told_of(
        self,
        sdk: Api,
        admin: Api,
        checkout: str,
        summary: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        content_type: str,
    ) -> None:
        monkeypatch.setattr(turns, "SUMMARIES_OF_INSTANCE", Rate(1e-6, 1.0))
        summary["local_kills"] = []
        assert sdk.post(TELEMETRY, summary, content_type=content_type).status_code == 200
        again = sdk.post(TELEMETRY, summary | {"sequence": 2}, content_type=content_type)
        assert again.status_code == 429
        assert 1 <= int(again.headers["Retry-After"]) <= 300
        other = summary | {"instance": "i-2"}
        assert sdk.post(TELEMETRY, other, content_type=content_type).status_code == 200
        (alarm,) = admin.get("/api/v1/environments/production/alarms").json["items"]
        assert (alarm["kind"], alarm["flag"], alarm["count"]) == ("telemetry_capped", None, 1)
        audit = admin.get("/api/v1/audit?environment=production").json["items"]
        assert audit[0]["target"] == "alarms/telemetry_capped"
        metrics = admin.get("/metrics").text.splitlines()
        capped = 'flagd_telemetry_capped_total{environment="production",limit='
        assert f'{capped}"summaries of an instance"}} 1.0' in metrics
        assert 'flagd_alarms_total{environment="production",kind="telemetry_capped"} 1.0' in metrics
        turned_away = f'flagd_http_requests_total{{method="POST",route="{TELEMETRY}",status="429"}}'
        assert f"{turned_away} 1.0" in metrics

    def test_too_many_cells_are_refused(self, sdk: Api, summary: dict[str, Any]) -> None:
        summary["cells"] *= MAX_CELLS + 1
        refused = sdk.post(TELEMETRY, summary)
        assert [fault["field"] for fault in refused.json["errors"]] == ["cells"]

    def test_a_large_summary_is_taken(
        self, sdk: Api, checkout: str, summary: dict[str, Any]
    ) -> None:
        hashes = [f"{number:016x}" for number in range(10_000)]
        units = {f"error:E{kind}": hashes for kind in range(4)}
        summary["cells"][0] |= {"units": units, "exposures": 50_000, "errors": 40_000}
        assert 700_000 < len(json.dumps(summary)) < 1 << 20
        assert sdk.post(TELEMETRY, summary).json["accepted"] == 1


class TestAlarms:
    def test_there_are_none_and_those_of_no_environment_are_not_found(
        self, admin: Api, with_scope: Callable[[str], Api]
    ) -> None:
        path = "/api/v1/environments/production/alarms"
        assert with_scope("read").get(path).json == {"items": []}
        assert with_scope("kill").get(path).status_code == 403
        assert admin.get(path.replace("production", "nowhere")).status_code == 404
