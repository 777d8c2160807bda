"""The shop as a Flask application: one flag decides which checkout a visitor meets."""

from dataclasses import asdict
from typing import Any

from flask import Flask, request

from examples.shop.checkout import Order, PaymentGateway, new_checkout, old_checkout
from flagd_sdk import FlagClient
from flagd_sdk.integrations.flask import FlaskFlags

NEW_CHECKOUT = "new-checkout"


def create_app(flags: FlagClient, gateway: PaymentGateway) -> Flask:
    """Return the application; the caller owns `flags` and closes it."""
    app = Flask(__name__)
    # One request is one unit of work: what is served in it and how it ends are one record.
    FlaskFlags(flags, lambda request: {"targetingKey": request.headers.get("X-Visitor", "")}, app)

    @app.post("/checkout")
    def checkout() -> dict[str, Any]:
        body = request.get_json()
        order = Order(article=str(body["article"]), price_cents=int(body["price_cents"]))
        if flags.is_enabled(NEW_CHECKOUT):
            return asdict(new_checkout(order, gateway))
        return asdict(old_checkout(order))

    return app
