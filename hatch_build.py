"""Writes into a wheel which commit it was built from, and when that was made.

Only what the commit itself says: the same commit gives the same bytes, wherever and whenever it is
built. Where there is no Git, as in an image's build, GIT_SHA and SOURCE_DATE_EPOCH say it.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds `flagd_server/build.json`; not where nobody knows, or the sources are used in place."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        git_sha = os.environ.get("GIT_SHA") or _git_sha(root)
        made_s = os.environ.get("SOURCE_DATE_EPOCH") or _git(root, "show", "-s", "--format=%ct")
        if not git_sha or not made_s:
            return
        document = {"git_sha": git_sha, "source_date_epoch": int(made_s)}
        self._file = Path(self.directory) / "build.json"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(document) + "\n")
        build_data["force_include"][str(self._file)] = "flagd_server/build.json"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_file"):
            self._file.unlink(missing_ok=True)


def _git_sha(root: Path) -> str:
    """Return the commit, with a mark where the files are not those of it; "" where unknown."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root.resolve():
        return ""  # unpacked within somebody else's repository
    is_changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return _git(root, "rev-parse", "HEAD") + ("-dirty" if is_changed else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 (fixed arguments)
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
