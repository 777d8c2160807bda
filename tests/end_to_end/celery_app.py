"""An application of Celery workers. Run by test_celery.py with `celery worker`."""

import os
import time
from pathlib import Path

from flagd_sdk import FlagClient
from flagd_sdk.integrations.celery import instrument
from tests.end_to_end.celery_broker import FLAG, PaymentError, celery_on_files

app = celery_on_files(Path(os.environ["CELERY_FOLDER"]))
flags = FlagClient(
    os.environ["FLAGD_URL"],
    os.environ["FLAGD_TOKEN"],
    cache_dir=None,
    poll_interval_s=600.0,  # so that it is the streams which bring the changes
    exit_timeout_s=20.0,
)
flags.wait_until_ready(60.0)  # else the first tasks might be served the defaults: no exposures
instrument(flags, lambda task, args, kwargs: {"targetingKey": str(args[0])})


@app.task(name="work")
def work(number: int, is_broken: bool = False) -> tuple[bool, int]:
    """Return whether the flag is on, and the process that says so."""
    is_on = flags.is_enabled(FLAG)
    if is_broken:
        raise PaymentError
    return is_on, os.getpid()


@app.task(name="linger")
def linger(number: int) -> None:
    """Take the new way, and far too long over it."""
    flags.is_enabled(FLAG)
    for _ in range(600):
        time.sleep(0.1)  # the signal of the time limit may come to another thread than this
