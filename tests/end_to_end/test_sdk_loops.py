"""No event loop stands still on account of the SDK; see loop_app.py."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.end_to_end import misbehaving
from tests.end_to_end.misbehaving import MisbehavingServer
from tests.end_to_end.processes import REPOSITORY
from tests.sdk.fakes import flag, flag_set

CHANGES = 2_000
HUNG_S = 5.0  # of the server and the disk, as in loop_app.py


class Run(NamedTuple):
    process: "subprocess.Popen[str]"
    healthy: MisbehavingServer


MODES = ("asyncio", "gevent before", "gevent after", "gevent late")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """All the loops at once, for mostly they wait."""
    document = flag_set(flag("on", on=100_000), sequence=50)
    with ExitStack() as stack:
        shared = {
            name: stack.enter_context(MisbehavingServer(document))
            for name in ("hanging", "refusing", "changing")
        }
        shared["hanging"].misbehave(misbehaving.hang)
        shared["changing"].misbehave(misbehaving.changing(CHANGES))
        shared["refusing"].refuse()
        runs = {}
        for mode in MODES:
            healthy = stack.enter_context(MisbehavingServer(document))
            urls = {name: server.url for name, server in (shared | {"healthy": healthy}).items()}
            program = [sys.executable, "-m", "tests.end_to_end.loop_app"]
            process = subprocess.Popen(
                [*program, mode, tmp_path_factory.mktemp("cache"), json.dumps(urls)],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            runs[mode] = Run(process, healthy)
        yield runs


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_the_loop_goes_on_whatever_the_server_and_the_disk_do(
    running: dict[str, Run], mode: str
) -> None:
    process, healthy = running[mode]
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    # That a server refuses is told, of course. And any thread that is older than gevent's patch
    # stumbles at its end, in `threading` itself.
    assert mode == "gevent late" or "Traceback" not in errors, errors
    counted = sum(cell["exposures"] for each in healthy.summaries for cell in each["cells"])
    assert counted == 10 * 50 + 2
    worst_s = json.loads(output)
    # A machine that is busy, and the import of the HTTP stack, cost some of it. Being blocked costs
    # as long as the server or the disk hangs.
    slow = {step: gap_s for step, gap_s in worst_s.items() if gap_s > 0.75 * HUNG_S}
    assert slow == {}, worst_s
    assert len(worst_s) > 20
