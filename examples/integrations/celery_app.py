"""A Celery application in which each task is a unit of work.

FLAGD_TOKEN=fr_sdk_production_… celery -A examples.integrations.celery_app worker

The broker is what CELERY_BROKER_URL says. Without one, run the task here:

FLAGD_TOKEN=fr_sdk_production_… python -m examples.integrations.celery_app
"""

import os

from celery import Celery

from flagd_sdk import FlagClient
from flagd_sdk.integrations.celery import instrument

app = Celery("shop")
flags = FlagClient(
    os.environ.get("FLAGD_URL", "http://127.0.0.1:8013"), os.environ["FLAGD_TOKEN"], service="shop"
)
instrument(flags, lambda task, args, kwargs: {"targetingKey": kwargs["user_id"]})


@app.task
def checkout(user_id: str) -> str:
    """Take the new way where the flag is on; an error in it is counted against the flag."""
    return "the new checkout" if flags.is_enabled("new-checkout") else "the old checkout"


if __name__ == "__main__":
    flags.wait_until_ready(30.0)
    print(checkout.apply(kwargs={"user_id": "user-42"}).get())
