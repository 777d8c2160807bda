"""Runs the shop against a server that is there already.

FLAGD_URL=http://127.0.0.1:8013 FLAGD_TOKEN=fr_sdk_… python -m examples.shop [PORT]
"""

import os
import sys

from examples.shop.app import create_app
from examples.shop.checkout import SandboxGateway
from examples.shop.server import serve
from flagd_sdk import FlagClient


def main() -> None:
    url = os.environ.get("FLAGD_URL", "http://127.0.0.1:8013")
    token = os.environ.get("FLAGD_TOKEN")
    if not token:
        sys.exit("FLAGD_TOKEN is missing: give the SDK token that the server printed at its start")
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 5001
    with FlagClient(url, token, service="shop", service_version="1.0.0") as flags:
        serve(
            create_app(flags, SandboxGateway()),
            port,
            lambda address: print(f"shop on {address}", flush=True),
        )


if __name__ == "__main__":
    main()
