"""Takes in what SDKs report, without asking Flask where nothing is odd about a report.

Every process reports each second, and Flask's part is a third of what that costs the server.
Whatever is not exactly such a report, and whatever goes wrong with one, is left to the view, which
has the words for it: the tests hold the two to each other.
"""

import io
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flagd_server.api import access, problems
from flagd_server.api.json_body import MAX_BODY_BYTES, parse_json
from flagd_server.api.observed import ROUTE
from flagd_server.api.schemas.telemetry import read_summary
from flagd_server.api.wiring import Services
from flagd_server.domain.telemetry import Summary
from flagd_server.services.ingestion import ACKNOWLEDGE_WITHIN_S
from flagd_server.services.reports import Accepted
from flagd_server.storage.records import Token
from flagd_server.wsgi import ANSWERS_LATER, Later

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

TELEMETRY_PATH = "/sdk/v1/telemetry"
JSON = "application/json"
_ENDPOINT = "sdk.report_telemetry"

# A longer report keeps its thread while it waits, so that only so many are held: without one there
# may be thousands, and what is read takes ten times the bytes.
PARKED_BYTES = 8 * 1024

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
            found = self._read(environ)
            if found is not None:
                environ[ROUTE] = TELEMETRY_PATH
                return self._report(*found, environ, start_response)
        return self._wsgi_app(environ, start_response)

    def _read(self, environ: "WSGIEnvironment") -> tuple[Token, Summary] | None:
        """Return a report that is in order, and who sends it; None leaves it to Flask."""
        try:
            token = access.opens(environ, self._services.tokens, _ENDPOINT)
            length = int(environ["CONTENT_LENGTH"])
            if token is None or not 0 <= length <= MAX_BODY_BYTES:
                return None
            body = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(body)
            return token, read_summary(parse_json(body))
        except Exception:
            return None  # the view meets the fault again, answers and logs it

    def _report(
        self,
        token: Token,
        summary: Summary,
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
    ) -> Iterable[bytes]:
        """Store a report and answer, without a thread that waits where the server can do so."""
        services = self._services
        ingestion = services.ingestion

        def answer(wait_s: float = 0.0) -> Iterable[bytes]:
            try:
                reply = reply_to(services, token, summary, ingestion.settled(receipt, wait_s))
            except Exception as error:
                return problems.respond(error)(environ, start_response)
            headers = [("Content-Type", JSON), ("Content-Length", str(len(reply)))]
            start_response("200 OK", headers)
            return (reply,)

        later = None
        if ANSWERS_LATER in environ and int(environ["CONTENT_LENGTH"]) <= PARKED_BYTES:
            later = Later(answer, ACKNOWLEDGE_WITHIN_S)
        try:
            receipt = ingestion.begin(
                _environment_of(token), token, summary, None if later is None else later.ready
            )
        except Exception as error:
            # At once: a flood must cost little, and the view would ask for a second turn.
            return problems.respond(error)(environ, start_response)
        return answer(ACKNOWLEDGE_WITHIN_S) if later is None else later


def take_in(services: Services, token: Token, summary: Summary) -> bytes:
    """Store a report, wait for that, and return the reply, as JSON.

    Raises:
        ServerError: it could not be stored, or its sender has sent too many.
    """
    accepted = services.ingestion.submit(_environment_of(token), token, summary)
    return reply_to(services, token, summary, accepted)


def reply_to(services: Services, token: Token, summary: Summary, accepted: Accepted) -> bytes:
    """Count a report that was stored and return the reply, as JSON."""
    services.metrics.count_summary(
        _environment_of(token),
        duplicate=accepted.duplicate,
        accepted=accepted.accepted,
        refused=0 if accepted.duplicate else len(summary.cells) - accepted.accepted,
    )
    reply = {
        "accepted": accepted.accepted,
        "duplicate": accepted.duplicate,
        "refused": [{"field": fault.field, "message": fault.message} for fault in accepted.refused],
        "processes": accepted.processes,
        "slow_over_s": dict(accepted.slow_over_s),
        "exposed_below": f"{accepted.exposed_below:016x}",
        "lifted": list(accepted.lifted),
    }
    return _encode(reply).encode()


def _environment_of(token: Token) -> str:
    assert token.environment is not None, "an SDK token is made for one environment"
    return token.environment
