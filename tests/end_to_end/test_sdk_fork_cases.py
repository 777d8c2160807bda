"""Forks at the worst moments, with a real flag server; see fork_cases.py."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing, suppress
from itertools import count

import pytest

from flagd_server.storage import open_storage
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import REPOSITORY

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

CASES = (
    "pool_fork",
    "pool_spawn",
    "pool_forkserver",
    "under_load",
    "unused",
    "in_a_listener",
    "in_the_reporter",
    "daemon",
    "with_exec",
    "with_locks_held",
    "in_a_pause",
    "in_a_unit_of_work",
    "while_nothing_is_known",
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_no_fork_hangs_and_each_unit_of_work_is_counted_once(
    case: str, module_server: FlagServer
) -> None:
    flag = case.replace("_", "-")
    module_server.create_flag(flag, default_serve={"variant": "on"})
    module_server.create_flag(f"{flag}-other")
    settings = {
        "FLAGD_URL": module_server.url,
        "FLAGD_TOKEN": module_server.sdk_tokens["production"],
        "FLAG": flag,
    }
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.end_to_end.fork_cases", case],
        cwd=REPOSITORY,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    ending = threading.Event()

    def change() -> None:
        for number in count():
            module_server.configure(f"{flag}-other", enabled=bool(number % 2))
            if ending.wait(0.05):
                return

    changer = threading.Thread(target=change)
    changer.start()
    try:
        output, errors = process.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a child that hangs, too
        ending.set()
        changer.join()
    assert process.returncode == 0, errors
    assert errors == ""
    with closing(open_storage(str(module_server.database))) as storage, storage.read() as reader:
        counted = sum(row.exposures for row in reader.counts("production", flag, 0))
    assert counted == int(output.split()[-1])
