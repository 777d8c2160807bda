"""The shop with what only the demo needs around it.

That is: visits that failed in the log fail here too; the payment provider can be made to fail; and
the moments at which changes of flags were applied are kept, to be compared across processes.
"""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, g, request

from examples.shop.app import create_app
from examples.shop.checkout import PaymentGatewayError, SandboxGateway
from flagd_sdk import FlagClient, FlagsChanged

RECORDED_STATUS_HEADER = "X-Recorded-Status"
FAULT_HEADER = "X-Fault"
_CHANGES_KEPT = 1_000


class FlakyGateway(SandboxGateway):
    """A provider that refuses a part of the charges.

    Attributes:
        failing_share: probability that a charge fails, 0 to 1.
    """

    def __init__(self) -> None:
        self.failing_share = 0.0

    def charge(self, amount_cents: int) -> str:
        if random.random() < self.failing_share:
            g.fault = PaymentGatewayError.__name__
            raise PaymentGatewayError("the provider did not answer")
        return super().charge(amount_cents)


@dataclass(slots=True)
class Journal:
    """When this process applied which change of the flags."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards entries

    def note(self, change: FlagsChanged) -> None:
        with self.lock:
            self.entries.append({"sequence": change.sequence, "at": time.time()})
            del self.entries[:-_CHANGES_KEPT]

    def read(self) -> Sequence[dict[str, Any]]:
        with self.lock:
            return list(self.entries)


def create_faulty_app(flags: FlagClient) -> Flask:
    """Return the shop; nothing is at fault until `/demo/fault` says so."""
    gateway, journal = FlakyGateway(), Journal()
    flags.on_change(journal.note)
    app = create_app(flags, gateway)

    @app.after_request
    def fail_as_recorded(response: Response) -> Response:
        # A 4xx is no failure by itself; here it stands for the errors that a shop always has.
        recorded = int(request.headers.get(RECORDED_STATUS_HEADER, "200"))
        if recorded >= 400:
            flags.fail(recorded)
            response.status_code = max(recorded, response.status_code)
        if "fault" in g:
            response.headers[FAULT_HEADER] = g.fault
        return response

    @app.get("/demo/changes")
    def changes() -> dict[str, Any]:
        return {"changes": journal.read()}

    @app.put("/demo/fault")
    def set_fault() -> dict[str, Any]:
        gateway.failing_share = float(request.get_json()["share"])
        return {"share": gateway.failing_share}

    return app
