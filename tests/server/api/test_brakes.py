"""…/brake over HTTP, each exchange held to the contract."""

from collections.abc import Callable

from tests.server.api.client import Api

BRAKE = "/api/v1/environments/production/brake"
FLAGS = [f"flag-{number}" for number in range(1, 8)]


def release(admin: Api, key: str) -> int:
    variants = {"on": True, "off": False}
    admin.post("/api/v1/flags", {"key": key, "type": "boolean", "variants": variants})
    split = {"split": {"weights": {"on": 25_000, "off": 75_000}}}
    changed = admin.patch(
        f"/api/v1/flags/{key}/environments/production",
        {"enabled": True, "default_serve": split},
        if_match=1,
    )
    assert changed.status_code == 200, changed.json
    return int(changed.json["version"])


def fail_all(admin: Api, sdk: Api) -> None:
    """Report, in one summary, a dozen failing users of each flag's treatment."""
    cells = []
    for number, key in enumerate(FLAGS):
        version = release(admin, key)
        units = [f"{number * 100 + unit:016x}" for unit in range(12)]
        for variant, exposures, failing in (("on", 12, units), ("off", 36, [])):
            cells.append(
                {
                    "flag": key,
                    "split": "default",
                    "variant": variant,
                    "config_version": version,
                    "exposures": exposures,
                    "errors": len(failing),
                    "latency": {},
                    "units": {"error:KeyError": failing} if failing else {},
                }
            )
    answer = sdk.post(
        "/sdk/v1/telemetry",
        {
            "instance": "i-1",
            "sequence": 1,
            "service": "shop",
            "service_version": "v1",
            "applied_sequence": 0,
            "started_at": "2026-11-23T19:14:36Z",
            "ended_at": "2026-11-23T19:14:37Z",
            "cells": cells,
            "unscoped": {},
            "error_kinds": [],
            "dropped": {},
        },
    )
    assert answer.json["accepted"] == len(cells), answer.json


def killed(admin: Api) -> list[str]:
    return [
        key
        for key in FLAGS
        if admin.get(f"/api/v1/flags/{key}/environments/production").json["kill"] is not None
    ]


def test_a_brake_that_is_not_engaged_says_so_and_can_not_be_released(admin: Api) -> None:
    off = {"engaged": False, "engaged_at": None, "reason": None, "waiting": []}
    assert admin.get(BRAKE).json == off
    answer = admin.delete(BRAKE)
    assert answer.status_code == 404
    assert "no engaged brake 'production'" in answer.json["detail"]


def test_engaged_it_says_since_when_why_and_what_waits(admin: Api, sdk: Api) -> None:
    fail_all(admin, sdk)
    assert killed(admin) == FLAGS[:5]
    brake = admin.get(BRAKE).json
    assert (brake["engaged"], brake["waiting"]) == (True, FLAGS[5:])
    assert brake["engaged_at"] is not None
    assert "within a minute" in brake["reason"]
    evidence = admin.get("/api/v1/flags/flag-6/environments/production/evidence").json
    assert [row["action"] for row in evidence["reports"]] == ["braked"]


def test_released_it_lets_the_guard_act_and_is_in_the_audit_log(admin: Api, sdk: Api) -> None:
    fail_all(admin, sdk)
    assert admin.delete(BRAKE).json == {"acted_on": FLAGS[5:]}
    assert killed(admin) == FLAGS
    assert admin.get(BRAKE).json["engaged"] is False
    (row,) = [
        row for row in admin.get("/api/v1/audit").json["items"] if row["action"] == "brake.release"
    ]
    assert row["target"] == "environments/production/brake"
    assert row["detail"]["flags"] == FLAGS[5:]


def test_who_may_read_may_look_and_not_release(with_scope: Callable[[str], Api], sdk: Api) -> None:
    reader = with_scope("read")
    assert reader.get(BRAKE).status_code == 200
    assert reader.delete(BRAKE).status_code == 403
    assert sdk.get(BRAKE).status_code == 403
    assert reader.by(None).get(BRAKE).status_code == 401


def test_an_environment_that_is_not_there_has_none(admin: Api) -> None:
    assert admin.get("/api/v1/environments/nowhere/brake").status_code == 404
    assert admin.delete("/api/v1/environments/nowhere/brake").status_code == 404
