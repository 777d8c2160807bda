"""An application that stays up: counts its threads and its memory while the flags change.

Run by test_sdk_steady.py: CHANGES times in the "changes" case, or as often reconnecting.
"""

import gc
import os
import sys
import threading
import time
import tracemalloc

from flagd_sdk import Backoff, FlagClient

CHANGES = 10_000
RECONNECTS = 1_000
WARM_UP = 500


def own_threads() -> list[tuple[str, bool]]:
    """Return name and daemon of the client's threads."""
    return sorted((t.name, t.daemon) for t in threading.enumerate() if t.name.startswith("flagd-"))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def main(url: str, case: str) -> None:
    seen = 0

    def count(_: object) -> None:
        nonlocal seen
        seen += 1

    backoff = Backoff(first_s=0.001, floor_s=0.0005, cap_s=0.002)
    flags = FlagClient(
        url, "fr_sdk_production_Secret", cache_dir=None, backoff=backoff, poll_interval_s=0.0005
    )
    flags.on_change(count)
    goal = CHANGES if case == "changes" else RECONNECTS

    def wait_for(number: int) -> None:
        deadline = time.monotonic() + 60
        while seen < number:
            with flags.scope({"targetingKey": f"u{seen}"}):
                flags.is_enabled("on")
            time.sleep(0.001)
            assert time.monotonic() < deadline, (seen, number)

    wait_for(WARM_UP)
    assert flags.flush(60)
    files = open_files()
    tracemalloc.start()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    threads = own_threads()
    while seen < goal:
        wait_for(min(seen + goal // 10, goal))
        assert own_threads() == threads
    assert flags.flush(60)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    assert open_files() <= files + 3
    print(threads, grown, seen)
    assert flags.close(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
