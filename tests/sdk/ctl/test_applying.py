from pathlib import Path
from typing import Any

import pytest

from flagd_sdk.ctl.exits import CommandError, Exit, Problem
from flagd_sdk.ctl.gitops.applying import apply_plan
from flagd_sdk.ctl.gitops.plan import Step, make_plan
from tests.sdk.ctl.states import configuration, flag, present, sound

Json = dict[str, Any]
TEXT = """\
flag: new
variants: {on: true, off: false, slow: true}
environments: {production: {enabled: false, default_serve: {variant: slow}}}
"""


class FakeApi:
    """Grows versions as a server does, and notes what was sent."""

    def __init__(self, *, others_made: int = 0, refuse: str = "") -> None:
        self.sent: list[tuple[str, str, Json, int | None]] = []
        self.version = 3 + others_made
        self.refuse = refuse

    def patch(self, path: str, body: Json, version: int | None = None) -> Json:
        self.sent.append(("PATCH", path, body, version))
        if path.endswith(self.refuse or "nothing"):
            problems = [Problem("default_serve", "no")]
            raise CommandError("the server refuses a field", Exit.REFUSED, problems, 422)
        self.version += 1
        now = configuration(version=self.version)
        return now if "environments" in path else flag(configurations={"production": now})


def apply(tmp_path: Path, api: FakeApi) -> list[Step]:
    server = present(flag())
    done: list[Step] = []
    plan = make_plan(sound(tmp_path, TEXT), server)
    apply_plan(api, plan, server, done.append)  # type: ignore[arg-type]
    return done


def test_each_write_names_the_version_that_was_seen_or_made_by_the_write_before(
    tmp_path: Path,
) -> None:
    api = FakeApi()
    done = apply(tmp_path, api)
    assert [step.action for step in done] == ["update", "configure"]
    (_, of_flag, _, flag_version), (_, _, body, version) = api.sent
    assert (of_flag, flag_version) == ("/api/v1/flags/new", 1)
    assert version == 4, "the new variant made version 4 of what was seen as 3"
    assert body["comment"] == "flagctl apply"


def test_what_someone_else_did_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    api = FakeApi(others_made=1)
    with pytest.raises(CommandError, match="someone else was first") as caught:
        apply(tmp_path, api)
    assert caught.value.exit is Exit.CONFLICT
    assert len(api.sent) == 1


def test_a_refusal_is_named_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="new in production is refused") as caught:
        apply(tmp_path, FakeApi(refuse="/production"))
    (problem,) = caught.value.problems
    assert problem.where.endswith("flags.yaml:3: default_serve")
