import subprocess
import sys
from time import monotonic

import pytest

from tests.end_to_end import misbehaving
from tests.end_to_end.misbehaving import MisbehavingServer
from tests.sdk.fakes import flag, flag_set

EXIT_S = 40.0  # given to an exit that has something to say, and never to be used up
SLACK_S = 20.0  # to end an interpreter on a machine that stands still for seconds

PROGRAM = """
import sys, time
from flagd_sdk import FlagClient

url, wait_s, exit_s = sys.argv[1], *map(float, sys.argv[2:])
flags = FlagClient(
    url, "fr_sdk_production_Secret", cache_dir=None, exit_timeout_s=exit_s, request_timeout_s=100.0
)
flags.wait_until_ready(wait_s)
with flags.scope({"targetingKey": "u1"}):
    flags.is_enabled("on")
print(time.monotonic(), flush=True)
"""


def run(url: str, wait_s: float, exit_s: float) -> tuple[int, str, float]:
    """Run the program with every warning an error.

    Returns:
        Its exit code, what it said, and how long it took to end once it was through.
    """
    arguments = [url, str(wait_s), str(exit_s)]
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return result.returncode, result.stderr, monotonic() - float(result.stdout or "nan")


def test_a_program_that_closes_nothing_ends_clean_and_its_counts_arrive() -> None:
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        code, said, took_s = run(server.url, 30.0, EXIT_S)
        assert (code, said) == (0, "")
        assert took_s < SLACK_S
        cells = [cell for summary in server.summaries for cell in summary["cells"]]
    assert [cell["exposures"] for cell in cells] == [1]


def test_a_program_ends_soon_although_the_server_hangs() -> None:
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        server.misbehave(misbehaving.hang)
        code, said, took_s = run(server.url, 0.1, 2.0)
    assert (code, said) == (0, "")
    assert took_s < 2.0 + SLACK_S


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
    assert flags.flush(60) and flags.close(60)
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
            timeout=110,
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

url, exit_s = sys.argv[1], float(sys.argv[2])
flags = FlagClient(url, "fr_sdk_production_Secret", cache_dir=None, exit_timeout_s=exit_s)
assert flags.wait_until_ready(60)
rounds = 0

def work():
    with flags.scope({"targetingKey": "u1"}):
        assert flags.is_enabled("on")

def keep_working():
    global rounds
    while True:
        work()
        rounds += 1
        flags.is_enabled("on")
        with flags.scope({"targetingKey": "u1"}):
            flags.is_enabled("on")
            flags.fail("declined")

work()
print(time.monotonic(), flush=True)
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
        "while rounds < 200: time.sleep(0.01)\n"
        "time.sleep(0.3)",
        0,
        "",
        None,
    ),
    "SIGTERM, unhandled": ("flags.flush(60); signal.raise_signal(signal.SIGTERM)", -15, "", 1),
    "os._exit": ("flags.flush(60); work(); os._exit(4)", 4, "", 1),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_last_counts_arrive_wherever_python_gives_a_chance(end: str) -> None:
    tail, code, said, exposures = ENDS[end]
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        arguments = [server.url, str(EXIT_S)]
        result = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", HEAD + tail, *arguments],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        ended_at = monotonic()
        cells = [cell for summary in server.summaries for cell in summary["cells"]]
    assert result.returncode == code, result.stderr
    assert result.stderr.count("Traceback") == bool(said), result.stderr
    assert said in result.stderr
    assert "flagd" not in result.stderr
    counted = sum(cell["exposures"] for cell in cells)
    assert counted == exposures or (exposures is None and counted > 100)
    assert ended_at - float(result.stdout) < SLACK_S, "who has reported does not wait on"
