"""A web application on one client, made as it is loaded. Served by test_sdk_prefork.py with
whatever forks: before the first use of the client or after, with or without its knowledge.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable

from flagd_sdk import FlagClient, Reason

FLAG = os.environ["FLAG"]

flags = FlagClient(
    os.environ["FLAGD_URL"],
    os.environ["FLAGD_TOKEN"],
    service="prefork",
    cache_dir=os.environ["CACHE_DIR"] or None,
    poll_interval_s=600.0,  # so that it is the streams which bring the changes
    exit_timeout_s=20.0,
)


def work() -> tuple[bool, bool]:
    """Do a unit of work; return whether the flag was on, and whether that was an exposure."""
    with flags.scope({"targetingKey": "u1"}):
        details = flags.details(FLAG, False)
    return details.value, details.reason is not Reason.ERROR


used_before = int(os.environ["USES_BEFORE_FORK"])
if used_before:
    began_at = time.monotonic()
    is_ready = flags.wait_until_ready(30)
    # Where no thread could bring the flags, it is not waited for them.
    print(f"ready: {is_ready}, slow: {time.monotonic() - began_at > 25}", flush=True)
    print(f"exposures before the fork: {sum(work()[1] for _ in range(used_before))}", flush=True)


def application(
    environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    is_on, is_exposure = work()
    time.sleep(0.005)  # so that no worker is fast enough to answer everybody
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("flagd-")]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
    answer = (os.getpid(), int(is_on), int(is_exposure), flags.status, len(threads))
    return [" ".join(map(str, answer)).encode()]
