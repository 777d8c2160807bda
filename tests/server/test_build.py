"""What the wheel says of itself; that it does is in `tests/deploy/test_image.py`."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flagd_server import build


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(build, "files", lambda name: tmp_path)
    return tmp_path


def test_the_environment_speaks_where_the_wheel_says_nothing(package: Path) -> None:
    told = build.this_build("0123abc")
    assert (told.git_sha, told.built_at) == ("0123abc", None)


def test_the_wheel_knows_better(package: Path) -> None:
    (package / "build.json").write_text('{"git_sha": "4567def", "source_date_epoch": 1795000000}')
    told = build.this_build("0123abc")
    assert told.git_sha == "4567def"
    assert told.built_at == datetime.fromtimestamp(1_795_000_000, UTC)
