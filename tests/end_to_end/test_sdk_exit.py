import subprocess
import sys
from time import monotonic

import pytest

from tests.end_to_end import misbehaving
from tests.end_to_end.misbehaving import MisbehavingServer
from tests.sdk.fakes import flag, flag_set

PROGRAM = """
import sys
from flagd_sdk import FlagClient

flags = FlagClient(sys.argv[1], "fr_sdk_production_Secret", cache_dir=None)
flags.wait_until_ready(float(sys.argv[2]))
with flags.scope({"targetingKey": "u1"}):
    flags.is_enabled("on")
"""


def run(url: str, wait_s: float) -> tuple[int, str]:
    """Run the program with every warning an error; return its exit code and what it said."""
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, url, str(wait_s)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.returncode, result.stderr


def test_a_program_that_closes_nothing_ends_clean_and_its_counts_arrive() -> None:
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        assert run(server.url, 30.0) == (0, "")
        cells = [cell for summary in server.summaries for cell in summary["cells"]]
    assert [cell["exposures"] for cell in cells] == [1]


def test_a_program_ends_soon_although_the_server_hangs() -> None:
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        server.misbehave(misbehaving.hang)
        began_at = monotonic()
        assert run(server.url, 0.1) == (0, "")
    assert monotonic() - began_at < 6.0, "two seconds, and what starting an interpreter takes"


def test_a_signal_handler_that_uses_flags_meets_no_lock_of_its_own_thread() -> None:
    program = """
import signal, sys, time
from flagd_sdk import FlagClient

flags = FlagClient(sys.argv[1], "fr_sdk_production_Secret", cache_dir=None)
assert flags.wait_until_ready(30)
done = 0

def work(unit):
    global done
    with flags.scope({"targetingKey": unit}):
        flags.is_enabled("on")
        flags.fail("declined")
    with flags.scope({"targetingKey": unit}):
        flags.is_enabled("on")
    done += 2

def handler(number, frame):
    work("handler")
    flags.flush(0)
    if time.monotonic() < ending_at:
        signal.setitimer(signal.ITIMER_REAL, 0.0003)

def end(number, frame):
    with flags.scope({"targetingKey": "last"}):
        flags.is_enabled("on")
    assert flags.flush(10) and flags.close(10)
    print(done + 1, flush=True)
    sys.exit(7)

signal.signal(signal.SIGALRM, handler)
signal.signal(signal.SIGTERM, end)
work("main")
ending_at = time.monotonic() + 1.5
signal.setitimer(signal.ITIMER_REAL, 0.0003)
while time.monotonic() < ending_at:
    work("main")
time.sleep(0.1)  # until the timer has run out
signal.raise_signal(signal.SIGTERM)
"""
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, server.url],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (result.returncode, result.stderr) == (7, "")
        cells = [cell for summary in server.summaries for cell in summary["cells"]]
    assert sum(cell["exposures"] for cell in cells) == int(result.stdout)


HEAD = """
import atexit, os, signal, sys, threading, time

def late():
    flags.is_enabled("on")
    work()

atexit.register(late)  # it runs after the client's own

from flagd_sdk import FlagClient

flags = FlagClient(sys.argv[1], "fr_sdk_production_Secret", cache_dir=None)
assert flags.wait_until_ready(30)

def work():
    with flags.scope({"targetingKey": "u1"}):
        assert flags.is_enabled("on")

def keep_working():
    while True:
        work()
        flags.is_enabled("on")
        with flags.scope({"targetingKey": "u1"}):
            flags.is_enabled("on")
            flags.fail("declined")

work()
"""
ENDS = {
    # name: program, exit code, what is on stderr, exposures (None: any number)
    "sys.exit": ("sys.exit(5)", 5, "", 1),
    "sys.exit in a thread": (
        "t = threading.Thread(target=lambda: (work(), sys.exit(3))); t.start(); t.join()",
        0,
        "",
        2,
    ),
    "a thread that goes on": (
        "threading.Thread(target=lambda: (time.sleep(0.3), work())).start()",
        0,
        "",
        2,
    ),
    "an unhandled exception": ("raise SystemError('ours')", 1, "SystemError: ours", 1),
    "SIGINT": ("signal.raise_signal(signal.SIGINT)", -2, "KeyboardInterrupt", 1),
    "daemon threads at work": (
        "for _ in range(4): threading.Thread(target=keep_working, daemon=True).start()\n"
        "time.sleep(0.3)",
        0,
        "",
        None,
    ),
    "SIGTERM, unhandled": ("flags.flush(9); signal.raise_signal(signal.SIGTERM)", -15, "", 1),
    "os._exit": ("flags.flush(9); work(); os._exit(4)", 4, "", 1),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_last_counts_arrive_wherever_python_gives_a_chance(end: str) -> None:
    tail, code, said, exposures = ENDS[end]
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        began_at = monotonic()
        result = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", HEAD + tail, server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        took_s = monotonic() - began_at
        cells = [cell for summary in server.summaries for cell in summary["cells"]]
    assert result.returncode == code, result.stderr
    assert result.stderr.count("Traceback") == bool(said), result.stderr
    assert said in result.stderr
    assert "flagd" not in result.stderr
    counted = sum(cell["exposures"] for cell in cells)
    assert counted == exposures or (exposures is None and counted > 100)
    assert took_s < 6.0
