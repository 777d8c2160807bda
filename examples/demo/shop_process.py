"""One process of the shop: `python -m examples.demo.shop_process NAME PARENT`."""

import os
import sys

from examples.demo import leash
from examples.demo.faulty_shop import create_faulty_app
from examples.shop.server import serve
from flagd_sdk import FlagClient

_CONNECT_WITHIN_S = 30.0


def main() -> None:
    name, parent = sys.argv[1], int(sys.argv[2])
    leash.hold(parent)
    with FlagClient(
        os.environ["FLAGD_URL"],
        os.environ["FLAGD_TOKEN"],
        service="shop",
        service_version="1.0.0",
        instance=name,
        cache_dir=None,
    ) as flags:
        app = create_faulty_app(flags)
        if not flags.wait_until_ready(_CONNECT_WITHIN_S):
            sys.exit(f"{name}: no flags from the server within {_CONNECT_WITHIN_S:.0f} s")
        serve(app, 0, lambda url: print("ready", url, flush=True))


if __name__ == "__main__":
    main()
