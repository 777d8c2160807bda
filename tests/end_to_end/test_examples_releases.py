"""The releases of the example go as they should: it says so itself, and ends with 0."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_a_good_release_goes_through_and_a_bad_one_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.releases", "flags"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line[9:].split() for line in done.stdout.splitlines()]
    reached = [words[2] for words in told if words[:1] == ["good"] and words[1:2] != ["complete"]]
    assert reached == ["1", "5", "25", "50", "100"]
    assert [words[1] for words in told if words[:1] == ["good"]][-1] == "complete"
    assert ["bad", "roll_back", "25"] in [words[:3] for words in told]
    assert any(words[:3] == ["bad", "is", "off,"] for words in told)
