"""An application that forks while its threads use flags. Run by test_sdk_fork.py as a program.

Prints how many units of work were done, by itself and by all of its children.
"""

import os
import sys
import threading

from flagd_sdk import FlagClient

FORKS = 20
UNITS_PER_CHILD = 25


def work(flags: FlagClient, count: int, name: str) -> int:
    """Do units of work; return how many."""
    for number in range(count):
        with flags.scope({"targetingKey": f"{name}-{number}"}):
            if not flags.is_enabled("on", False):
                os._exit(3)
            if number % 5 == 0:
                flags.fail("declined")
    return count


def main(url: str, cache_dir: str, moment: str) -> None:
    flags = FlagClient(
        url,
        "fr_sdk_production_Secret",
        cache_dir=cache_dir,
        report_interval_s=0.05,
        bootstrap=None,
    )
    # "early": while the client's threads are still importing the HTTP stack.
    if moment == "late" and not flags.wait_until_ready(60):
        os._exit(4)
    done = [0] * 4
    ending = threading.Event()

    def busy(slot: int) -> None:
        while not ending.is_set():
            done[slot] += work(flags, 10, f"parent-{slot}") if flags.wait_until_ready(0) else 0
            ending.wait(0.001)

    threads = [threading.Thread(target=busy, args=(slot,)) for slot in range(len(done))]
    for thread in threads:
        thread.start()
    children = []
    for child in range(FORKS):
        pid = os.fork()
        if pid == 0:
            if not flags.wait_until_ready(60):
                os._exit(5)
            import requests  # noqa: F401 - hangs where a fork left the import lock behind

            work(flags, UNITS_PER_CHILD, f"child-{child}")
            os._exit(0 if flags.flush(60) and flags.close(60) else 6)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    if any(codes):
        print(codes, file=sys.stderr)
        os._exit(7)
    ending.set()
    for thread in threads:
        thread.join()
    own = sum(done) + work(flags, 1, "last")
    if not (flags.flush(60) and flags.close(60)):
        os._exit(8)
    print(own + FORKS * UNITS_PER_CHILD)


if __name__ == "__main__":
    main(*sys.argv[1:])
