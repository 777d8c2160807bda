"""Environments, flags, segments, objectives, tokens and the audit, each through its whole life."""

from collections.abc import Callable

import pytest

from tests.server.api.client import Api
from tests.server.api.conftest import CHECKOUT, PRODUCTION

BETA = "/api/v1/environments/production/segments/beta"
SHOP_SLO = "/api/v1/environments/production/slos/shop"
IS_BETA = {"attribute": "plan", "op": "in", "values": ["beta"]}


class TestEnvironments:
    def test_the_first_start_made_three(self, admin: Api) -> None:
        items = admin.get("/api/v1/environments").json["items"]
        assert [item["key"] for item in items] == ["development", "production", "staging"]

    def test_a_new_one_has_every_flag_switched_off(self, admin: Api, checkout: str) -> None:
        created = admin.post("/api/v1/environments", {"key": "preview", "name": "Preview"})
        assert created.status_code == 201
        assert created.json["name"] == "Preview"
        configuration = admin.get(f"{CHECKOUT}/environments/preview").json
        assert configuration["enabled"] is False
        assert configuration["default_serve"] == {"variant": "off"}

    def test_its_name_is_its_key_unless_given(self, admin: Api) -> None:
        assert admin.post("/api/v1/environments", {"key": "preview"}).json["name"] == "preview"

    def test_a_key_is_given_once(self, admin: Api) -> None:
        assert admin.post("/api/v1/environments", {"key": "staging"}).status_code == 409

    def test_renaming_keeps_the_key(self, admin: Api) -> None:
        renamed = admin.patch("/api/v1/environments/staging", {"name": "Shop staging"})
        assert renamed.json["key"] == "staging"
        assert admin.get("/api/v1/environments/staging").json["name"] == "Shop staging"

    def test_one_with_a_living_token_stays(self, admin: Api) -> None:
        assert admin.delete("/api/v1/environments/staging").status_code == 409
        for token in admin.get("/api/v1/tokens").json["items"]:
            if token["environment"] == "staging":
                assert admin.delete(f"/api/v1/tokens/{token['id']}").status_code == 204
        assert admin.delete("/api/v1/environments/staging").status_code == 204
        assert admin.get("/api/v1/environments/staging").status_code == 404


class TestFlags:
    def test_a_new_flag_is_off_everywhere(self, admin: Api) -> None:
        body = {"key": "theme", "type": "string", "variants": {"dark": "#000", "light": "#fff"}}
        created = admin.post("/api/v1/flags", body)
        assert created.status_code == 201
        configurations = created.json["configurations"]
        assert set(configurations) == {"production", "staging", "development"}
        for configuration in configurations.values():
            assert configuration["enabled"] is False
            assert configuration["off_variant"] == "light"

    def test_everything_that_was_given_is_read_back(self, admin: Api) -> None:
        body = {
            "key": "theme",
            "type": "object",
            "variants": {"z": {"colour": "#000", "n": [1, 2.5, None]}, "a": {}},
            "off_variant": "z",
            "description": "Ünïcode\nand lines",
            "owner": "design",
            "tags": ["ui", "q4"],
            "lifetime": "temporary",
            "expires_at": "2027-01-31T12:00:00+01:00",
        }
        admin.post("/api/v1/flags", body)
        read = admin.get("/api/v1/flags/theme").json
        assert read["expires_at"] == "2027-01-31T11:00:00.000Z"
        for field in ("variants", "description", "owner", "tags", "lifetime"):
            assert read[field] == body[field]
        assert list(read["variants"]) == ["z", "a"], "the author's order is kept"
        assert read["configurations"]["staging"]["off_variant"] == "z"

    def test_are_listed_by_tag_and_by_archived(self, admin: Api, checkout: str) -> None:
        variants = {"on": True, "off": False}
        tagged = {"key": "old", "type": "boolean", "variants": variants, "tags": ["x"]}
        admin.post("/api/v1/flags", tagged)
        admin.patch("/api/v1/flags/old", {"archived": True})

        def keys(query: str) -> list[str]:
            return [item["key"] for item in admin.get(f"/api/v1/flags{query}").json["items"]]

        assert keys("") == ["new-checkout", "old"]
        assert keys("?archived=true") == ["old"]
        assert keys("?archived=false") == ["new-checkout"]
        assert keys("?tag=x&archived=true") == ["old"]
        assert keys("?tag=y") == []

    def test_an_expiry_is_taken_away_by_null(self, admin: Api, checkout: str) -> None:
        admin.patch(CHECKOUT, {"lifetime": "temporary", "expires_at": "2027-01-31T00:00:00Z"})
        assert admin.patch(CHECKOUT, {"expires_at": None}).json["expires_at"] is None

    def test_a_stale_version_is_refused_where_one_is_sent(self, admin: Api, checkout: str) -> None:
        seen = admin.get(CHECKOUT)
        admin.patch(CHECKOUT, {"owner": "shop"}, if_match=seen.headers["ETag"])
        stale = admin.patch(CHECKOUT, {"owner": "search"}, if_match=seen.headers["ETag"])
        assert stale.status_code == 412
        assert stale.json["current_version"] == seen.json["version"] + 1
        assert admin.get(CHECKOUT).json["owner"] == "shop"

    def test_a_new_variant_makes_a_version_everywhere(self, admin: Api, checkout: str) -> None:
        before = admin.get(CHECKOUT).json["configurations"]
        variants = {"on": True, "off": False, "late": True}
        after = admin.patch(CHECKOUT, {"variants": variants}).json["configurations"]
        for environment, configuration in after.items():
            assert configuration["version"] == before[environment]["version"] + 1
            assert configuration["variants"] == variants

    def test_the_second_of_one_key_is_refused(self, admin: Api, checkout: str) -> None:
        body = {"key": checkout, "type": "boolean", "variants": {"on": True, "off": False}}
        assert admin.post("/api/v1/flags", body).status_code == 409


