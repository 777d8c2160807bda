"""Flask.

FLAGD_TOKEN=fr_sdk_production_… python -m examples.integrations.flask_app [PORT]
"""

import os
import sys

from flask import Flask, Request

from flagd_sdk import FlagClient
from flagd_sdk.integrations.flask import FlaskFlags

flags = FlagClient(
    os.environ.get("FLAGD_URL", "http://127.0.0.1:8013"), os.environ["FLAGD_TOKEN"], service="shop"
)


def context(request: Request) -> dict[str, object]:
    # Called where the request asks for its first flag: `g`, `session`, `current_user` are there.
    return {"targetingKey": request.headers.get("X-Visitor", "")}


extension = FlaskFlags(flags, context)


def create_app() -> Flask:
    app = Flask(__name__)
    extension.init_app(app)

    @app.get("/")
    def checkout() -> str:
        return "the new checkout" if flags.is_enabled("new-checkout") else "the old checkout"

    return app


if __name__ == "__main__":
    create_app().run(port=int(sys.argv[1]) if sys.argv[1:] else 5001)
