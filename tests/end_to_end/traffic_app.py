"""An application with steady traffic, a part of which fails whatever the flags are.

Run by pause_run.py. Reads lines: "bad KEY" lets this flag, where it is on, break what it is asked
for, "good" ends that, and "rest" and "work" are for all the traffic. Prints "ready" and at last how
many units of work there were.
"""

import os
import random
import sys
import threading

from flagd_sdk import FlagClient

HEALTHY = "healthy"
FAILING = 0.05
_UNIT_S = 0.01

flags = FlagClient(
    os.environ["FLAGD_URL"],
    os.environ["FLAGD_TOKEN"],
    service="shop",
    service_version="1",
    cache_dir=None,
    local_breaker=False,  # it is the server that is to decide
)
assert flags.wait_until_ready(20)
works = threading.Event()
works.set()
ended = threading.Event()
bad = ""
done = 0


def work() -> None:
    """Do units of work, each its own, until the end."""
    global done
    chance = random.Random(9)
    while not ended.wait(_UNIT_S):  # libfaketime breaks time.sleep
        if not works.is_set():
            continue
        with flags.scope({"targetingKey": f"u{done}"}):
            flags.is_enabled(HEALTHY)
            done += 1
            if chance.random() < FAILING:
                flags.fail("declined")
            if bad and flags.is_enabled(bad):
                flags.fail("broken")


worker = threading.Thread(target=work)
worker.start()
print("ready", flush=True)
for line in sys.stdin:
    command, *arguments = line.split()
    if command == "bad":
        bad = arguments[0]
    elif command == "good":
        bad = ""
    elif command == "rest":
        works.clear()
    else:
        works.set()
ended.set()
worker.join()
assert flags.close(20)
print("done", done)
