"""A tiny application with one flag client for all of it, as most have."""

import os

from flagd_sdk import FlagClient

flags = FlagClient(
    os.environ.get("FLAGD_URL", "http://127.0.0.1:8013"),
    token=os.environ.get("FLAGD_TOKEN", "none"),
    service="shop",
)
CHECKOUT = flags.boolean("new-checkout", default=False)
DISCOUNT = flags.integer("discount-percent", default=0)


def old_total(prices: list[int]) -> int:
    """Return what a cart costs, in cents."""
    return sum(prices)


@CHECKOUT.when(otherwise=old_total)
def total(prices: list[int]) -> int:
    """Return what a cart costs less the discount, in cents; every third article is free."""
    most = max(prices)
    free = most if len(prices) >= 3 else 0
    return (sum(prices) - free) * (100 - DISCOUNT.value()) // 100


def order(customer: str, prices: list[int]) -> str:
    """Take an order: one unit of work."""
    with flags.scope({"targetingKey": customer}):
        return f"{customer} pays {total(prices)}"
