"""A process's wall clock that jumps, by libfaketime."""

import os
from pathlib import Path

import pytest

HOURS_S = 5 * 3600
# libfaketime breaks time.sleep, with which gunicorn starts its worker.
SERVER = (
    "-c",
    "import select, sys, time\n"
    "time.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"
    "from flagd_server.cli import main\n"
    "sys.exit(main())",
)
"""A server whose clock can be faked, for `FlagServer`."""
_LIBRARIES = "*/faketime/libfaketimeMT.so.1"


class FakeClock:
    """Right at first. `settings` are environment variables for the process.

    Its monotonic clock goes on as ever.
    """

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self._draft = folder / "draft"
        self.settings = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        self.jump(0)

    def jump(self, offset_s: int) -> None:
        """Let it be so far ahead of the machine's."""
        # Replaced as a whole, for it is read all the time.
        self._draft.write_text(f"{offset_s:+d}", encoding="utf-8")
        self._draft.replace(self._offset)


def _library() -> Path:
    """Return libfaketime; skip without it, but not in CI."""
    for folder in ("/usr/lib", "/usr/local/lib"):
        for found in Path(folder).glob(_LIBRARIES):
            return found
    why = "a clock that jumps needs libfaketime (apt-get install libfaketime)"
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)
