"""What a server holds, and what files say, in few words."""

from pathlib import Path
from typing import Any

from flagd_sdk.ctl.exits import Problem
from flagd_sdk.ctl.gitops.manifests import Manifests, read_manifests
from flagd_sdk.ctl.gitops.present import Present
from flagd_sdk.ctl.yaml_files import read_file

Json = dict[str, Any]
GUARD = {"mode": "enforce", "control": None, "alpha": 0.001, "margin": 1.05, "on_breach": "kill"}
KILL = {"id": "kill-1", "at": "2026-03-01T12:00:00.000Z", "by": "guard", "reason": "it hurts"}


def split(**weights: int) -> Json:
    """Return a split as a server gives it."""
    return {
        "split": {
            "bucket_by": "targetingKey",
            "salt": "new",
            "weights": weights,
            "allocation": [[100_000, "off"]],
        }
    }


def configuration(flag: str = "new", environment: str = "production", **fields: Any) -> Json:
    return {
        "environment": environment,
        "flag": flag,
        "version": 3,
        "enabled": True,
        "off_variant": "off",
        "rules": [],
        "default_serve": {"variant": "off"},
        "guard": dict(GUARD),
        "kill": None,
        **fields,
    }


def flag(key: str = "new", configurations: Json | None = None, **fields: Any) -> Json:
    return {
        "key": key,
        "type": "boolean",
        "variants": {"on": True, "off": False},
        "description": "",
        "owner": "",
        "tags": [],
        "lifetime": "temporary",
        "expires_at": None,
        "archived": False,
        "version": 1,
        "configurations": configurations or {"production": configuration(key)},
        **fields,
    }


def present(*flags: Json, segments: Json | None = None, rollouts: Any = None) -> Present:
    """Return a server with one environment."""
    return Present(
        ["production"],
        {each["key"]: each for each in flags},
        {"production": segments or {}},
        rollouts or {},
    )


def manifests(tmp_path: Path, text: str) -> tuple[Manifests, list[Problem]]:
    path = tmp_path / "flags.yaml"
    path.write_text(text, encoding="utf-8")
    problems: list[Problem] = []
    return read_manifests(read_file(path, problems), problems), problems


def sound(tmp_path: Path, text: str) -> Manifests:
    read, problems = manifests(tmp_path, text)
    assert not problems
    return read
