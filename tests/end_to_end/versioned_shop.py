"""A shop in one version, run as a program by test_deployments.py: serves users until it is ended.

The second version brought two flags; the new checkout fails for whoever meets it.
"""

import sys
import time

from flagd_sdk import FlagClient

BROUGHT = {"v1": (), "v2": ("new-cart", "new-checkout")}
USERS = 400


class PaymentError(Exception):
    """What the new checkout runs into."""


def main(url: str, token: str, version: str) -> None:
    with FlagClient(
        url, token, service="shop", service_version=version, cache_dir=None, report_interval_s=0.2
    ) as flags:
        if not flags.wait_until_ready(20):
            sys.exit("no flags")
        print("ready", flush=True)
        number = 0
        while True:
            number += 1
            try:
                with flags.scope({"targetingKey": f"user-{number % USERS}"}):
                    flags.is_enabled("old")
                    met = [flag for flag in BROUGHT[version] if flags.is_enabled(flag)]
                    if "new-checkout" in met:
                        raise PaymentError("no provider")
            except PaymentError:
                pass
            time.sleep(0.002)


if __name__ == "__main__":
    main(*sys.argv[1:])
