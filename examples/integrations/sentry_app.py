"""An error that tells Sentry which flags were served where it happened.

FLAGD_TOKEN=fr_sdk_production_… SENTRY_DSN=https://… python -m examples.integrations.sentry_app
"""

import os

import sentry_sdk

from flagd_sdk import FlagClient
from flagd_sdk.integrations.sentry import FlagdIntegration

with FlagClient(
    os.environ.get("FLAGD_URL", "http://127.0.0.1:8013"), os.environ["FLAGD_TOKEN"], service="shop"
) as flags:
    sentry_sdk.init(
        os.environ.get("SENTRY_DSN"),
        integrations=[FlagdIntegration(flags)],
        shutdown_timeout=20,  # the error below is the last that this program does
    )
    flags.wait_until_ready(30.0)
    with flags.scope({"targetingKey": "user-42"}):
        if flags.is_enabled("new-checkout"):
            raise RuntimeError("the new checkout is broken")
        print("the old checkout")
