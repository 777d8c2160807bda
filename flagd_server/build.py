"""Which code is running: what the wheel says of itself, or else the environment."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files

_DISTRIBUTION = "flagd-release"


@dataclass(frozen=True, slots=True)
class Build:
    """Which code is running.

    Attributes:
        git_sha: the commit; empty where nobody said.
        built_at: when the commit was made, which is all of the time that a reproducible build
            knows; None where nobody said.
    """

    version: str
    git_sha: str = ""
    built_at: datetime | None = None


def this_build(git_sha: str = "") -> Build:
    """Return what is running.

    Args:
        git_sha: of the environment; counts where the wheel does not know.
    """
    file = files("flagd_server") / "build.json"
    if not file.is_file():
        return Build(version(_DISTRIBUTION), git_sha)
    said = json.loads(file.read_text(encoding="utf-8"))
    built_at = datetime.fromtimestamp(said["source_date_epoch"], UTC)
    return Build(version(_DISTRIBUTION), said["git_sha"], built_at)
