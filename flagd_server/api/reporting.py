"""Takes in what SDKs report, without asking Flask where nothing is odd about a report.

Every process reports each second, and Flask's part is a third of what that costs the server.
Whatever is not exactly such a report, and whatever goes wrong with one, is left to the view, which
has the words for it: the tests hold the two to each other.
"""

import io
import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flagd_server.api import problems
from flagd_server.api.auth import SDK, token_before_flask
from flagd_server.api.json_body import MAX_BODY_BYTES, parse_json
from flagd_server.api.schemas.telemetry import read_summary
from flagd_server.api.wiring import Services
from flagd_server.domain.telemetry import Summary
from flagd_server.errors import TooManyReportsError
from flagd_server.storage.records import Token

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

TELEMETRY_PATH = "/sdk/v1/telemetry"
JSON = "application/json"

# Made once: `json.dumps` with options makes an encoder each time, for longer than it encodes.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class ShortWayIn:
    """WSGI middleware."""

    def __init__(self, wsgi_app: "WSGIApplication", services: Services) -> None:
        self._wsgi_app = wsgi_app
        self._services = services

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if (
            environ["PATH_INFO"] == TELEMETRY_PATH
            and environ["REQUEST_METHOD"] == "POST"
            and environ.get("CONTENT_TYPE") == JSON
            and "HTTP_CONTENT_ENCODING" not in environ
            and not environ.get("QUERY_STRING")
        ):
            started_s = time.perf_counter()
            try:
                reply = self._reply(environ)
            except TooManyReportsError as error:
                return self._turn_away(error, environ, start_response, started_s)
            if reply is not None:
                headers = [("Content-Type", JSON), ("Content-Length", str(len(reply)))]
                start_response("200 OK", headers)
                self._services.metrics.count(
                    TELEMETRY_PATH, "POST", 200, time.perf_counter() - started_s
                )
                return (reply,)
        return self._wsgi_app(environ, start_response)

    def _turn_away(
        self,
        error: TooManyReportsError,
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
        started_s: float,
    ) -> Iterable[bytes]:
        """Answer at once: a flood must cost little, and the view would ask for a second turn."""
        answer = problems.respond(error)
        self._services.metrics.count(
            TELEMETRY_PATH, "POST", answer.status_code, time.perf_counter() - started_s
        )
        return answer(environ, start_response)

    def _reply(self, environ: "WSGIEnvironment") -> bytes | None:
        """Return the reply to a report that is in order; None leaves it to Flask.

        Raises:
            TooManyReportsError: its sender has sent too many.
        """
        try:
            token = token_before_flask(environ, self._services.tokens, SDK)
            length = int(environ["CONTENT_LENGTH"])
            if token is None or not 0 <= length <= MAX_BODY_BYTES:
                return None
            body = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(body)
            return take_in(self._services, token, read_summary(parse_json(body)))
        except TooManyReportsError:
            raise
        except Exception:
            # The view meets the fault again, answers and logs it. That submits the summary twice
            # at the most, and one that comes twice is counted once.
            return None


def take_in(services: Services, token: Token, summary: Summary) -> bytes:
    """Store a report and return the reply, as JSON.

    Raises:
        ServerError: it could not be stored, or its sender has sent too many.
    """
    environment = token.environment
    assert environment is not None, "an SDK token is made for one environment"
    receipt = services.ingestion.submit(environment, token, summary)
    services.metrics.count_summary(
        environment,
        duplicate=receipt.duplicate,
        accepted=receipt.accepted,
        refused=0 if receipt.duplicate else len(summary.cells) - receipt.accepted,
    )
    reply = {
        "accepted": receipt.accepted,
        "duplicate": receipt.duplicate,
        "refused": [{"field": fault.field, "message": fault.message} for fault in receipt.refused],
        "processes": receipt.processes,
        "slow_over_s": dict(receipt.slow_over_s),
        "exposed_below": f"{receipt.exposed_below:016x}",
    }
    return _encode(reply).encode()
