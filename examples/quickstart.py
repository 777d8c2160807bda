"""The smallest use of the SDK: one flag, one unit of work.

FLAGD_TOKEN=fr_sdk_production_… python -m examples.quickstart
"""

import os

from flagd_sdk import FlagClient

with FlagClient(
    os.environ.get("FLAGD_URL", "http://127.0.0.1:8013"), os.environ["FLAGD_TOKEN"], service="quick"
) as flags:
    flags.wait_until_ready(30.0)  # not needed: until then it serves what it knew, or the defaults
    with flags.scope({"targetingKey": "user-42", "country": "NL"}):
        print("the new checkout" if flags.is_enabled("new-checkout") else "the old checkout")
