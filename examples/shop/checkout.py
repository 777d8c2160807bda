"""What the shop sells by: the checkout that has always been there, and the new one."""

from dataclasses import dataclass
from typing import Protocol


class PaymentGatewayError(Exception):
    """The payment provider did not take the charge."""


class PaymentGateway(Protocol):
    """The provider that only the new checkout talks to."""

    def charge(self, amount_cents: int) -> str:
        """Return the provider's reference of the payment.

        Raises:
            PaymentGatewayError: the charge was not taken.
        """


@dataclass(frozen=True, slots=True)
class Order:
    article: str
    price_cents: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to an order.

    Attributes:
        checkout: which of the two dealt with it, "old" or "new".
        reference: of the invoice or of the payment.
    """

    checkout: str
    reference: str


def old_checkout(order: Order) -> Receipt:
    """Send an invoice along with the parcel."""
    return Receipt("old", f"invoice over {order.price_cents} cents")


def new_checkout(order: Order, gateway: PaymentGateway) -> Receipt:
    """Charge the customer at once.

    Raises:
        PaymentGatewayError: the provider did not take the charge.
    """
    return Receipt("new", gateway.charge(order.price_cents))


class SandboxGateway:
    """A provider that takes every charge, as the sandboxes of the real ones do."""

    def charge(self, amount_cents: int) -> str:
        return f"payment of {amount_cents} cents"