class TestSegments:
    def test_is_created_replaced_and_deleted(self, admin: Api) -> None:
        created = admin.put(BETA, {"condition": IS_BETA, "description": "early birds"})
        assert created.status_code == 201
        replaced = admin.put(BETA, {"condition": {"not": IS_BETA}})
        assert (replaced.status_code, replaced.json["version"]) == (200, 2)
        assert admin.get(BETA).json["condition"] == {"not": IS_BETA}
        listed = admin.get("/api/v1/environments/production/segments").json["items"]
        assert [item["key"] for item in listed] == ["beta"]
        assert admin.delete(BETA).status_code == 204
        assert admin.get(BETA).status_code == 404

    def test_one_in_use_stays(self, admin: Api, checkout: str) -> None:
        admin.put(BETA, {"condition": IS_BETA})
        rule = {"id": "beta", "condition": {"segment": "beta"}, "serve": {"variant": "on"}}
        admin.patch(PRODUCTION, {"rules": [rule]}, if_match=2)
        refused = admin.delete(BETA)
        assert refused.status_code == 409
        assert checkout in refused.json["detail"]

    def test_a_key_that_can_be_none_is_refused(self, admin: Api) -> None:
        answer = admin.put(BETA + "%20x", {"condition": IS_BETA})
        assert answer.status_code == 422
        assert [fault["field"] for fault in answer.json["errors"]] == ["path.segment"]


