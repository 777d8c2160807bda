import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.forking_app import FORKS
from tests.end_to_end.misbehaving import MisbehavingServer
from tests.end_to_end.worker_app import UNITS, WORKERS
from tests.sdk.fakes import flag, flag_set


@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("moment", ["early", "late"])
def test_forked_children_work_and_every_unit_of_work_is_counted_once(
    tmp_path: Path, moment: str
) -> None:
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        result = subprocess.run(
            [sys.executable, "-m", "tests.end_to_end.forking_app", server.url, tmp_path, moment],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == "", "nothing is logged"
        summaries = {(s["instance"], s["sequence"]): s for s in server.summaries}
    assert len(summaries) == len(server.summaries), "nothing had to be sent twice"
    assert len({instance for instance, _ in summaries}) == FORKS + 1
    exposures = sum(c["exposures"] for s in summaries.values() for c in s["cells"])
    assert exposures == int(result.stdout)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_reports_as_it_ends_although_nobody_closes_its_client(
    tmp_path: Path, method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"needs {method}")
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        result = subprocess.run(
            [sys.executable, "-m", "tests.end_to_end.worker_app", server.url, tmp_path, method],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        cells = [cell for summary in server.summaries for cell in summary["cells"]]
    assert sum(cell["exposures"] for cell in cells) == 2 * WORKERS * UNITS
    assert sum(cell["errors"] for cell in cells) == 2 * WORKERS * UNITS // 5
