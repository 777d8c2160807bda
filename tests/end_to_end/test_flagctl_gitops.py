"""Flags as files, on real servers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.flagctl_process import Flagctl

CHECKOUT = """\
flag: new-checkout
type: boolean
variants: {on: true, off: false}
owner: shop
environments:
  production:
    enabled: true
    rules:
      - id: staff
        condition: {segment: staff}
        serve: {variant: on}
    default_serve: {split: {weights: {on: 5000, off: 95000}}}
"""
RANKING = """\
flag: ranking
type: string
variants: {by-text: text, by-meaning: meaning}
tags: [search]
expires_at: 2027-03-31T00:00:00Z
environments:
  production:
    enabled: true
    off_variant: by-text
    rules:
      - id: with-checkout
        condition: {flag: new-checkout, variants: [on]}
        serve: {split: {weights: {by-meaning: 50000, by-text: 50000}, salt: ranking-1}}
    default_serve: {variant: by-text}
    guard: {mode: observe, alpha: 0.01}
---
segment: staff
environments:
  production:
    description: Ours.
    condition: {attribute: email, op: ends_with, values: ["@example.com"]}
"""


@pytest.fixture
def ctl(server: FlagServer, tmp_path: Path) -> Flagctl:
    (tmp_path / "flags").mkdir()
    (tmp_path / "flags" / "checkout.yaml").write_text(CHECKOUT)
    (tmp_path / "flags" / "ranking.yaml").write_text(RANKING)
    return Flagctl(server.url, server.admin_token, tmp_path)


def edit(folder: Path, before: str, after: str, name: str = "checkout.yaml") -> None:
    path = folder / "flags" / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def served(ctl: Flagctl, flag: str = "new-checkout") -> object:
    return ctl.ok("show", flag)["configurations"]["production"]


def test_files_are_applied_once_and_exported_as_they_are(
    ctl: Flagctl, start_server: Callable[[], FlagServer], tmp_path: Path
) -> None:
    dry = ctl.run("apply", "-f", "flags", "--dry-run")
    assert dry.code == 0
    assert "+ new-checkout" in dry.out
    assert "default_serve: off → on 5 %, off 95 %" in dry.out
    assert ctl.ok("list")["items"] == [], "a dry run changes nothing"
    assert ctl.run("apply", "-f", "flags", "--check").code == 1

    steps = ctl.ok("apply", "-f", "flags")["steps"]
    assert [(step["action"], step["key"]) for step in steps] == [
        ("create", "new-checkout"),
        ("create", "ranking"),
        ("put_segment", "staff"),
        ("configure", "new-checkout"),
        ("configure", "ranking"),
    ]
    again = ctl.ok("apply", "-f", "flags", "--check")
    assert (again["steps"], again["unchanged"]) == ([], 3)

    ctl.ok("export", "--to", "first")
    other = start_server()
    there = Flagctl(other.url, other.admin_token, tmp_path)
    there.ok("apply", "-f", "first")
    there.ok("export", "--to", "second")
    names = ["new-checkout.yaml", "ranking.yaml", "segments/staff.yaml"]
    for folder in ("first", "second"):
        found = (tmp_path / folder).rglob("*.yaml")
        assert sorted(str(path.relative_to(tmp_path / folder)) for path in found) == names
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert ctl.ok("export")["items"] == there.ok("export")["items"]
    assert there.run("export", "ranking").out == (tmp_path / "second" / names[1]).read_text()


def test_a_killed_flag_stays_killed_and_a_rollout_keeps_its_share(
    ctl: Flagctl, tmp_path: Path
) -> None:
    ctl.ok("apply", "-f", "flags")
    kill = ctl.ok("kill", "ranking", "--reason", "it hurts")["kill"]
    edit(tmp_path, "enabled: true", "enabled: false", "ranking.yaml")
    edit(tmp_path, "enabled: false", "enabled: true", "ranking.yaml")
    edit(tmp_path, "by-meaning: 50000, by-text: 50000", "by-meaning: 100000", "ranking.yaml")
    ctl.ok("rollout", "start", "new-checkout", "--stage", "25:1h", "--stage", "50")

    applied = ctl.ok("apply", "-f", "flags")
    assert [step["key"] for step in applied["steps"]] == ["ranking"]
    assert any("stays off" in note for note in applied["notes"])
    assert any("decides until it ends; default_serve left" in note for note in applied["notes"])
    assert served(ctl, "ranking")["kill"]["id"] == kill["id"]  # type: ignore[index]
    now = served(ctl)
    assert now["default_serve"]["split"]["weights"]["on"] == 25_000  # type: ignore[index]
    assert ctl.ok("rollout", "status", "new-checkout")["state"] in ("running", "waiting")
    ctl.ok("rollout", "abort", "new-checkout")
    ctl.ok("apply", "-f", "flags")
    now = served(ctl)
    assert now["default_serve"]["split"]["weights"]["on"] == 5_000  # type: ignore[index]


def test_every_fault_is_named_and_nothing_is_written(ctl: Flagctl, tmp_path: Path) -> None:
    edit(tmp_path, "owner: shop", "owner: 5")
    edit(tmp_path, "on: 5000", "on: 6000")
    edit(tmp_path, "segment: staff", "segment: stuff", "ranking.yaml")
    edit(tmp_path, "op: ends_with", "op: ends", "ranking.yaml")
    done = ctl.run("apply", "-f", "flags", "--json")
    assert done.code == 2
    wheres = [problem["where"] for problem in done.document["error"]["problems"]]
    assert wheres == [
        "flags/checkout.yaml:4: owner",
        "flags/checkout.yaml:10: environments.production.rules[0].condition.segment",
        "flags/checkout.yaml:12: environments.production.default_serve.split.weights",
        "flags/ranking.yaml:21: environments.production.condition.op",
    ]
    assert ctl.ok("list")["items"] == []
    (tmp_path / "flags" / "more.yaml").write_text("flag: [")
    assert "flags/more.yaml:1: is no YAML" in ctl.run("apply", "-f", "flags").err


def test_what_only_the_server_knows_is_named_with_its_file(ctl: Flagctl, tmp_path: Path) -> None:
    edit(tmp_path, "owner: shop", f"owner: {'x' * 200}")
    done = ctl.run("apply", "-f", "flags", "--json")
    assert done.code == 1
    (problem,) = done.document["error"]["problems"]
    assert problem["where"] == "flags/checkout.yaml:1: owner"
    assert "0 of 5 changes are made" in done.err


def test_flags_in_no_file_are_archived_only_when_asked(ctl: Flagctl, tmp_path: Path) -> None:
    ctl.ok("apply", "-f", "flags")
    (tmp_path / "flags" / "checkout.yaml").unlink()
    edit(tmp_path, "flag: new-checkout, variants: [on]", "segment: staff", "ranking.yaml")
    assert [step["action"] for step in ctl.ok("apply", "-f", "flags")["steps"]] == ["configure"]
    dry = ctl.run("apply", "-f", "flags", "--prune", "--dry-run")
    assert "- new-checkout  (in no file)" in dry.out
    ctl.ok("apply", "-f", "flags", "--prune")
    assert ctl.ok("show", "new-checkout")["archived"] is True
    (tmp_path / "nothing").mkdir()
    assert ctl.run("apply", "-f", "nothing", "--prune").code == 2
    (tmp_path / "flags" / "checkout.yaml").write_text(CHECKOUT)
    back = ctl.ok("apply", "-f", "flags")
    assert [step["action"] for step in back["steps"]] == ["update"]
    assert ctl.ok("show", "new-checkout")["archived"] is False
