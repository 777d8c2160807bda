"""An application whose processes come from `multiprocessing`. Run by test_sdk_fork.py as a program.

No worker closes its client: what it counted last is reported as it ends.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from flagd_sdk import FlagClient

WORKERS = 2
UNITS = 25

flags: FlagClient


def begin(url: str, cache_dir: str) -> None:
    """Make this process's client, unless it was inherited."""
    global flags
    if "flags" not in globals():
        # That the counts arrive is the point, not in which time.
        flags = FlagClient(
            url, "fr_sdk_production_Secret", cache_dir=cache_dir, exit_timeout_s=60.0
        )


def work(count: int) -> None:
    """Do units of work; every fifth fails."""
    if not flags.wait_until_ready(60):
        raise TimeoutError("no flags")
    for number in range(count):
        with flags.scope({"targetingKey": f"{number}"}):
            flags.is_enabled("on")
            if number % 5 == 0:
                flags.fail("declined")


def process(url: str, cache_dir: str) -> None:
    begin(url, cache_dir)
    work(UNITS)


def main(url: str, cache_dir: str, method: str) -> None:
    context = multiprocessing.get_context(method)
    if method == "fork":
        begin(url, cache_dir)
    workers = [context.Process(target=process, args=(url, cache_dir)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        sys.exit(3)
    with ProcessPoolExecutor(WORKERS, context, begin, (url, cache_dir)) as pool:
        list(pool.map(work, [UNITS] * WORKERS))


if __name__ == "__main__":
    main(*sys.argv[1:])
