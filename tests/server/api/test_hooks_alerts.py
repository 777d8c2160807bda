"""Alertmanager, with messages as it sends them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flagd_server.storage.release_records import Deployment, FirstServed
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION

ALERTS = "/hooks/alertmanager/production"


def alert(
    name: str = "CheckoutFails",
    status: str = "firing",
    at: datetime | None = None,
    **labels: str,
) -> dict[str, Any]:
    starts_at = at or datetime.now(UTC)
    return {
        "status": status,
        "labels": {"alertname": name, "severity": "page", **labels},
        "annotations": {"summary": "orders fail"},
        "startsAt": starts_at.isoformat(timespec="microseconds").replace("+00:00", "123Z"),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph?g0.expr=up&g0.tab=1",
        "fingerprint": "c6c4b4d7e1b0c1e6",
    }


class Alertmanager:
    """Posts what `notify/webhook/webhook.go` of Alertmanager 0.27 does."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def notify(self, *alerts: dict[str, Any], path: str = ALERTS, cut: int = 0) -> TestResponse:
        message = {
            "receiver": "flagd",
            "status": "firing" if any(a["status"] == "firing" for a in alerts) else "resolved",
            "alerts": alerts,
            "groupLabels": {"alertname": "CheckoutFails"},
            "commonLabels": {"alertname": "CheckoutFails"},
            "commonAnnotations": {},
            "externalURL": "http://alertmanager:9093",
            "version": "4",
            "groupKey": '{}/{kill="flagd"}:{alertname="CheckoutFails"}',
            "truncatedAlerts": cut,
        }
        return self._api.post(path, message, headers={"user-agent": "Alertmanager/0.27.0"})

    def row(self, *alerts: dict[str, Any]) -> dict[str, Any]:
        answer = self.notify(*alerts)
        assert answer.status_code == 200, answer.json
        found: dict[str, Any] = answer.json["alerts"][0]
        return found


@pytest.fixture
def alertmanager(with_scope: Callable[[str], Api], checkout: str) -> Alertmanager:
    return Alertmanager(with_scope("kill"))


def kill_of(admin: Api) -> Any:
    return admin.get(PRODUCTION).json["kill"]


