"""Any WSGI application.

FLAGD_TOKEN=fr_sdk_production_… python -m examples.integrations.wsgi_app [PORT]
"""

import os
import sys
from collections.abc import Iterable
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from flagd_sdk import FlagClient
from flagd_sdk.integrations.wsgi import FlagsMiddleware

flags = FlagClient(
    os.environ.get("FLAGD_URL", "http://127.0.0.1:8013"), os.environ["FLAGD_TOKEN"], service="shop"
)


def shop(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the new checkout" if flags.is_enabled("new-checkout") else b"the old checkout"]


def context(environ: WSGIEnvironment) -> dict[str, object]:
    return {"targetingKey": environ.get("HTTP_X_VISITOR", "")}


app = FlagsMiddleware(shop, flags, context)

if __name__ == "__main__":
    with make_server("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 5001, app) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
