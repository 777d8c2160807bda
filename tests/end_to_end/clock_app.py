"""An application whose clock is wrong: follows its flag, and says what that cost.

Run by test_sdk_clock.py. Prints "ready"; then for each line that it is given, which says what the
flag is now to become: "jumped" with its clock and the share of a processor that it takes while
idle, and "changed" with how long that took and how often it looked. At last the number of its units
of work.
"""

import os
import sys
import threading
import time

from flagd_sdk import ClientStatus, FlagClient

FLAG = os.environ["FLAG"]
IDLE_S = 0.4

flags = FlagClient(
    os.environ["FLAGD_URL"],
    os.environ["FLAGD_TOKEN"],
    cache_dir=None,
    poll_interval_s=600.0,  # so that it is the stream which brings the changes
)
assert flags.wait_until_ready(60)
done = 0


def work() -> bool:
    global done
    with flags.scope({"targetingKey": f"u{done}"}):
        is_on = flags.is_enabled(FLAG)
        done += 1
        if not done % 3:
            flags.fail("declined")
    return is_on


def busy_share() -> float:
    before_s = time.process_time()
    threading.Event().wait(IDLE_S)  # libfaketime breaks time.sleep
    return (time.process_time() - before_s) / IDLE_S


assert work()
print("ready", time.time(), flush=True)
for line in sys.stdin:  # the clock has jumped
    busy = min(busy_share() for _ in range(3))  # what spins, spins all the time
    assert flags.status is ClientStatus.READY
    assert flags.flush(60), "nothing waits for the clock"
    before, looks = time.monotonic(), 1
    print("jumped", time.time(), busy, flush=True)
    is_on = line == "off\n"  # what it was before
    while work() is is_on:
        threading.Event().wait(0.005)
        looks += 1
    print("changed", time.monotonic() - before, looks, flush=True)
assert flags.close(60)
print("done", done)