class TestAlertmanager:
    def test_a_firing_alert_kills_the_flag_it_names(
        self, alertmanager: Alertmanager, admin: Api
    ) -> None:
        row = alertmanager.row(alert(flag="new-checkout"))
        kill = kill_of(admin)
        assert row == {
            "alert": "CheckoutFails",
            "fingerprint": "c6c4b4d7e1b0c1e6",
            "status": "firing",
            "flags": [{"flag": "new-checkout", "did": "killed", "kill": kill["id"]}],
            "note": None,
        }
        assert (kill["source"], kill["reason"]) == (
            "alert",
            "alert CheckoutFails fires: orders fail",
        )
        assert kill["by"].startswith("Alertmanager (")
        (entry, *_) = admin.get("/api/v1/audit").json["items"]
        assert (entry["action"], entry["actor"]) == ("configuration.kill", kill["by"])

    def test_repeated_it_changes_nothing(self, alertmanager: Alertmanager, admin: Api) -> None:
        firing = alert(flag="new-checkout")
        alertmanager.row(firing)
        version = admin.get(PRODUCTION).json["version"]
        assert alertmanager.row(firing)["flags"][0]["did"] == "already"
        assert admin.get(PRODUCTION).json["version"] == version

    def test_resolved_restores_nothing(self, alertmanager: Alertmanager, admin: Api) -> None:
        alertmanager.row(alert(flag="new-checkout"))
        row = alertmanager.row(alert(status="resolved", flag="new-checkout"))
        assert row["flags"] == []
        assert "until a person restores it" in row["note"]
        assert kill_of(admin) is not None

    def test_whoever_restored_a_flag_is_not_overruled_by_the_same_alert(
        self, alertmanager: Alertmanager, admin: Api
    ) -> None:
        firing = alert(flag="new-checkout")
        kill = alertmanager.row(firing)["flags"][0]["kill"]
        admin.post(f"{PRODUCTION}/restore", {"kill": kill, "reason": "a false alarm"})
        row = alertmanager.row(firing)
        assert row["flags"] == [{"flag": "new-checkout", "did": "left", "kill": None}]
        assert "restored after this began" in row["note"]
        assert kill_of(admin) is None
        later = alert(flag="new-checkout", at=datetime.now(UTC) + timedelta(seconds=1))
        assert alertmanager.row(later)["flags"][0]["did"] == "killed"

    def test_a_tag_kills_every_flag_that_carries_it(
        self, alertmanager: Alertmanager, admin: Api
    ) -> None:
        for key in ("new-cart", "new-search"):
            flag = {"key": key, "type": "boolean", "variants": {"on": True, "off": False}}
            admin.post("/api/v1/flags", {**flag, "tags": ["payments"]})
        row = alertmanager.row(alert(tag="payments"))
        assert [each["flag"] for each in row["flags"]] == ["new-cart", "new-search"]

    def test_service_and_version_kill_what_the_version_brought(
        self, alertmanager: Alertmanager, admin: Api, app: Flask
    ) -> None:
        at = datetime(2026, 11, 1, tzinfo=UTC)
        storage = app.extensions["flagd_server"].called_kills._storage
        with storage.transaction() as tx:
            tx.put_deployment(Deployment("dp-1", "production", "shop", "v7", first_seen_at=at))
            tx.put_first_served([FirstServed("production", "shop", "new-checkout", "v7", at, at)])
        row = alertmanager.row(alert(service="shop", version="v6"))
        assert row["note"] == "there is no flag that version 'v6' of 'shop' brought in production"
        assert alertmanager.row(alert(service="shop"))["flags"] == []
        row = alertmanager.row(alert(service="shop", version="v7"))
        assert row["flags"][0]["did"] == "killed"

    @pytest.mark.parametrize(
        ("labels", "note"),
        [
            ({}, "names no flag"),
            ({"version": "v7"}, "names no flag"),
            ({"flag": "nope"}, "there is no flag 'nope' in production"),
            ({"flag": ""}, "there is no flag ''"),
            ({"flag": "../\n\u2603" * 200}, "there is no flag"),
            ({"tag": "nope"}, "there is no flag with the tag"),
            ({"flag": "new-checkout", "environment": "staging"}, "is about staging"),
        ],
    )
    def test_what_names_nothing_known_is_answered_with_a_note(
        self, alertmanager: Alertmanager, admin: Api, labels: dict[str, str], note: str
    ) -> None:
        row = alertmanager.row(alert(**labels))
        assert row["flags"] == []
        assert note in row["note"]
        assert kill_of(admin) is None

    def test_names_of_environments_that_are_not_ours_say_nothing(
        self, alertmanager: Alertmanager
    ) -> None:
        row = alertmanager.row(alert(flag="new-checkout", environment="prod-eu"))
        assert row["flags"][0]["did"] == "killed"

    def test_an_archived_flag_is_not_there(self, alertmanager: Alertmanager, admin: Api) -> None:
        admin.patch("/api/v1/flags/new-checkout", {"archived": True})
        assert "there is no flag" in alertmanager.row(alert(flag="new-checkout"))["note"]

    def test_a_group_is_told_of_one_by_one_in_its_order(self, alertmanager: Alertmanager) -> None:
        answer = alertmanager.notify(
            alert("A", flag="nope"),
            alert("B", status="resolved", flag="new-checkout"),
            alert("C", flag="new-checkout"),
            alert("D", flag="new-checkout"),
            cut=3,
        ).json
        did = [(row["alert"], [each["did"] for each in row["flags"]]) for row in answer["alerts"]]
        assert did == [("A", []), ("B", []), ("C", ["killed"]), ("D", ["already"])]
        assert answer["not_sent"] == 3

    def test_a_group_is_killed_whole_or_not_at_all(
        self, alertmanager: Alertmanager, admin: Api, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flag = {"key": "new-cart", "type": "boolean", "variants": {"on": True, "off": False}}
        admin.post("/api/v1/flags", flag)
        kills = app.extensions["flagd_server"].called_kills._kills
        kill_in = kills.kill_in

        def fail_second(tx: Any, environment: str, key: str, **rest: Any) -> Any:
            if key == "new-cart":
                raise OSError("the disk is full")
            return kill_in(tx, environment, key, **rest)

        monkeypatch.setattr(kills, "kill_in", fail_second)
        message = {"version": "4", "alerts": [alert(flag="new-checkout"), alert(flag="new-cart")]}
        answer = admin.post(ALERTS, message, is_failure_expected=True)
        assert answer.status_code == 500  # which Alertmanager sends again
        assert kill_of(admin) is None

    def test_a_large_group(self, alertmanager: Alertmanager) -> None:
        answer = alertmanager.notify(*(alert(flag=f"f{i}", x="y" * 200) for i in range(1_000)))
        assert len(answer.json["alerts"]) == 1_000
        assert alertmanager.notify(*(alert() for _ in range(1_001))).status_code == 422
        assert alertmanager.notify(alert(x="y" * (1 << 20))).status_code == 413

    def test_an_environment_that_is_not_there(self, alertmanager: Alertmanager) -> None:
        assert alertmanager.notify(alert(), path="/hooks/alertmanager/nope").status_code == 404

    @pytest.mark.parametrize(
        "spoil",
        [
            {"version": "5"},
            {"version": None},
            {"alerts": None},
            {"alerts": {}},
            {"alerts": [{}]},
            {"alerts": [{**alert(), "status": "suppressed"}]},
            {"alerts": [{**alert(), "startsAt": "yesterday"}]},
            {"alerts": [{**alert(), "labels": {"flag": 1}}]},
            {"alerts": [{**alert(), "labels": None}]},
        ],
    )
    def test_what_is_no_message_of_alertmanager_is_refused(
        self, admin: Api, checkout: str, spoil: dict[str, Any]
    ) -> None:
        message = {"version": "4", "alerts": [alert(flag="new-checkout")], **spoil}
        assert admin.post(ALERTS, message).status_code == 422
        assert kill_of(admin) is None

    def test_needs_a_token_that_may_kill(
        self, with_scope: Callable[[str], Api], checkout: str
    ) -> None:
        statuses = {
            scope: Alertmanager(with_scope(scope)).notify(alert()).status_code
            for scope in ("read", "kill", "deploy", "sdk")
        }
        assert statuses == {"read": 403, "kill": 200, "deploy": 200, "sdk": 403}