class TestSlos:
    def test_is_created_replaced_and_deleted(self, admin: Api) -> None:
        created = admin.put(SHOP_SLO, {"availability": 0.99})
        assert created.status_code == 201
        replaced = admin.put(SHOP_SLO, {"availability": 0.999})
        assert (replaced.status_code, replaced.json["version"]) == (200, 2)
        assert admin.get(SHOP_SLO).json == replaced.json
        assert replaced.json["availability"] == 0.999
        listed = admin.get("/api/v1/environments/production/slos").json["items"]
        assert listed == [replaced.json]
        assert admin.get("/api/v1/environments/staging/slos").json["items"] == []
        assert admin.delete(SHOP_SLO).status_code == 204
        assert admin.get(SHOP_SLO).status_code == 404
        assert admin.delete(SHOP_SLO).status_code == 404

    def test_a_service_has_the_name_it_reports(self, admin: Api) -> None:
        created = admin.put(f"{SHOP_SLO}%20%28Z%C3%BCrich%29", {"availability": 0.99})
        assert created.json["service"] == "shop (Zürich)"

    @pytest.mark.parametrize("availability", [0.4999, 1, 1.0, -0.9, "0.99", None])
    def test_an_objective_that_can_be_none_is_refused(
        self, admin: Api, availability: object
    ) -> None:
        answer = admin.put(SHOP_SLO, {"availability": availability})
        assert answer.status_code == 422
        assert [fault["field"] for fault in answer.json["errors"]] == ["availability"]
        assert admin.get(SHOP_SLO).status_code == 404

    def test_a_name_that_can_be_none_is_refused(self, admin: Api) -> None:
        answer = admin.put(SHOP_SLO + "%0A", {"availability": 0.99})
        assert answer.status_code == 422
        assert [fault["field"] for fault in answer.json["errors"]] == ["path.service"]

    def test_an_environment_that_is_not_there_has_none(self, admin: Api) -> None:
        nowhere = SHOP_SLO.replace("production", "nowhere")
        assert admin.put(nowhere, {"availability": 0.99}).status_code == 404
        assert admin.get(nowhere).status_code == 404
        assert admin.get("/api/v1/environments/nowhere/slos").status_code == 404


class TestTokens:
    def test_the_text_is_shown_once_and_works(self, admin: Api) -> None:
        created = admin.post("/api/v1/tokens", {"scope": "read", "name": "dashboard"})
        assert created.status_code == 201
        text = created.json["text"]
        assert text.startswith("fr_read_")
        assert text not in admin.get("/api/v1/tokens").text
        assert admin.by(text).get("/api/v1/flags").status_code == 200

    def test_a_revoked_one_opens_nothing_from_then_on(self, admin: Api) -> None:
        created = admin.post("/api/v1/tokens", {"scope": "read", "name": "dashboard"}).json
        reader = admin.by(created["text"])
        assert reader.get("/api/v1/flags").status_code == 200
        assert admin.delete(f"/api/v1/tokens/{created['id']}").status_code == 204
        assert reader.get("/api/v1/flags").status_code == 401
        assert admin.delete(f"/api/v1/tokens/{created['id']}").status_code == 204
        listed = {token["id"]: token for token in admin.get("/api/v1/tokens").json["items"]}
        assert listed[created["id"]]["revoked_at"] is not None

    @pytest.mark.parametrize(
        "body",
        [
            {"scope": "sdk", "name": "shop"},
            {"scope": "sdk", "name": "shop", "environment": "nowhere"},
            {"scope": "admin", "name": "me", "environment": "production"},
        ],
    )
    def test_the_environment_has_to_fit_the_scope(self, admin: Api, body: dict[str, str]) -> None:
        refused = admin.post("/api/v1/tokens", body)
        assert refused.status_code == 422
        assert [fault["field"] for fault in refused.json["errors"]] == ["environment"]

    def test_an_unknown_one_is_not_found(self, admin: Api) -> None:
        assert admin.delete("/api/v1/tokens/tok-0").status_code == 404


class TestAudit:
    def test_tells_who_did_what_newest_first(
        self, admin: Api, checkout: str, with_scope: Callable[[str], Api]
    ) -> None:
        with_scope("kill").post(f"{PRODUCTION}/kill", {"reason": "smoke"})
        newest = admin.get(f"/api/v1/audit?flag={checkout}&environment=production&limit=1").json
        entry = newest["items"][0]
        assert entry["actor"] == "test kill"
        assert "kill" in entry["action"]
        assert entry["flag"] == checkout

    def test_is_read_page_by_page(self, admin: Api, checkout: str) -> None:
        whole = [entry["id"] for entry in admin.get("/api/v1/audit?limit=200").json["items"]]
        pages, query = [], "?limit=2"
        while query:
            page = admin.get(f"/api/v1/audit{query}").json
            pages += [entry["id"] for entry in page["items"]]
            query = page["next"] and f"?limit=2&before={page['next']}"
        assert pages == whole == sorted(whole, reverse=True)
        assert len(whole) > 4
