"""OFREP: what is evaluated, how it is said, and for whom."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flagd_sdk.core.parsing import parse_flag_set
from flagd_server.domain.allowance import Rate
from flagd_server.services import evaluation
from flagd_server.services.first_start import InitialTokens
from tests.contract.openapi_contract import contract
from tests.server.api.client import Api
from tests.server.api.conftest import CHECKOUT, PRODUCTION
from tests.server.api.ofrep import BULK, FLAGS, create_flags, evaluate, serve

HALF = {"split": {"weights": {"on": 50_000, "off": 50_000}}}
ON_OFF = {"on": True, "off": False}


@pytest.fixture
def web(with_scope: Callable[[str], Api]) -> Api:
    """A client with a token of scope `ofrep`."""
    return with_scope("ofrep")


def flag_of(answer: Any, key: str) -> dict[str, Any]:
    (flag,) = (flag for flag in answer.json["flags"] if flag["key"] == key)
    return dict(flag)


class TestOneFlag:
    @pytest.mark.parametrize("kind", FLAGS)
    def test_has_its_value_and_where_that_comes_from(self, admin: Api, web: Api, kind: str) -> None:
        create_flags(admin)
        variant, value = next(iter(FLAGS[kind].items()))
        assert evaluate(web, kind).json == {
            "key": kind,
            "reason": "STATIC",
            "variant": variant,
            "value": value,
            "metadata": {"version": 2},
        }

    def test_of_type_float_is_a_float_on_the_wire(self, admin: Api, web: Api) -> None:
        create_flags(admin)
        assert b'"value":1.0,' in evaluate(web, "float").data
        assert b'"value":42,' in evaluate(web, "integer").data
        assert b'"a":[1,2.0,null]' in evaluate(web, "object").data
        assert "blå".encode() in evaluate(web, "string").data

    def test_may_be_a_list(self, admin: Api, web: Api) -> None:
        serve(admin, "sizes", "object", {"all": [1, 2], "none": []}, {"variant": "all"})
        assert evaluate(web, "sizes").json["value"] == [1, 2]

    def test_is_what_an_sdk_would_serve(self, admin: Api, web: Api, sdk: Api) -> None:
        beta = {
            "id": "beta",
            "condition": {"attribute": "plan", "op": "in", "values": ["beta"]},
            "serve": {"variant": "on"},
        }
        serve(admin, "checkout", "boolean", ON_OFF, HALF, rules=[beta])
        flag_set = parse_flag_set(sdk.get("/sdk/v1/flags").json)
        seen = set()
        for number in range(40):
            context = {"targetingKey": f"user-{number}", "plan": "beta" if number % 4 == 0 else ""}
            answer = evaluate(web, "checkout", context).json
            resolution = flag_set.resolve("checkout", context)
            assert (answer["variant"], answer["reason"]) == (resolution.variant, resolution.reason)
            assert answer["metadata"].get("split") == resolution.split
            seen.add((answer["variant"], answer["reason"]))
        assert seen == {("on", "TARGETING_MATCH"), ("on", "SPLIT"), ("off", "SPLIT")}

    def test_that_is_killed_or_off_is_disabled(self, admin: Api, web: Api, checkout: str) -> None:
        admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"})
        killed = evaluate(web, checkout).json
        assert (killed["value"], killed["variant"], killed["reason"]) == (False, "off", "DISABLED")

    def test_that_does_not_exist_or_is_archived_is_not_found(
        self, admin: Api, web: Api, checkout: str
    ) -> None:
        for key in ("nothing", "no%2Fsuch", "%22", "no%0Asuch", "x" * 500):
            answer = evaluate(web, key)
            assert answer.status_code == 404
            assert answer.json["errorCode"] == "FLAG_NOT_FOUND"
            assert answer.json["errorDetails"].startswith("there is no flag ")
        assert evaluate(web, checkout).status_code == 200
        admin.patch(CHECKOUT, {"archived": True}, if_match=1)
        assert evaluate(web, checkout).json == {
            "key": checkout,
            "errorCode": "FLAG_NOT_FOUND",
            "errorDetails": f"there is no flag '{checkout}'",
        }

    def test_names_what_a_split_misses_to_place_a_user(self, admin: Api, web: Api) -> None:
        by_company = {"split": {"weights": {"on": 50_000, "off": 50_000}, "bucket_by": "company"}}
        serve(admin, "checkout", "boolean", ON_OFF, HALF)
        serve(admin, "tariff", "boolean", ON_OFF, by_company)
        for context in ({}, {"targetingKey": ""}):
            answer = evaluate(web, "checkout", context)
            assert answer.status_code == 400
            assert answer.json["errorCode"] == "TARGETING_KEY_MISSING"
            assert "'targetingKey'" in answer.json["errorDetails"]
        missing = evaluate(web, "tariff").json
        assert missing["errorCode"] == "TARGETING_KEY_MISSING"
        assert "'company'" in missing["errorDetails"]
        assert evaluate(web, "tariff", {"company": "acme"}).json["reason"] == "SPLIT"

    def test_needs_no_targeting_key_where_nobody_is_placed(self, admin: Api, web: Api) -> None:
        create_flags(admin)
        for body in (b"{}", b'{"context": {}}'):
            assert evaluate(web, "boolean", raw=body).json["value"] is True

    def test_that_cannot_be_understood_is_a_parse_error(
        self, app: Flask, admin: Api, web: Api, checkout: str
    ) -> None:
        # No such flag gets past the admin API; a newer server may have written one.
        broken = json.dumps({"key": checkout, "version": 9, "type": "colour"}).encode()
        snapshots = app.extensions["flagd_server"].snapshots
        snapshots.current("production")
        snapshots.apply_flag("production", 1 << 42, checkout, broken)
        answer = evaluate(web, checkout)
        assert (answer.status_code, answer.json["errorCode"]) == (400, "PARSE_ERROR")
        assert flag_of(evaluate(web), checkout)["errorCode"] == "PARSE_ERROR"

    def test_is_no_exposure(self, admin: Api, web: Api, sdk: Api, checkout: str) -> None:
        for number in range(20):
            evaluate(web, checkout, {"targetingKey": f"user-{number}"})
        assert admin.get(f"{PRODUCTION}/evidence").json["running"] is None
        # As opposed to what an SDK reports.
        (reporting,) = (each for each in contract().operations if each.name == "report_telemetry")
        assert sdk.post("/sdk/v1/telemetry", reporting.body_example).status_code == 200
        assert admin.get(f"{PRODUCTION}/evidence").json["running"] is not None


class TestAllFlags:
    def test_come_each_as_it_would_alone(self, admin: Api, web: Api) -> None:
        create_flags(admin)
        serve(admin, "checkout", "boolean", ON_OFF, HALF)
        answer = evaluate(web, context={})
        together = {flag["key"]: flag for flag in answer.json["flags"]}
        alone = {key: evaluate(web, key, {}).json for key in (*FLAGS, "checkout")}
        assert together == alone
        assert flag_of(answer, "checkout")["errorCode"] == "TARGETING_KEY_MISSING"
        assert answer.json["metadata"] == {"flagSetId": "production"}
        assert b'"value":1.0,' in answer.data

    def test_are_of_the_token_s_environment(
        self, admin: Api, web: Api, initial_tokens: InitialTokens, checkout: str
    ) -> None:
        staging = admin.by(initial_tokens.sdk["staging"])
        assert flag_of(evaluate(web), checkout)["reason"] == "SPLIT"
        assert flag_of(evaluate(staging), checkout)["reason"] == "DISABLED"

    def test_are_not_sent_to_who_has_them(self, admin: Api, web: Api, checkout: str) -> None:
        first = evaluate(web)
        etag = first.headers["ETag"]
        assert first.headers["Cache-Control"] == "private, no-cache"
        for held in (etag, f"W/{etag}", f'"other", {etag}'):
            same = evaluate(web, headers={"If-None-Match": held})
            assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)
        admin.post(f"{PRODUCTION}/kill", {"reason": "smoke"})
        changed = evaluate(web, headers={"If-None-Match": etag})
        assert changed.status_code == 200
        assert changed.headers["ETag"] != etag
        assert flag_of(changed, checkout)["reason"] == "DISABLED"

    def test_are_not_mistaken_for_those_of_another_context(
        self, admin: Api, web: Api, checkout: str
    ) -> None:
        by_variant: dict[str, str] = {}
        for number in range(30):
            answer = evaluate(web, context={"targetingKey": f"user-{number}"})
            variant = flag_of(answer, checkout)["variant"]
            # The tag is of what was served: the same for users who get the same.
            assert by_variant.setdefault(variant, answer.headers["ETag"]) == answer.headers["ETag"]
        assert len(by_variant) == 2
        assert by_variant["on"] != by_variant["off"]
        held = {"If-None-Match": by_variant["on"]}
        statuses = {
            evaluate(web, context={"targetingKey": f"user-{n}"}, headers=held).status_code
            for n in range(30)
        }
        assert statuses == {200, 304}

    def test_may_be_asked_for_because_of_an_event(self, web: Api, checkout: str) -> None:
        query = "?flagConfigEtag=%22production-1%22&flagConfigLastModified=1771622898"
        assert web.post(BULK + query, {"context": {}}).status_code == 200

    @pytest.mark.parametrize("number_of_flags", [1, 40])
    def test_are_up_to_date_after_every_kind_of_change(
        self, admin: Api, web: Api, number_of_flags: int
    ) -> None:
        def values() -> dict[str, Any]:
            return {flag["key"]: flag.get("value") for flag in evaluate(web).json["flags"]}

        for number in range(number_of_flags):
            serve(admin, f"f{number}", "boolean", ON_OFF, {"variant": "on"})
        assert values() == {f"f{number}": True for number in range(number_of_flags)}
        serve(admin, "late", "boolean", ON_OFF, {"variant": "off"})
        assert values()["late"] is False
        admin.patch("/api/v1/flags/f0", {"archived": True}, if_match=1)
        assert "f0" not in values()
        segment = "/api/v1/environments/production/segments/beta"
        admin.put(segment, {"condition": {"attribute": "plan", "op": "in", "values": ["beta"]}})
        rule = {"id": "r", "condition": {"segment": "beta"}, "serve": {"variant": "on"}}
        admin.patch("/api/v1/flags/late/environments/production", {"rules": [rule]}, if_match=2)
        beta = {"targetingKey": "u", "plan": "beta"}
        assert evaluate(web, "late", beta).json["value"] is True
        everyone = {"attribute": "plan", "op": "exists", "values": [True]}
        changed = admin.put(segment, {"condition": everyone}, if_match=1)
        assert changed.status_code in (200, 201), changed.json
        assert evaluate(web, "late", {"plan": "free"}).json["value"] is True


class TestAccess:
    @pytest.mark.parametrize("scope", ["sdk", "ofrep"])
    def test_is_by_either_header_with_an_application_s_token(
        self, admin: Api, with_scope: Callable[[str], Api], checkout: str, scope: str
    ) -> None:
        body = {"scope": scope, "name": "page", "environment": "production", "kind": "client"}
        text = admin.post("/api/v1/tokens", body).json["text"]
        nobody = admin.by(None)
        for headers in ({"Authorization": f"Bearer {text}"}, {"X-API-Key": text}):
            assert evaluate(nobody, checkout, headers=headers).status_code == 200
            assert evaluate(nobody, headers=headers).status_code == 200

    @pytest.mark.parametrize(
        "headers", [{}, {"X-API-Key": ""}, {"X-API-Key": "x" * 600}, {"X-API-Key": "fr_ofrep_x"}]
    )
    def test_is_refused_without_a_known_token(self, admin: Api, headers: dict[str, str]) -> None:
        answer = evaluate(admin.by(None), headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")

    def test_the_authorization_header_goes_first(self, web: Api, admin: Api) -> None:
        answer = evaluate(admin, headers={"X-API-Key": web.token or ""})
        assert answer.status_code == 403

    def test_an_ofrep_token_opens_nothing_else(self, web: Api) -> None:
        for path in ("/sdk/v1/flags", "/sdk/v1/stream", "/api/v1/flags"):
            assert web.get(path).status_code == 403
        assert web.post("/sdk/v1/telemetry", {}).status_code == 403
        assert web.get("/sdk/v1/flags", headers={"If-None-Match": '"x"'}).status_code == 403

    def test_ends_with_the_token(self, admin: Api, web: Api, checkout: str) -> None:
        (token,) = (t for t in admin.get("/api/v1/tokens").json["items"] if t["scope"] == "ofrep")
        assert token["prefix"] == "fr_ofrep_production"
        assert evaluate(web).status_code == 200
        admin.delete(f"/api/v1/tokens/{token['id']}")
        assert evaluate(web).status_code == 401

    def test_is_rationed_token_by_token(
        self,
        monkeypatch: pytest.MonkeyPatch,
        web: Api,
        sdk: Api,
        checkout: str,
    ) -> None:
        monkeypatch.setattr(evaluation, "EVALUATIONS_OF_TOKEN", Rate(0.001, 3))
        statuses = [evaluate(web, key).status_code for key in (checkout, None, "nothing", None)]
        assert statuses == [200, 200, 404, 429]
        assert 1 <= int(evaluate(web, checkout).headers["Retry-After"]) <= 5
        assert evaluate(sdk).status_code == 200

    def test_is_counted_by_route(self, web: Api, checkout: str) -> None:
        evaluate(web, checkout)
        evaluate(web, "nothing")
        evaluate(web)
        lines = web.get("/metrics").text.splitlines()
        single = 'method="POST",route="/ofrep/v1/evaluate/flags/<text:key>"'
        for labels in (
            f'{single},status="200"',
            f'{single},status="404"',
            'method="POST",route="/ofrep/v1/evaluate/flags",status="200"',
        ):
            assert f"flagd_http_requests_total{{{labels}}} 1.0" in lines
