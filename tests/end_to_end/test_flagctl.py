"""flagctl on a real server, through the installed entry point."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from flagd_sdk import FlagClient
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.flagctl_process import Flagctl
from tests.end_to_end.processes import DEADLINE_S
from tests.sdk.ctl.answering_server import AnsweringServer

PATH = "/api/v1/flags/{}/environments/production"


def test_a_flag_is_created_shown_and_listed(ctl: Flagctl) -> None:
    arguments = ("--type", "string", "--variant", "a=A", "--variant", "b=B", "--off", "a")
    created = ctl.ok("create", "colours", *arguments, "--tag", "ui", "--owner", "shop")
    assert created["variants"] == {"a": "A", "b": "B"}
    assert created["configurations"]["staging"]["off_variant"] == "a"
    shown = ctl.ok("show", "colours", "-e", "production")
    assert list(shown["configurations"]) == ["production"]
    (listed,) = ctl.ok("list", "--tag", "ui")["items"]
    assert (listed["key"], listed["configuration"]["enabled"]) == ("colours", False)
    done = ctl.run("list", "--tag", "ui")
    assert done.out.split("\n")[1].split() == ["colours", "off", "a", "enforce", "shop", "ui", "1"]
    again = ctl.run("create", "colours")
    assert again.code == 4


def test_what_is_served_is_set_and_its_history_told(ctl: Flagctl, flag: str) -> None:
    done = ctl.run("set", flag, "--percent", "25", "--comment", "a quarter")
    assert done.code == 0
    assert "default_serve: on 5 %, off 95 % → on 25 %, off 75 %" in done.out
    set_ = ctl.ok("set", flag, "--disable", "--variant", "on", "--guard", "observe")
    assert (set_["enabled"], set_["default_serve"], set_["version"]) == (
        False,
        {"variant": "on"},
        4,
    )
    assert set_["guard"]["mode"] == "observe"
    newest, before, *_ = ctl.ok("history", flag)["items"]
    assert {change["path"] for change in newest["changes"]} == {
        "enabled",
        "default_serve",
        "guard.mode",
    }
    assert before["comment"] == "a quarter"
    back = ctl.ok("rollback", flag, "--to", "3")
    assert back["default_serve"]["split"]["weights"]["on"] == 25_000
    assert "is so already" in ctl.run("set", flag, "--enable").out


def test_rules_are_set_from_a_file(ctl: Flagctl, flag: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        "- id: staff\n  condition: {attribute: email, op: ends_with, values: ['@x.nl']}\n"
        "  serve: {variant: on}\n"
    )
    assert ctl.ok("set", flag, "--rules", "rules.yaml")["rules"][0]["serve"] == {"variant": "on"}
    assert "email ends_with @x.nl → on" in ctl.run("show", flag).out
    (tmp_path / "rules.yaml").write_text("- {id: staff, serve: {variant: nope}}\n")
    done = ctl.run("set", flag, "--rules", "rules.yaml", "--json")
    assert (done.code, done.document["error"]["status"]) == (1, 422)
    assert done.document["error"]["problems"]
    assert ctl.run("set", flag, "--rules", "none.yaml").code == 2


def test_who_was_first_is_named_and_not_overwritten(ctl: Flagctl, flag: str) -> None:
    ctl.ok("set", flag, "--percent", "10", "--comment", "mine")
    done = ctl.run("set", flag, "--percent", "50", "--if-version", "2")
    assert done.code == 4
    assert "someone else was first: version 3" in done.err
    assert "first admin (“mine”)" in done.err
    assert ctl.ok("show", flag)["configurations"]["production"]["version"] == 3


def test_a_kill_waits_for_every_process_and_only_its_name_lifts_it(
    ctl: Flagctl, flag: str, shared: FlagServer
) -> None:
    token = shared.sdk_tokens["production"]
    with FlagClient(shared.url, token, service="shop", cache_dir=None) as shop:
        assert shop.wait_until_ready(DEADLINE_S)
        killed = ctl.ok("kill", flag, "--reason", "it hurts", "--wait", "10s")
        receipt = killed["receipt"]
        assert receipt["confirmed"] == receipt["processes"] >= 1
        assert not shop.is_enabled(flag, default=True)
    kill = killed["kill"]["id"]
    assert (
        f"{flag} in production is off, and was before"
        in ctl.run("kill", flag, "--reason", "again").out
    )
    done = ctl.run("set", flag, "--percent", "50")
    assert "it stays off: killed at" in done.out
    refused = ctl.run("restore", flag, "--reason", "mended")
    assert refused.code == 2
    assert kill in refused.err, "who is not a person has to name the kill"
    assert ctl.run("restore", flag, "--kill", "kill-0", "--reason", "mended").code == 4
    assert ctl.run("restore", flag, "--kill", kill).code == 2, "a reason is needed"
    fixed = ("--fixed-in", "shop@3f2c1ab", "--start", "2", "--leave-out-exposed")
    restored = ctl.ok("restore", flag, "--kill", kill, *fixed)
    assert restored["kill"] is None
    assert restored["default_serve"]["split"]["weights"]["on"] == 2_000
    assert ctl.run("rollback", flag, "--last-healthy").code == 4, "nothing was healthy yet"


def test_a_person_lifts_a_kill_by_a_yes(ctl: Flagctl, flag: str) -> None:
    ctl.ok("kill", flag, "--reason", "it hurts")
    done = ctl.on_terminal("restore", flag, "--reason", "mended", answer="n\n")
    assert done.code == 1
    assert "it hurts" in done.out
    done = ctl.on_terminal("restore", flag, "--reason", "mended", answer="y\n")
    assert done.code == 0
    assert "is restored" in done.out
    assert ctl.run("restore", flag, "--reason", "again").code == 4


def test_a_process_that_does_not_confirm_makes_the_kill_inconclusive(
    ctl: Flagctl, flag: str, shared: FlagServer
) -> None:
    headers = {"Authorization": f"Bearer {shared.sdk_tokens['production']}"}
    deaf = {**headers, "X-Flagd-Instance": "deaf-1"}
    request = ["curl", "-sN", f"{shared.url}/sdk/v1/stream"]
    for name, value in deaf.items():
        request += ["-H", f"{name}: {value}"]
    with subprocess.Popen(request, stdout=subprocess.PIPE) as stream:
        assert stream.stdout is not None
        stream.stdout.readline()
        done = ctl.run("kill", flag, "--reason", "it hurts", "--wait", "0.2s")
        stream.kill()
    assert done.code == 5
    assert "not yet: deaf-1" in done.out


def test_a_rollout_is_started_steered_and_watched_to_its_end(ctl: Flagctl, flag: str) -> None:
    started = ctl.ok("rollout", "start", flag, "--stage", "10:1h", "--stage", "50")
    assert (started["stages"][0]["bake_time_s"], started["stage"]) == (3600, 0)
    assert ctl.run("rollout", "start", flag, "--template", "fast").code == 4
    assert ctl.ok("rollout", "pause", flag, "--reason", "lunch")["state"] == "paused"
    assert ctl.ok("rollout", "resume", flag)["state"] in ("running", "waiting")
    advanced = ctl.ok("rollout", "advance", flag)
    assert advanced["stage"] == 1
    assert "stage 2 of 2 (50 %)" in ctl.run("rollout", "status", flag).out
    late = ctl.run("rollout", "status", flag, "--watch", "--timeout", "0.1s")
    assert late.code == 5
    with ctl.start("rollout", "status", flag, "--watch", "--json") as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["stage"] == 1
        assert ctl.ok("rollout", "abort", flag, "--reason", "enough")["state"] == "aborted"
        last = watching.stdout.read().splitlines()[-1]
        assert json.loads(last)["state"] == "aborted"
        assert watching.wait(DEADLINE_S) == 1
    assert ctl.run("rollout", "status", flag).code == 1
    assert ctl.run("rollout", "pause", flag).code == 4
    assert [each["state"] for each in ctl.ok("rollout", "list", flag)["items"]] == ["aborted"]
    assert "careful" in ctl.run("rollout", "templates").out


def test_a_watch_shows_what_is_on(ctl: Flagctl, flag: str, shared: FlagServer) -> None:
    (row,) = ctl.ok("watch", flag, "--once")["flags"]
    assert (row["flag"], row["state"], row["serves"]) == (flag, "on", "on 5 %, off 95 %")
    assert row["guard"]["mode"] == "enforce"
    with ctl.start("watch", flag, "--interval", "0.1s") as watching:
        assert watching.stdout is not None
        assert "on 5 %" in watching.stdout.readline()
        shared.kill_flag(flag)
        assert "killed" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(DEADLINE_S) == 130
        assert watching.stderr is not None
        assert watching.stderr.read().strip() == ""


def test_a_deployment_is_registered_once_and_its_flags_are_killed(
    ctl: Flagctl, flag: str, shared: FlagServer
) -> None:
    image = f"registry.example/shop@sha256:{'a' * 64}"
    arguments = ("--service", "shop", "--version", "3f2c1ab", "--commit", "3f2c1ab")
    registered = ctl.ok("deployment", "register", *arguments, "--image", image)
    assert ctl.ok("deployment", "register", *arguments, "--image", image)["id"] == registered["id"]
    other = image.replace("a" * 64, "b" * 64)
    assert ctl.run("deployment", "register", *arguments, "--image", other).code == 4
    latest = ctl.run("deployment", "register", *arguments, "--image", "shop:latest", "--json")
    assert (latest.code, latest.document["error"]["problems"][0]["where"]) == (1, "image")
    listed = ctl.ok("deployment", "list", "--service", "shop")["items"]
    assert [each["id"] for each in listed] == [registered["id"]]
    shown = ctl.run("deployment", "show", registered["id"])
    assert "inconclusive" in shown.out
    assert image in shown.out
    killed = ctl.ok("deployment", "kill", registered["id"], "--reason", "it hurts")
    assert killed["flags"] == []


def test_flags_with_a_tag_are_killed_at_once(ctl: Flagctl, flag: str, shared: FlagServer) -> None:
    shared.call("PATCH", f"/api/v1/flags/{flag}", {"tags": ["risky"]})
    dry = ctl.run("kill", "--tag", "risky", "--reason", "it hurts", "--dry-run")
    assert (dry.code, dry.out.strip()) == (0, f"{flag} would be killed")
    (killed,) = ctl.ok("kill", "--tag", "risky", "--reason", "it hurts")["flags"]
    assert (killed["flag"], killed["killed"]) == (flag, True)
    assert killed["kill"]["reason"] == "it hurts"


def test_a_gate_holds_a_rollout_until_a_person_approves(
    ctl: Flagctl, flag: str, shared: FlagServer
) -> None:
    path = "/api/v1/environments/production/gates/person"
    assert shared.call("PUT", path, {"approval": True}).status_code == 201
    assert "person" in ctl.run("gates").out
    started = ctl.ok("rollout", "start", flag, "--stage", "10", "--stage", "50", "--gate", "person")
    assert started["stages"][0]["gates"] == ["person"]
    done = ctl.run("gate", "person", "--wait", "--timeout", "0.1s", "--json")
    assert (done.code, done.document["verdict"]) == (5, "inconclusive")
    assert ctl.ok("gate", "person", "--approve", "looked at it")["verdict"] == "healthy"
    ctl.ok("rollout", "abort", flag)


@pytest.mark.parametrize(("status", "code"), [(200, 0), (500, 1)])
def test_a_gate_tells_whether_a_service_is_healthy(
    ctl: Flagctl, shared: FlagServer, status: int, code: int
) -> None:
    with AnsweringServer() as service:
        service.answer = (status, {}, b"{}")
        body = {"health_checks": [f"{service.url}/healthz"]}
        path = f"/api/v1/environments/production/gates/shop-{status}"
        assert shared.call("PUT", path, body).status_code == 201
        done = ctl.run("gate", f"shop-{status}", "--wait", "--timeout", "60s", "--interval", "0.2s")
        assert done.code == code
        assert service.asked[0][1] == "/healthz"
